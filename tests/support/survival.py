"""Killing a real training process at random moments, and comparing where it ends."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.support import REPOSITORY


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


def wait_for_the_end(process: subprocess.Popen) -> None:
    """Wait for a training that is under way; the error output is shown where it fails."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def wait_for_a_step(process: subprocess.Popen, output_dir: Path, before: str) -> None:
    """Return when some step was logged, unless the training has ended.

    Args:
        before: what :func:`logged` was before it was started.
    """
    deadline = time.monotonic() + 120
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
    process = start_training(script, config, output_dir)
    wait_for_a_step(process, output_dir, before)
    time.sleep(rng.uniform(0, 1.5))
    process.kill()
    process.communicate(timeout=60)  # its worker processes hold the error output while they live


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
    with start_training(script, config, whole) as unbroken:  # beside the others: it saves time
        for _ in range(kills):
            kill_after_steps(script, config, broken, rng)
        wait_for_the_end(start_training(script, config, broken))
        wait_for_the_end(unbroken)
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
