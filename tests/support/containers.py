"""``launch_container.sh`` with a ``docker`` that records what it is given."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.support import REPOSITORY

NAMES = ("txt_db", "video_db", "finetune", "pre trained")


RECORD = """#!{python}
import json, os, sys
with open(os.environ["DOCKER_CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "inspect":
    sys.exit(int(os.environ["IMAGE_STATUS"]))
if sys.argv[1] == "run":
    sys.exit(int(os.environ["RUN_STATUS"]))
"""


def with_fake_docker(folder: Path) -> dict[str, str]:
    """An environment whose ``docker`` prints its arguments, one a line."""
    fake = folder / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    return {"PATH": path, "HERO_DOCKER": "1", "HERO_IMAGE": "some:image"}


class Shell:
    """Sources the script, as a user would, with a ``docker`` that records its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        docker = folder / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(RECORD.format(python=sys.executable))
        docker.chmod(0o755)
        self.folders = [folder / name for name in NAMES]
        for path in self.folders:
            path.mkdir()
        self.env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        self.env |= {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
        self.env |= {"DOCKER_CALLS": str(self.calls), "IMAGE_STATUS": "0", "RUN_STATUS": "0"}

    def source(self, *arguments: object, **env: str) -> subprocess.CompletedProcess:
        words = shlex.join(map(str, [REPOSITORY / "launch_container.sh", *arguments]))
        return subprocess.run(
            ["bash", "-c", f'source {words}; echo "status $?, flags $-"'],
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=True,
        )

    def run_call(self) -> list[str]:
        """Arguments of the one ``docker run``."""
        calls = [json.loads(line) for line in self.calls.read_text().splitlines()]
        (run,) = [call for call in calls if call[0] == "run"]
        return run


def mounts(call: list[str]) -> dict[str, tuple[str, bool]]:
    """Destination → (folder, writable)."""
    found = {}
    for flag, value in pairwise(call):
        if flag == "--mount":
            fields = dict(part.partition("=")[::2] for part in value.split(","))
            found[fields["destination"]] = (fields["source"], "readonly" not in fields)
    return found
