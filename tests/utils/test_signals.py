"""SIGINT and SIGTERM: one line, 130 or 143, nothing left, and training resumes exactly."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.restore import RunFolder, load_restore_point
from tests.conftest import LAUNCHERS
from tests.engine.test_engine import Count, make_trainer
from tests.support.survival import (
    REPOSITORY,
    assert_equal,
    assert_same_end,
    logged,
    running,
    start_training,
    wait_for_a_step,
    wait_for_the_end,
    wait_until,
)
from tests.utils.test_distributed import launch_command, launched
from utils.signals import stoppable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
both = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
STEPS = 48  # a launcher takes a second to hand a signal on

# --- any command -------------------------------------------------------------------------------

COMMAND = """
import multiprocessing, subprocess, sys, time
from pathlib import Path
from utils.errors import run_main
from utils.files import atomic_write
from utils.processes import follow_parent
from utils.signals import postponed_signals, run_program

def work():
    follow_parent()
    time.sleep(60)

def main():
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    with atomic_write("result.json"):
        Path("pids").write_text(str(worker.pid))
        {wait}

run_main(main)
"""
# Ends silently; Python's own handler would say so where the signal outruns the parent's.
PROGRAM = (
    "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "open('pids', 'a').write(f' {os.getpid()}'); time.sleep(60)"
)
WAITS = {
    "computing": "time.sleep(60)",
    "running a program": f"run_program([sys.executable, '-c', {PROGRAM!r}])",
}


def start_command(wait: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(wait=wait)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(folder: Path) -> list[Path]:
    file = folder / "pids"
    pids = file.read_text().split() if file.exists() else []
    return [Path("/proc", pid) for pid in pids]


@both
@pytest.mark.parametrize("to_group", [False, True], ids=["to it", "to its group"])
@pytest.mark.parametrize("doing", WAITS)
def test_a_command_ends_in_one_line_and_leaves_nothing(tmp_path, number, to_group, doing):
    process = start_command(WAITS[doing], tmp_path)
    wait_until(lambda: len(children(tmp_path)) == list(WAITS).index(doing) + 1)
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (128 + number, f"stopped by {number.name}\n")
    wait_until(lambda: not any(map(running, children(tmp_path))))
    assert [path.name for path in tmp_path.iterdir()] == ["pids"]


def test_a_second_signal_ends_at_once(tmp_path):
    wait = "\n        with postponed_signals(): time.sleep(60)"
    process = start_command(wait, tmp_path)
    wait_until(lambda: children(tmp_path))
    for _ in range(2):  # as Ctrl-C may reach it twice
        process.terminate()
    time.sleep(1.2)
    assert process.poll() is None
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (143, "stopped by SIGTERM\n")
    wait_until(lambda: not any(map(running, children(tmp_path))))


@both
def test_a_signal_while_modules_are_imported(tmp_path, number):
    """The handlers are there as soon as the first of the project's modules is."""
    slow = "import time\ndef hold(*_): open('here', 'w'); time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(
        f"{slow}import sys\nclass Slow:\n    def find_spec(self, name, *_):\n"
        "        if name == 'torch': hold()\nsys.meta_path.insert(0, Slow())\n"
    )
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "eval_vcmr.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "here").exists(), seconds=30)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (128 + number, f"stopped by {number.name}\n")


def test_an_ignored_signal_stays_ignored(tmp_path):
    """A shell's script ignores SIGINT for its background jobs: Ctrl-C is the foreground's."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = start_command("time.sleep(60)", tmp_path)
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: children(tmp_path))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 143


# --- the training loop -------------------------------------------------------------------------


class Signalling(Count):
    """Batches, and a signal with one of them."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.its_signal = at, number

    def __next__(self):
        batch = super().__next__()
        if self.number == self.at:
            signal.raise_signal(self.its_signal)
        return batch


SCHEDULE = {"num_train_steps": 6, "valid_steps": 3, "save_steps": 6, "restore_steps": 5}


def stopped(trainer) -> int:
    """The exit code of a training that a signal ends."""
    with pytest.raises(SystemExit) as end:
        stoppable(trainer.train)()
    return end.value.code


def final_state(folder: Path) -> dict:
    return load_restore_point(RunFolder(folder))


@both
@pytest.mark.parametrize("at", [2, 3, 5, 6])
def test_a_step_is_finished_and_gone_on_from(tmp_path, capfd, number, at):
    make_trainer(tmp_path / "whole", **SCHEDULE).train()
    folder = tmp_path / "broken"
    capfd.readouterr()
    loader = Signalling(at, number)
    assert stopped(make_trainer(folder, loader=loader, **SCHEDULE)) == 128 + number
    point = folder / "restore.pt"
    line = f"stopped by {number.name}; {point} is of step {at}: the same command resumes there"
    assert capfd.readouterr().err.splitlines()[-1] == line
    validated = final_state(folder)["validated"]
    assert validated == (at % 3 != 0)  # a validation that is due is left to the restart
    again = make_trainer(folder, **SCHEDULE)
    assert again.steps_done == at
    assert again.train() == {"seen": 6.0}
    assert_equal(final_state(tmp_path / "whole"), final_state(folder), "restore.pt")
    whole, broken = (RunFolder(tmp_path / name).log for name in ("whole", "broken"))
    assert without_times(whole) == without_times(broken)


