"""Restore points: whole at any instant, exact, and honest about changes."""

import json
import os
import random
import subprocess

import numpy as np
import pytest
import torch

import train_vcmr
from engine.restore import (
    OWN_TYPES,
    RunFolder,
    check_restore_points,
    load_restore_point,
    random_states,
    save_restore_point,
    save_tensors,
    set_random_states,
)
from tests.support.survival import REPOSITORY, assert_survives_kills
from tests.utils.test_distributed import launch_command
from utils.errors import UserError
from utils.tensor_files import copied_once

ALLOW = ["--allow_changed_options"]


def point(step=1, **entries):
    """A restore point with every entry that one has."""
    return {key: kind() for key, kind in OWN_TYPES.items()} | {"step": step} | entries


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


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({"lr_mul": 10.0, "weight_decay": 0.5}, {(10.0, 0.5), (10.0, 0.0), (1.0, 0.5), (1.0, 0.0)}),
        ({"weight_decay": 0.0, "betas": [0.5, 0.6]}, {(1.0, 0.0)}),
        ({"optim": "adam"}, {(1.0, 0.01), (1.0, 0.0)}),
    ],
)
def test_changed_options_reach_the_optimizer(tvr_options, tmp_path, caplog, changes, groups):
    config = tmp_path / "options.json"
    steps = {"num_train_steps": 1, "valid_steps": 1, "n_workers": 0}

    def train(**values):
        config.write_text(json.dumps(tvr_options | steps | {"restore_steps": 1} | values))
        train_vcmr.main(["--config", str(config)])
        return load_restore_point(RunFolder(tmp_path / "run"))["optimizer"]

    before = train()
    after = train(num_train_steps=2, allow_changed_options=True, **changes)
    assert {(g["lr_mul"], g["weight_decay"]) for g in after["param_groups"]} == groups
    betas = tuple(changes.get("betas", [0.9, 0.98]))
    assert all(tuple(group["betas"]) == betas for group in after["param_groups"])
    assert sorted(after["names"]) == sorted(before["names"])
    again = "optim" in changes
    assert ("moments start again: the restore point's are of AdamW" in caplog.text) == again
    assert {int(state["step"]) for state in after["state"].values()} == {1 if again else 2}


def test_a_model_of_another_size_cannot_go_on(tvr_options, tmp_path):
    config = tmp_path / "options.json"
    steps = {"num_train_steps": 1, "valid_steps": 1, "restore_steps": 1, "n_workers": 0}
    config.write_text(json.dumps(tvr_options | steps))
    train_vcmr.main(["--config", str(config)])
    longer = ["--num_train_steps", "2", "--max_clip_len", "120", "--allow_changed_options"]
    with pytest.raises(UserError, match=r"model of other sizes .*position_embeddings.*\(100, 64\)"):
        train_vcmr.main(["--config", str(config), *longer])


def test_the_backup_serves_where_the_last_point_is_damaged(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, point(1))
    save_restore_point(run, point(2))
    run.restore.write_bytes(run.restore.read_bytes()[:100])
    assert load_restore_point(run) == point(1)
    run.backup.write_bytes(b"")
    for read in (load_restore_point, check_restore_points):
        with pytest.raises(UserError, match=r"no restore point of .*backup\.pt cannot be read"):
            read(run)


def test_damage_in_the_middle_is_noticed_and_does_not_become_the_backup(tmp_path, caplog):
    run = RunFolder(tmp_path)
    for step in (1, 2):
        save_restore_point(run, point(step, model={"w": torch.full((9000,), float(step))}))
    with run.restore.open("r+b") as file:
        file.seek(run.restore.stat().st_size // 2)
        file.write(bytes(4096))
    assert load_restore_point(run)["step"] == 1
    assert "restore.pt is damaged (its entry " in caplog.text
    assert f"resuming from {run.backup}, after step 1" in caplog.text
    save_restore_point(run, point(3))
    assert load_restore_point(run) == point(3)
    run.restore.unlink()  # where a kill may strike
    assert load_restore_point(run)["step"] == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"step": "2"}, "its step is str"),
        ({"step": -4}, "step is -4"),
        ({"loader": [1]}, "is list"),
    ],
)
def test_a_restore_point_of_other_values_is_refused(tmp_path, entries, message):
    save_restore_point(RunFolder(tmp_path), point(**entries))
    for read in (load_restore_point, check_restore_points):
        with pytest.raises(UserError, match=rf"is no restore point of this program \(.*{message}"):
            read(RunFolder(tmp_path))


