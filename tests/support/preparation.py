"""Preparation as users run it: ``scripts/prepare_data.py`` and the shell scripts."""

import os
import subprocess
import sys
from pathlib import Path

from scripts import prepare_data
from tests.support import REPOSITORY


def prepare(storage: Path, *arguments: str, dataset: str = "tvr") -> None:
    """Call the script in this process."""
    prepare_data.main(["--dataset", dataset, "--storage", str(storage), *arguments])


def run_script(
    script: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess:
    """Run a shell script as users do."""
    return subprocess.run(
        ["bash", REPOSITORY / "scripts" / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )
