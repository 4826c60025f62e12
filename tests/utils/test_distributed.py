"""Collectives, gradient averaging and failures, in one process and on two real ranks."""

import ast
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import REPOSITORY
from tests.support.recorded import DEVICE
from tests.support.survival import running, wait_until
from utils.distributed import (
    GradientReducer,
    SingleProcess,
    broadcast_parameters,
    gather_with_grad,
    init_communicator,
    seed_all,
    setup,
)
from utils.errors import UserError

WORKERS = REPOSITORY / "tests" / "support" / "workers"
LAUNCHER_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK", "WORLD_SIZE", "LOCAL_RANK")
CHECKS = [
    node.name
    for node in ast.parse((WORKERS / "distributed_checks.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


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
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def results(backend, tmp_path_factory) -> list[dict[str, str]]:
    """What each rank says of every check: "" or a traceback. One launch serves all tests."""
    folder = tmp_path_factory.mktemp(backend)
    run = launch(backend, "distributed_checks.py", folder)
    assert run.returncode == 0, run.stdout
    return [json.loads((folder / rank).read_text()) for rank in "01"]


@launched
@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(results, check):
    for rank, result in enumerate(results):
        assert not result[check], f"rank {rank}: {result[check]}"


@launched
def test_runs_end_in_order(backend):
    """No thread of a collective outlives ``shutdown()``: it could abort a run that is done.

    tests/support/orderly_ends.py counts ends on a busy machine.
    """
    for _ in range(3):
        run = launch(backend, "short_run.py", ranks=3)
        assert run.returncode == 0 and "terminate called" not in run.stdout, run.stdout
        counts = re.findall(r"collective threads: (\d+) before shutdown, (\d+) after", run.stdout)
        assert [after for _, after in counts] == ["0"] * 3, run.stdout
        if backend == "torch":
            assert all(int(before) > 0 for before, _ in counts), run.stdout


@pytest.fixture
def failed_run(backend, tmp_path) -> Callable[..., str]:
    """What is said where something happens to rank 1; the run must end within a minute."""

    def run(fault: str, **env: str) -> str:
        start = time.monotonic()
        done = launch(backend, "failing_rank.py", fault, tmp_path, **env)
        assert done.returncode != 0
        assert time.monotonic() - start < 60
        return done.stdout

    return run


COLLECTIVE = "collective 2, all_reduce mean of float32 (3, 2) failed"


@launched
def test_a_dying_rank_ends_the_run_and_shows_its_traceback(failed_run):
    said = failed_run("dies")
    assert "Traceback" in said and "ValueError: the planted fault" in said


@launched
def test_a_late_rank_is_named(failed_run):
    said = failed_run("is late", HERO_COLLECTIVE_TIMEOUT="5")
    late = "(rank 1 is busy elsewhere, its last step was 7)"
    assert f"error: rank 0 of 2, after step 7: {COLLECTIVE} {late}: " in said


@launched
def test_a_killed_rank_is_named(failed_run):
    said = failed_run("is killed")
    assert said.count(f"{COLLECTIVE} (rank 1 is gone or stopped, its last step was 7)") == 1


@launched
def test_a_stopped_rank_is_named(failed_run):
    said = failed_run("is stopped", HERO_RANK_TIMEOUT="3")
    assert said.count("error: rank 1 of 2 has given no sign of life for 4 s (it is stopped, ") == 1
    assert "its last step was 7; the same command resumes" in said


@launched
def test_ranks_end_with_a_killed_launcher(backend, tmp_path):
    command = [*launch_command(backend, 2), str(WORKERS / "failing_rank.py"), "is late", tmp_path]
    with subprocess.Popen(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}) as launcher:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, seconds=60)
        launcher.kill()
    ranks = [Path("/proc", path.read_text()) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(map(running, ranks)), seconds=60)


@pytest.mark.device
@pytest.mark.slow
def test_one_rank_on_the_device():
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "0") if DEVICE.type == "cuda" else ""
    run = launch("torch", "one_rank.py", ranks=1, CUDA_VISIBLE_DEVICES=gpus)
    assert run.returncode == 0 and f"one rank on {DEVICE.type}: done" in run.stdout, run.stdout


@pytest.fixture
def no_launcher(monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_process(no_launcher):
    comm, device = setup(seed=1)
    assert (comm.backend, comm.rank, comm.size, comm.is_main) == ("single", 0, 1, True)
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert comm.all_reduce_(torch.tensor([2.0]), "mean").item() == 2.0
    assert comm.broadcast_(torch.tensor([2.0])).item() == 2.0
    assert comm.all_gather(torch.ones(2, 3)).shape == (2, 3)
    assert comm.all_gather_object({"a": 1}) == [{"a": 1}]
    assert comm.broadcast_object("x") == "x"
    comm.barrier()
    comm.shutdown()


def test_one_process_pays_nothing():
    comm, layer = SingleProcess(), nn.Linear(2, 1)
    broadcast_parameters(comm, layer)
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_with_grad(comm, rows) is rows
    reducer = GradientReducer(comm, layer.parameters())
    with reducer.accumulate():
        layer(rows).sum().backward()
    layer(rows).sum().backward()
    reducer.finish()
    assert layer.weight.grad.tolist() == [[6.0, 6.0]]
    assert not layer.weight._post_accumulate_grad_hooks


def test_horovod_missing_is_said(no_launcher, monkeypatch):
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(UserError, match=r"install_horovod\.sh"):
        init_communicator()


@pytest.mark.parametrize("name", ["HERO_COLLECTIVE_TIMEOUT", "HERO_RANK_TIMEOUT"])
@pytest.mark.parametrize("value", ["soon", "0", "-5", ""])
def test_time_limit_must_be_seconds(no_launcher, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name):
        init_communicator()


def test_more_processes_than_gpus_is_said(no_launcher, monkeypatch):
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="2 visible"):
        init_communicator()


def test_seeds_repeat_and_differ_by_rank():
    def draw(rank: int) -> tuple[float, float, float]:
        seed_all(5, rank)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(0) == draw(0)
    assert all(a != b for a, b in zip(draw(0), draw(1)))