def without_times(log: Path) -> list[str]:
    lines = (log / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if '"seconds/' not in line]


def test_a_validation_ends_at_once_and_is_done_after_the_restart(tmp_path):
    trainer = make_trainer(tmp_path, **SCHEDULE)
    trainer.task.validate = lambda step: signal.raise_signal(signal.SIGTERM)
    assert stopped(trainer) == 143
    assert not final_state(tmp_path)["validated"]
    again, validated = make_trainer(tmp_path, **SCHEDULE), []
    again.task.validate = lambda step: {"seen": validated.append(step) or step}
    assert again.train() == {"seen": 6.0} and validated == [3, 6]


# --- real training -----------------------------------------------------------------------------


@pytest.fixture
def config(tvr_options, tmp_path) -> Path:
    """Options of a run that saves nothing before its end."""
    rarely = dict.fromkeys(("valid_steps", "save_steps", "restore_steps"), 1000)
    path = tmp_path / "options.json"
    path.write_text(json.dumps(tvr_options | rarely | {"num_train_steps": STEPS, "log_steps": 1}))
    return path


def stop_after_a_step(config: Path, run: Path, number: int, launcher: list[str]) -> tuple[int, str]:
    """Train until some step was logged, then send the signal; exit code and error output."""
    before = logged(run)
    process = start_training("train_vcmr.py", config, run, launcher=launcher)
    wait_for_a_step(process, run, before)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def assert_stopped_in_order(run: Path, said: str) -> int:
    """One line says it, a restore point is there, nothing else is; returns its step."""
    lines = re.findall(r"stopped by SIG\w+; .*restore\.pt is of step (\d+)", said)
    assert len(lines) == 1 and "train_vcmr.py" not in said, said
    step = int(lines[0])
    assert 0 < step < STEPS
    assert torch.load(run / "restore.pt", weights_only=True)["step"] == step
    assert not list(run.rglob("*.tmp"))
    return step


@pytest.mark.golden
@pytest.mark.slow
def test_stopped_training_goes_on_exactly(config, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = []
    with start_training("train_vcmr.py", config, whole) as unbroken:
        for number in SIGNALS:
            code, said = stop_after_a_step(config, broken, number, [sys.executable])
            assert code == 128 + number and "Traceback" not in said, said
            assert said.splitlines()[-1].startswith(f"stopped by {number.name}; ")
            steps.append(assert_stopped_in_order(broken, said))
        wait_for_the_end(start_training("train_vcmr.py", config, broken))
        wait_for_the_end(unbroken)
    assert steps[0] < steps[1]
    assert_same_end(whole, broken, STEPS)


@launched
@pytest.mark.golden
@pytest.mark.parametrize("backend", LAUNCHERS, indirect=True)
def test_stopped_ranks_go_on_exactly(config, tmp_path, backend):
    """A launcher hands the signal on; its own exit code and traceback are its affair."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    launcher = launch_command(backend, 2)
    with start_training("train_vcmr.py", config, whole, launcher=launcher) as unbroken:
        for number in SIGNALS:
            code, said = stop_after_a_step(config, broken, number, launcher)
            assert code != 0
            assert_stopped_in_order(broken, said)
        wait_for_the_end(start_training("train_vcmr.py", config, broken, launcher=launcher))
        wait_for_the_end(unbroken)
    assert_same_end(whole, broken, STEPS)


@launched
@pytest.mark.golden
def test_two_hosts_without_a_shared_folder_train_as_one(config, tmp_path):
    """Two launchers as two nodes; the second one's folder holds the end of another run."""
    whole, folders = tmp_path / "whole", [tmp_path / "node0", tmp_path / "node1"]
    launcher = launch_command("torch", 2)
    wait_for_the_end(start_training("train_vcmr.py", config, whole, launcher=launcher))
    shutil.copytree(whole, folders[1])
    nodes = start_nodes(config, folders)
    wait_for_a_step(nodes[0], folders[0], "")
    nodes[0].terminate()  # its rank's wish reaches the other's
    said = [node.communicate(timeout=120)[1] for node in nodes]
    assert_stopped_in_order(folders[0], said[0])
    for node in start_nodes(config, folders):
        wait_for_the_end(node)
    assert_same_end(whole, folders[0], STEPS)
    assert_same_end(whole, folders[1], STEPS)  # as it was


def start_nodes(config: Path, folders: list[Path]) -> list[subprocess.Popen]:
    """Start torchrun once for each folder; they meet at a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"--nnodes={len(folders)} --nproc-per-node=1 --local-addr=127.0.0.1 --rdzv-id=run"
    place += f" --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{port}"
    launcher = [sys.executable, "-m", "torch.distributed.run", *place.split()]
    return [start_training("train_vcmr.py", config, run, launcher=launcher) for run in folders]
