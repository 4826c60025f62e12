"""Killing a real training process at random moments, and comparing where it ends."""

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.support import REPOSITORY
from utils.errors import run_main

# Forks trainings that are to be killed: they need not load PyTorch again each time.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("pretrain", "train_all_multitask", "train_tvc", "train_vcmr", "train_videoQA"),
        *("train_violin", "train_vr", "torch.utils.tensorboard", "tests.support.survival"),
    ]
)


def running(process: Path) -> bool:
    """Whether /proc/NUMBER lives; one that is dead and waits for its parent does not."""
    try:
        return ") Z " not in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Fail unless ``holds()`` comes true in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def start_training(
    script: str,
    config: Path,
    output_dir: Path,
    *more: str,
    launcher: Sequence[str] = (sys.executable,),
) -> subprocess.Popen:
    """Start a training script as a user does."""
    command = [*launcher, script, "--config", str(config), "--output_dir", str(output_dir)]
    return subprocess.Popen(
        [*command, *more],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class ForkedTraining:
    """A training script in a process of its own, forked from one that has loaded PyTorch."""

    def __init__(self, script: str, config: Path, output_dir: Path) -> None:
        self._errors = config.with_name(f"{output_dir.name}.errors")
        words = ["--config", str(config), "--output_dir", str(output_dir)]
        arguments = (script.removesuffix(".py"), words, dict(os.environ), self._errors)
        self._process = _FORKS.Process(target=_train, args=arguments)
        with contextlib.chdir(REPOSITORY):  # whence the process that forks imports
            self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._process.kill()
        self._process.join()

    def wait(self) -> None:
        """Wait for the end; the error output is shown where it fails."""
        self._process.join(600)
        assert self.poll() == 0, self._errors.read_text()


def _train(script: str, words: list[str], environment: dict[str, str], errors: Path) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of what loads data, as elsewhere
    os.environ.update(environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    os.chdir(REPOSITORY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [f"{script}.py", *words]
    run_main(importlib.import_module(script).main)


def wait_for_the_end(process: subprocess.Popen) -> None:
    """Wait for a training that is under way; the error output is shown where it fails."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def wait_for_a_step(
    process: subprocess.Popen | ForkedTraining, output_dir: Path, before: str
) -> None:
    """Return when some step was logged, unless the training has ended.

    Args:
        before: what :func:`logged` was before it was started.
    """
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if logged(output_dir) not in ("", before):
            break
        time.sleep(0.02)


def logged(output_dir: Path) -> str:
    """The metrics of a run so far."""
    metrics = output_dir / "log" / "metrics.jsonl"
    return metrics.read_text() if metrics.exists() else ""


def kill_after_steps(script: str, config: Path, output_dir: Path, rng: random.Random) -> None:
    """Start, wait until some step was logged, then SIGKILL after a random moment."""
    before = logged(output_dir)
    process = ForkedTraining(script, config, output_dir)
    wait_for_a_step(process, output_dir, before)
    time.sleep(rng.uniform(0, 1.5))
    process.kill()


def assert_survives_kills(script: str, options: dict, folder: Path, kills: int = 3) -> None:
    """A run killed several times and restarted ends bit for bit like the unbroken one.

    Args:
        script: a training script.
        options: of a short run: ``num_train_steps`` … ; logged at every step.
        folder: for both runs.
        kills: how often.
    """
    config = folder / "options.json"
    config.write_text(json.dumps(options | {"log_steps": 1}))
    whole, broken = folder / "whole", folder / "broken"
    rng = random.Random(time.time_ns())
    unbroken = ForkedTraining(script, config, whole)
    for _ in range(kills):
        kill_after_steps(script, config, broken, rng)
    ForkedTraining(script, config, broken).wait()
    unbroken.wait()
    assert_same_end(whole, broken, options["num_train_steps"])


def assert_same_end(whole: Path, broken: Path, last_step: int) -> None:
    """Equal weights, optimizer state, metrics and predictions."""
    first, second = (torch.load(run / "restore.pt", weights_only=True) for run in (whole, broken))
    assert first["step"] == second["step"] == last_step
    assert_equal(first, second, "restore.pt")
    name = f"ckpt/model_step_{last_step}.pt"
    assert_equal(
        torch.load(whole / name, weights_only=True),
        torch.load(broken / name, weights_only=True),
        name,
    )
    assert metric_lines(whole) == metric_lines(broken)
    for result in whole.glob("results/**/*"):
        if result.is_file():
            assert result.read_bytes() == (broken / result.relative_to(whole)).read_bytes()


def metric_lines(run: Path) -> list[str]:
    """What was measured, without how long it took."""
    lines = (run / "log" / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if '"seconds/' not in line]


def assert_equal(first: object, second: object, where: str) -> None:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    else:
        assert first == second, where