def test_a_folder_is_no_restore_point(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, point())
    run.restore.replace(run.backup)
    run.restore.mkdir()
    with pytest.raises(UserError, match=r"restore\.pt is a folder, no restore point: move it away"):
        check_restore_points(run)


def test_restore_points_whose_content_does_not_fit(tvr_options, tmp_path):
    config = tmp_path / "options.json"
    steps = {"num_train_steps": 1, "valid_steps": 1, "restore_steps": 1, "n_workers": 0}
    config.write_text(json.dumps(tvr_options | steps))
    train_vcmr.main(["--config", str(config)])
    run = RunFolder(tmp_path / "run")
    whole = torch.load(run.restore, weights_only=True)
    name = whole["optimizer"]["names"][0]
    infinite = whole["model"] | {name: torch.full_like(whole["model"][name], float("nan"))}
    moments = {0: {"step": 1, "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}
    for entries, message in (
        ({"optimizer": {"state": {}, "param_groups": []}}, r"restore\.pt does not .*no moments"),
        ({"random": [{"torch": "text"}]}, r"restore\.pt does not fit this run"),
        ({"loader": {}}, r"restore\.pt does not fit this run \(it holds no place"),
        ({"running": [1, 2, 3]}, r"does not fit this run \(too many values"),
        ({"model": {**whole["model"], name: 3}}, "does not fit this run"),
        ({"model": infinite}, rf"restore\.pt: 1 weights .* not finite, such as {name}"),
        (
            {"optimizer": whole["optimizer"] | {"state": moments}},
            rf"exp_avg of {name} has the shape \(3,\)",
        ),
    ):
        torch.save(whole | entries, run.restore)
        with pytest.raises(UserError, match=message):
            train_vcmr.main(["--config", str(config), "--num_train_steps", "2", *ALLOW])


def test_a_kill_between_the_renames_leaves_the_backup(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, point(1))
    run.restore.replace(run.backup)  # where a kill may strike
    assert load_restore_point(run) == point(1)


def test_generators_go_on_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(2).tolist()

    save_restore_point(RunFolder(tmp_path), point(random=[random_states()]))
    first = draw()
    draw()
    set_random_states(load_restore_point(RunFolder(tmp_path))["random"][0])
    assert draw() == first


class FakeGpus:
    """Devices whose generators hold a number each; this rank's is ``own``."""

    def __init__(self, monkeypatch, count, own=0):
        self.states = [torch.tensor([number]) for number in range(count)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: own)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.states[own].clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s: self.states.insert(own, s))


def test_a_rank_saves_its_own_devices_generator(monkeypatch, caplog):
    FakeGpus(monkeypatch, count=4, own=2)
    states = random_states()
    assert states["cuda"].item() == 2
    fewer = FakeGpus(monkeypatch, count=1)  # the rank's device is another one now
    set_random_states(states)
    assert fewer.states[0].item() == 2 and not caplog.text


def test_generators_of_all_devices_as_older_restore_points_have_them(monkeypatch, caplog):
    here = FakeGpus(monkeypatch, count=2, own=1)
    set_random_states(random_states() | {"cuda": [torch.tensor([7]), torch.tensor([8])]})
    assert here.states[1].item() == 8 and not caplog.text
    set_random_states(random_states() | {"cuda": [torch.tensor([7])]})
    assert "dropout draws again" in caplog.text


@pytest.mark.parametrize(("saved", "now"), [(1, 0), (0, 1)])
def test_another_kind_of_device_is_a_warning(monkeypatch, caplog, saved, now):
    FakeGpus(monkeypatch, saved)
    states = random_states()
    FakeGpus(monkeypatch, now)
    set_random_states(states)
    assert caplog.text.count("dropout draws again") == 1


@pytest.mark.gpu
def test_a_gpus_generator_goes_on_where_it_was(tmp_path):
    save_restore_point(RunFolder(tmp_path), point(random=[random_states()]))
    first = torch.rand(4, device="cuda")
    set_random_states(load_restore_point(RunFolder(tmp_path))["random"][0])
    assert torch.equal(torch.rand(4, device="cuda"), first)


def test_a_checkpoint_holds_a_tied_weight_once(tmp_path):
    """Also where weights are copied on the way, as they are from a GPU."""
    table = torch.randn(1000, 8)
    weights = {"words": table, "head": table.view(1000, 8), "part": table[:10], "other": table + 1}
    kept = copied_once(weights, torch.clone)
    assert kept["words"] is kept["head"]
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert kept["words"].data_ptr() != table.data_ptr() != kept["part"].data_ptr()
    save_tensors(tmp_path / "weights.pt", kept)
    size = (tmp_path / "weights.pt").stat().st_size
    assert 2 * table.nbytes < size < 2.5 * table.nbytes


def test_leftovers_of_a_killed_writer_are_removed_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / ".restore.pt.123.tmp").write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"a user's")
    (tmp_path / ".folder.1.tmp").mkdir()
    run.remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", ".folder.1.tmp"}


