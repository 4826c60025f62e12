"""Restore points: whole at any instant, exact, and honest about changes."""

import json
import random

import numpy as np
import pytest
import torch

import train_vcmr
from tests.survival import assert_survives_kills
from utils.errors import UserError
from utils.restore import (
    RunFolder,
    load_restore_point,
    random_states,
    save_restore_point,
    set_random_states,
)


@pytest.mark.slow
def test_a_killed_run_ends_like_the_unbroken_one(tvr_options, tmp_path):
    assert_survives_kills("train_vcmr.py", tvr_options, tmp_path)


def test_changed_options_stop_a_restart_unless_allowed(tvr_options, tmp_path):
    def train(**changes):
        config = tmp_path / "options.json"
        config.write_text(json.dumps(tvr_options | {"n_workers": 0} | changes))
        return train_vcmr.main(["--config", str(config)])

    train(num_train_steps=1, valid_steps=1, restore_steps=1)
    changes = {"num_train_steps": 2, "valid_steps": 1, "restore_steps": 1}
    with pytest.raises(UserError, match="num_train_steps: 1 → 2"):
        train(**changes)
    train(**changes, allow_changed_options=True)
    state = load_restore_point(RunFolder(tmp_path / "run"))
    assert state["step"] == 2


def test_the_backup_serves_where_the_last_point_is_damaged(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, {"step": 1})
    save_restore_point(run, {"step": 2})
    run.restore.write_bytes(run.restore.read_bytes()[:100])
    assert load_restore_point(run) == {"step": 1}
    run.backup.write_bytes(b"")
    with pytest.raises(UserError, match="no restore point"):
        load_restore_point(run)


def test_a_kill_between_the_renames_leaves_the_backup(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, {"step": 1})
    run.restore.replace(run.backup)  # where a kill may strike
    assert load_restore_point(run) == {"step": 1}


def test_generators_go_on_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(2).tolist()

    save_restore_point(RunFolder(tmp_path), random_states())
    first = draw()
    draw()
    set_random_states(load_restore_point(RunFolder(tmp_path)))
    assert draw() == first


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / ".restore.pt.123.tmp").write_bytes(b"half")
    run.remove_leftovers()
    assert not list(tmp_path.iterdir())


def test_an_unknown_checkpoint_names_those_there_are(tmp_path):
    run = RunFolder(tmp_path)
    run.checkpoint(5).parent.mkdir()
    run.checkpoint(5).touch()
    assert run.find_checkpoint("5") == run.checkpoint(5)
    with pytest.raises(UserError, match="the run has steps 5"):
        run.find_checkpoint("4800")
