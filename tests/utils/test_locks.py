"""One owner per run folder; temporary files of dead processes go, those of living ones stay."""

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train_vcmr
from data.prepare.work import map_in_chunks
from engine.restore import RunFolder
from tests.support import REPOSITORY
from utils.errors import UserError
from utils.files import atomic_write, remove_leftovers, write_json
from utils.locks import FileLock, HeldError

CLAIM = "from engine.restore import RunFolder; run = RunFolder(sys.argv[1]); run.claim(); wait()"
WRITE = (
    "from utils.files import atomic_write\n"
    "with atomic_write(sys.argv[1]) as temporary:\n"
    "    temporary.write_text('half')\n"
    "    wait()\n"
)


@contextmanager
def process(code: str, path: Path) -> Iterator[subprocess.Popen]:
    """A process that has run ``code`` and waits; killed at last."""
    code = f"import sys, time\ndef wait(): print(flush=True); time.sleep(600)\n{code}"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as started:
        try:
            started.stdout.readline()
            yield started
        finally:
            started.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_training_says_who_runs(tvr_options, tmp_path):
    folder, config = Path(tvr_options["output_dir"]), tmp_path / "options.json"
    write_json(config, tvr_options | {"num_train_steps": 1, "n_workers": 0})
    with process(CLAIM, folder) as first:
        before = names(folder)
        with pytest.raises(UserError) as refused:
            train_vcmr.main(["--config", str(config)])
        who = f"process {first.pid} on {socket.gethostname()}"
        assert f"another training runs in {folder} ({who})" in str(refused.value)
        assert names(folder) == before
    train_vcmr.main(["--config", str(config)])  # the first one is dead now
    assert (folder / "ckpt" / "model_step_1.pt").exists() and not (folder / ".lock").exists()


def test_a_process_trains_twice_in_a_folder_but_others_do_not_meanwhile(tmp_path):
    RunFolder(tmp_path).claim()
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.claim()
    second.claim()
    second.release()
    assert names(tmp_path) == []
    with process(CLAIM, tmp_path), pytest.raises(UserError, match="another training"):
        first.claim()


def test_a_lock_is_not_inherited(tmp_path):
    """A worker that outlives a killed parent does not keep others out."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    with pytest.raises(HeldError, match=f"process {os.getpid()} on"):
        FileLock(tmp_path / "lock").acquire()
    started, ended = multiprocessing.Event(), multiprocessing.Event()
    child = multiprocessing.get_context("fork").Process(target=_report, args=(started, ended))
    child.start()
    started.wait(60)
    lock.release()
    FileLock(tmp_path / "lock").acquire()
    ended.set()
    child.join()
    assert child.exitcode == 0


def _report(started, ended) -> None:
    started.set()
    ended.wait(60)


@pytest.mark.parametrize("name", ["file", "two\nlines"])
def test_temporary_files_of_the_living_are_kept(tmp_path, name):
    with process(WRITE, tmp_path / name) as writer:
        (temporary,) = names(tmp_path)
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [temporary]
        writer.kill()
        writer.wait()
        assert names(tmp_path) == [temporary]
        remove_leftovers(tmp_path)
        assert names(tmp_path) == []


def test_a_writer_removes_what_the_dead_left(tmp_path):
    with process(WRITE, tmp_path / "file"):
        pass
    (tmp_path / ".other.12.tmp").write_text("another program's")
    write_json(tmp_path / "unlike", 1)
    assert names(tmp_path) == [".other.12.tmp", "unlike"]


@pytest.mark.parametrize("folder", ["", "ckpt", "log", "results"])
def test_leftovers_of_a_run(tmp_path, folder):
    with process(WRITE, tmp_path / folder / "file"):
        pass
    assert len(names(tmp_path / folder)) == 1
    RunFolder(tmp_path).remove_leftovers()
    assert names(tmp_path / folder) == []


def test_two_writers_of_one_file(tmp_path):
    with atomic_write(tmp_path / "file") as first, atomic_write(tmp_path / "file") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_pool_is_closed_when_its_work_ends(broken):
    """Its thread continues and closes the pipe that the ending interpreter writes to (EBADF)."""

    def work(chunk: list[int]) -> list[int]:
        if broken:
            raise UserError("broken")
        return chunk

    threads = set(threading.enumerate())
    try:
        assert list(map_in_chunks(work, range(8), workers=2, total=8, chunk=2)) == list(range(8))
    except UserError:
        assert broken
    assert set(threading.enumerate()) <= threads