@pytest.fixture
def crowded(tmp_path):
    """A run whose ``ckpt/`` holds all sorts of files."""
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    names = [
        "model_step_5.pt",
        "model_step_40.pt",
        "model_step_40_final.pt",
        "model_step_7_final.pt",
    ]
    names += ["best.pt", "train_state_4.pt", "model_step_x.pt", "9.pt", "notes.txt"]
    names += [".model_step_6.pt.1.tmp", ".model_step_8.pt"]
    for name in names:
        (run.checkpoints / name).touch()
    (run.checkpoints / "model_step_3.pt").mkdir()
    return run


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("5", "model_step_5.pt"),
        ("0005", "model_step_5.pt"),
        ("5_final", "model_step_5.pt"),
        ("40", "model_step_40.pt"),
        ("40_final", "model_step_40_final.pt"),
        ("7", "model_step_7_final.pt"),
        ("7_final", "model_step_7_final.pt"),
        ("best.pt", "best.pt"),
        ("ckpt/best.pt", "best.pt"),
    ],
)
def test_a_checkpoint_is_found(crowded, asked, name):
    assert crowded.find_checkpoint(asked) == crowded.checkpoints / name
    path = str(crowded.checkpoints / name)
    assert str(crowded.find_checkpoint(path)) == path


@pytest.mark.parametrize(
    "asked", ["4800", "3", "8_final", "nothing.pt", "²", "٤", "5" * 5000, "x" * 5000, "\0"]
)
def test_an_unknown_checkpoint_names_those_there_are(crowded, asked):
    with pytest.raises(UserError) as error:
        crowded.find_checkpoint(asked)
    assert "the run has steps 5, 7_final, 40, 40_final; also in ckpt" in str(error.value)
    assert len(str(error.value)) < 700
    assert "9.pt, best.pt, model_step_x.pt, train_state_4.pt)" in str(error.value)


def test_a_run_without_checkpoints(tmp_path):
    with pytest.raises(UserError, match=r"model_step_1\.pt does not exist \(the run has no step\)"):
        RunFolder(tmp_path).find_checkpoint("1")


ORIGINAL = {"global_step": 4, "model_state_dict": {}, "optim_state_dict": {}}


@pytest.mark.parametrize("amp", [{}, {"amp_state_dict": {"loss_scaler0": {"loss_scale": 1.0}}}])
@pytest.mark.parametrize("name", ["restore.pt", "restore_backup.pt"])
def test_a_restore_point_of_the_original_is_refused(tmp_path, name, amp):
    torch.save(ORIGINAL | amp, tmp_path / name)
    for read in (load_restore_point, check_restore_points):
        with pytest.raises(UserError, match=rf"{name} is a restore point of the original program"):
            read(RunFolder(tmp_path))


@pytest.mark.parametrize("content", [{"step": 1, "optimizer": {}}, {}, [1, 2], torch.ones(2)])
def test_any_other_programs_restore_point_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "restore.pt")
    with pytest.raises(UserError, match=r"no restore point of this program \(it lacks loader, "):
        check_restore_points(RunFolder(tmp_path))


@pytest.mark.launcher
@pytest.mark.slow
def test_all_ranks_refuse_it_and_one_says_so(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    torch.save(ORIGINAL, run / "restore.pt")
    databases = ("train_query_txt_db", "val_query_txt_db", "sub_txt_db", "vfeat_db")
    words = [word for name in databases for word in (f"--{name}", "any.db")]
    done = subprocess.run(
        [*launch_command("torch", 2), "train_vcmr.py", *words, "--output_dir", str(run)],
        cwd=REPOSITORY,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout.count("is a restore point of the original program") == 1, done.stdout
    assert [path.name for path in run.iterdir()] == ["restore.pt"]


def test_a_foreign_point_next_to_an_own_one_is_not_overwritten(tmp_path):
    run = RunFolder(tmp_path)
    save_restore_point(run, point())
    torch.save(ORIGINAL, run.backup)
    with pytest.raises(UserError, match=r"restore_backup\.pt is a restore point of the original"):
        check_restore_points(run)
