"""What a bug report needs is printed by Python alone, and nothing secret with it."""

import subprocess
import sys

import torch

from tests.support import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "report_environment.py"


def report(*flags: str, **environment: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, *flags, SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    assert not done.stderr
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def test_versions_and_machine():
    found = report(OMP_NUM_THREADS="3", HERO_BLOB_URL="https://me:word@host", SHELL="fish")
    assert found["torch"] == torch.__version__
    assert found["Python"].startswith(sys.version.split()[0])
    assert "GiB" in found["memory"] and "cores" in found["processor"]
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["HERO_BLOB_URL"] == "(set, not shown)"
    assert "SHELL" not in found


def test_it_needs_no_package():
    found = report("-S")  # without site-packages
    assert found["torch"] == found["lmdb"] == "not installed"
