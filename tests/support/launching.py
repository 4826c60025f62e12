"""Starting scripts and workers on several ranks, under either launcher."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support import REPOSITORY

WORKERS = REPOSITORY / "tests" / "support" / "workers"


def launched(test: Callable) -> Callable:
    """Mark a test that starts real processes."""
    return pytest.mark.launcher(pytest.mark.slow(test))


def launch_command(backend: str, ranks: int) -> list[str]:
    """What starts a Python script, whose name follows, on so many ranks of this machine."""
    if backend == "torch":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, f"--nproc-per-node={ranks}"]
    horovodrun = "from horovod.runner.launch import run_commandline; run_commandline()"
    return [sys.executable, "-c", horovodrun, "-np", str(ranks), sys.executable]


def launch(
    backend: str, worker: str, *words: object, ranks: int = 2, **env: str
) -> subprocess.CompletedProcess:
    """Run tests/support/workers/WORKER on CPU ranks; stderr is mixed into stdout."""
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "EXPECTED_BACKEND": backend}
    return subprocess.run(
        [*launch_command(backend, ranks), str(WORKERS / worker), *map(str, words)],
        env={**os.environ, **settings, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
