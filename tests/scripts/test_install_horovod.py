"""install_horovod.sh: what it says when it cannot start, and that a second run does nothing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "install_horovod.sh"


def install(**env: object) -> subprocess.CompletedProcess:
    settings = {name: str(value) for name, value in env.items()}
    return subprocess.run(
        [shutil.which("bash"), str(SCRIPT)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def wrapper(folder: Path, body: str) -> Path:
    """A stand-in for the interpreter."""
    python = folder / "python"
    python.write_text(f"#!{shutil.which('sh')}\n{body}\n")
    python.chmod(0o755)
    return python


def test_no_such_interpreter():
    result = install(PYTHON="no-such-python")
    assert result.returncode == 2
    assert "error: there is no 'no-such-python'" in result.stderr


def test_torch_comes_first(tmp_path):
    python = wrapper(tmp_path, '[ "$2" = pip ]')  # pip is there, importing torch fails
    result = install(PYTHON=python)
    assert result.returncode == 2
    assert "cannot import torch" in result.stderr


@pytest.mark.slow
def test_all_missing_tools_are_named(tmp_path):
    # Horovod cannot be imported, and PATH holds nothing that builds.
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").write_text("raise ImportError")
    python = wrapper(tmp_path, f'exec {sys.executable} "$@"')
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    result = install(
        PYTHON=python, PATH=tmp_path, PYTHONPATH=tmp_path, HERO_WHEEL_CACHE=tmp_path / "wheels"
    )
    assert result.returncode == 2
    for tool in ("cmake >= 3.13", "C++ compiler", "make (apt-get install make)"):
        assert tool in result.stderr
    assert not (tmp_path / "wheels").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="Horovod is not installed")
def test_second_run_does_nothing(tmp_path):
    result = install(PYTHON=sys.executable, HERO_WHEEL_CACHE=tmp_path / "wheels")
    assert result.returncode == 0, result.stderr
    assert "already installed" in result.stdout
    assert not (tmp_path / "wheels").exists()
