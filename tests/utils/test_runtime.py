"""Settings of PyTorch's libraries: made before it is loaded, by every script, unless a user did."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from utils.runtime import ENVIRONMENT

SCRIPTS = sorted(
    path.relative_to(REPOSITORY)
    for folder in (".", "scripts", "two_stream_eval")
    for path in (REPOSITORY / folder).glob("*.py")
    if path.name not in ("__init__.py", "report_environment.py")  # it loads nothing
)
# Ends at the first import of PyTorch, and tells what it would have found.
LOAD = """
import json, os, runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers"):
            raise SystemExit(json.dumps(dict(os.environ)))
sys.meta_path.insert(0, Finder())
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[1]))
runpy.run_path(sys.argv[1], run_name="imported")
raise SystemExit(json.dumps(dict(os.environ)))
"""


def environment_at_load(script: Path, **given: str) -> dict[str, str]:
    """The environment in which a script loads PyTorch (or ends, where it does not)."""
    bare = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(script)],
        cwd=REPOSITORY,
        env=bare | given,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stderr.splitlines()[-1])
    return {name: found.get(name) for name in ENVIRONMENT}


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_script_makes_the_settings_before_it_loads_pytorch(script):
    assert environment_at_load(script) == ENVIRONMENT


def test_what_the_user_has_set_stays():
    given = dict.fromkeys(ENVIRONMENT, "7")
    assert environment_at_load(Path("train_vcmr.py"), **given) == given


def test_a_policy_of_the_users_is_not_overruled_by_a_count():
    found = environment_at_load(Path("train_vcmr.py"), OMP_WAIT_POLICY="ACTIVE")
    assert (found["OMP_WAIT_POLICY"], found["GOMP_SPINCOUNT"]) == ("ACTIVE", None)
