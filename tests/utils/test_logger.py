"""Messages, metrics that survive a restart, and the facts kept with a run."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import REPOSITORY
from utils.errors import UserError
from utils.files import read_json
from utils.logger import (
    LOGGER,
    MetricsWriter,
    _EarlyHandler,
    git_info,
    save_run_info,
    setup_logging,
)


@pytest.fixture(autouse=True)
def _restore_logger():
    yield
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    LOGGER.setLevel(logging.NOTSET)


def lines(folder: Path) -> list[tuple]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["name"], row["value"]) for row in rows]


def write_steps(folder: Path, start: int, steps: range) -> None:
    writer = MetricsWriter(folder, start)
    for step in steps:
        writer.write(step, {"loss": step / 4})
    writer.close()


def test_what_is_said_before_is_kept_for_the_log_file(tmp_path, monkeypatch, capsys):
    early = _EarlyHandler()
    monkeypatch.setattr("utils.logger._EARLY", early)
    monkeypatch.setattr(LOGGER, "handlers", [early])
    LOGGER.warning("a key without effect")
    assert capsys.readouterr().err == "a key without effect\n"
    for name in ("first", "second"):
        setup_logging(True, tmp_path / name)
        LOGGER.info("begins")
    assert "WARNING a key without effect\n" in (tmp_path / "first").read_text()
    assert "effect" not in (tmp_path / "second").read_text()


def test_main_rank_logs_to_console_and_file(tmp_path, capsys):
    setup_logging(True, tmp_path / "log" / "log.txt")
    LOGGER.info("restored %d", 7)
    assert capsys.readouterr().err.endswith(" INFO restored 7\n")
    assert (tmp_path / "log" / "log.txt").read_text().endswith(" INFO restored 7\n")


def test_a_second_setup_does_not_double_messages_and_appends(tmp_path, capsys):
    path = tmp_path / "log.txt"
    setup_logging(True, path)
    LOGGER.info("one")
    setup_logging(True, path)
    LOGGER.info("two")
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["one", "two"]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_other_ranks_are_quiet(tmp_path, capsys):
    setup_logging(False, tmp_path / "log.txt")
    LOGGER.error("unheard")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "log.txt").exists()


def test_metrics_are_lines_of_step_name_value(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(2, {"loss": 0.5, "share": "v 60 t 40", "bad": float("nan")})
    assert lines(tmp_path) == [(2, "loss", 0.5), (2, "share", "v 60 t 40"), (2, "bad", None)]
    writer.close()


def test_a_restart_leaves_the_lines_of_an_unbroken_run(tmp_path):
    write_steps(tmp_path / "unbroken", 0, range(1, 9))
    write_steps(tmp_path / "broken", 0, range(1, 7))
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as torn:
        torn.write('{"step": 7, "na')
    write_steps(tmp_path / "broken", 4, range(5, 9))
    expected = (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "broken" / "metrics.jsonl").read_bytes() == expected
    assert len(lines(tmp_path / "broken")) == 8


def test_tensorboard_drops_what_the_restart_repeats(tmp_path):
    write_steps(tmp_path, 0, range(1, 7))
    write_steps(tmp_path, 4, range(5, 7))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (step, step / 4) for step in range(1, 7)
    ]


def test_a_run_started_again_drops_all_lines(tmp_path):
    write_steps(tmp_path, 0, range(1, 4))
    write_steps(tmp_path, 0, range(1, 2))
    assert lines(tmp_path) == [(1, "loss", 0.25)]


def test_a_damaged_metrics_file_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "name": "a", "value": 1}\nnonsense\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is not a metric"):
        MetricsWriter(tmp_path, 1)


def test_run_info_files(tmp_path):
    options = {"seed": 77, "hard_pool_size": [20]}
    save_run_info(tmp_path / "run", options, {"f_config": {"hidden_size": 64}})
    log = tmp_path / "run" / "log"
    assert read_json(log / "hps.json") == options
    assert read_json(log / "model_config.json") == {"f_config": {"hidden_size": 64}}
    assert read_json(log / "git_info.json").keys() == {"commit", "branch", "dirty"}


def test_git_info_tells_commit_branch_and_changes(tmp_path):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "topic")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    clean = {"commit": git("rev-parse", "HEAD"), "branch": "topic", "dirty": False}
    assert git_info(tmp_path) == clean
    (tmp_path / "file").write_text("two")
    assert git_info(tmp_path) == {**clean, "dirty": True}


def test_git_info_outside_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_info(tmp_path) == {"commit": None, "branch": None, "dirty": None}


def test_git_info_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_info(tmp_path) == {"commit": None, "branch": None, "dirty": None}


@pytest.mark.parametrize("name", ["metrics.jsonl", "events", "log.txt"])
def test_a_full_disk_is_one_line(tmp_path, name):
    """The limit of a file's size has all three fail as a full disk has."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from utils.errors import run_main\n"
        "from utils.logger import LOGGER, MetricsWriter, setup_logging\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
        "def main():\n"
        "    setup_logging(True, folder / 'log.txt')\n"
        "    writer = MetricsWriter(folder)\n"
        "    if name == 'events':\n"
        "        writer._lines = Path('/dev/null').open('w')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    for step in range(100):\n"
        "        LOGGER.info('x' * 50) if name == 'log.txt' else writer.write(step, {'a': 1.0})\n"
        "run_main(main)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), name]
    root = REPOSITORY
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    said = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert ended.returncode == 2 and len(said) == 1, said
    named = "metrics.jsonl" if name == "events" else name
    assert said[0].startswith(f"error: {tmp_path / named} would be larger")
