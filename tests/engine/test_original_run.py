"""Run folders, checkpoints and restore points that the original wrote, used as they are."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import eval_vcmr
import eval_videoQA
import train_vcmr
from model.checkpoint import read_state_dict
from tests.support import RECORDED, THEIRS
from tests.support.options_file import run_with
from tests.support.rankings import assert_same_ranking
from utils.errors import UserError

CHECKPOINT = THEIRS / "run_tvr" / "ckpt" / "model_step_4.pt"
# They were written from the world kept with the tests, whatever $HERO_GOLDEN says.
GOLDEN = RECORDED / "golden"
WORLD = GOLDEN / "world"


def copied_run(name: str, folder: Path, **options) -> Path:
    """A run folder whose options name this machine's databases."""
    run = folder / name
    shutil.copytree(THEIRS / name, run)
    hps = run / "log" / "hps.json"
    values = json.loads(hps.read_text().replace("/storage/world", str(WORLD))) | options
    hps.write_text(json.dumps(values))
    return run


def evaluate(run: Path, checkpoint: str) -> None:
    """As a user does who has the run's folder and nothing else."""
    words = ["--output_dir", str(run), "--split", "val", "--checkpoint", checkpoint]
    eval_vcmr.main([*words, "--vcmr_eval_video_batch_size", "1"])


def read_results(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def zipped(run: Path) -> str:
    return "4"


def unzipped(run: Path) -> str:
    shutil.copy(THEIRS / "old_format" / "model_step_4.pt", run / "ckpt" / "model_step_4.pt")
    return "4"


def final(run: Path) -> str:
    (run / "ckpt" / "model_step_4.pt").rename(run / "ckpt" / "model_step_4_final.pt")
    return "4_final"


def plain_step_of_final(run: Path) -> str:
    final(run)
    return "4"


@pytest.mark.parametrize("prepare", [zipped, unzipped, final, plain_step_of_final])
def test_its_evaluation_is_ours(tmp_path, prepare):
    run = copied_run("run_tvr", tmp_path)
    checkpoint = prepare(run)
    evaluate(run, checkpoint)
    for ending, recorded in (("_nms_0.5", ""), ("", "_no_nms")):
        actual = read_results(run / "results_val", f"results_{checkpoint}_all{ending}.json")
        folder = THEIRS / "run_tvr" / f"results_val_one_video{recorded}"
        assert_same_ranking(actual, read_results(folder, "results_4_all.json"))


def test_a_run_without_suppression(tmp_path):
    run = copied_run("run_tvr", tmp_path, nms_thd=-1)
    evaluate(run, "4")
    recorded = THEIRS / "run_tvr" / "results_val_one_video_no_nms"
    actual = read_results(run / "results_val", "results_4_all.json")
    assert_same_ranking(actual, read_results(recorded, "results_4_all.json"))
    assert not list((run / "results_val").glob("*nms*"))


def test_its_restore_point_can_be_evaluated(tmp_path):
    """It lies in the run's folder; its weights are rounded to half precision."""
    run = copied_run("run_tvr", tmp_path, full_eval_tasks=["VR"])
    for checkpoint in ("restore.pt", "4"):
        evaluate(run, checkpoint)
    rounded, exact = (
        read_results(run / "results_val", f"results_{name}_all.json")["VR"]
        for name in ("restore", "4")
    )
    for one, other in zip(rounded, exact, strict=True):
        scores = [{row[0]: row[3] for row in entry["predictions"]} for entry in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=0.02)


def test_foreign_files_break_no_listing(tmp_path):
    run = copied_run("run_tvr", tmp_path)
    for name in ("best.pt", "train_state_4.pt", "model_step_4_final.pt"):
        shutil.copy(CHECKPOINT, run / "ckpt" / name)
    with pytest.raises(UserError, match=r"steps 4, 4_final; .*: best\.pt, train_state_4\.pt\)"):
        evaluate(run, "7")


def train(folder: Path, **changes) -> None:
    hps = json.loads((THEIRS / "run_tvr" / "log" / "hps.json").read_text())
    names = ("sub_txt_db", "vfeat_db", "train_query_txt_db", "val_query_txt_db")
    databases = {name: hps[name].replace("/storage/world", str(WORLD)) for name in names}
    options = {
        "model_config": str(THEIRS / "run_tvr" / "log" / "model_config.json"),
        "checkpoint": str(CHECKPOINT),
        "output_dir": str(folder / "run"),
        "max_clip_len": 31,
        "num_train_steps": 1,
        "learning_rate": 1e-12,
        "weight_decay": 0.0,
        "train_batch_size": 4,
        "n_workers": 0,
    }
    run_with(train_vcmr.main, databases | options | changes, folder)


@pytest.mark.parametrize("given", ["run_tvr/ckpt/model_step_4.pt", "run_tvr/restore.pt"])
def test_training_starts_from_all_its_weights(tmp_path, given):
    """At a learning rate of almost nothing the first checkpoint is the start."""
    train(tmp_path, checkpoint=str(THEIRS / given))
    log = (tmp_path / "run" / "log" / "log.txt").read_text()
    assert "loaded: 129" in log and "MISSING" not in log and "new head" not in log
    assert ("vocab_padded" in log) == given.endswith("4.pt")
    start = read_state_dict(THEIRS / given)
    ours = torch.load(tmp_path / "run" / "ckpt" / "model_step_1.pt", weights_only=True)
    for name, value in ours.items():
        torch.testing.assert_close(value, start[name].float(), atol=1e-7, rtol=0, msg=name)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["restore.pt", "restore_backup.pt"])
def test_a_run_in_its_folder_is_refused_and_leaves_it_untouched(tmp_path, name):
    run = copied_run("run_tvr", tmp_path).rename(tmp_path / "run")
    (run / "restore.pt").rename(run / name)
    (run / ".restore.pt.99.tmp").write_bytes(b"half")
    before = digests(run)
    for changes in ({}, {"allow_changed_options": True}):
        with pytest.raises(UserError) as refused:
            train(tmp_path, **changes)
        said = str(refused.value)
        assert f"{name} is a restore point of the original" in said and "--output_dir" in said
        assert f"--checkpoint {run / name} takes its weights" in said
    assert digests(run) == before


def test_its_logits_are_ours(tmp_path):
    """The results are of the recorded weights, not of the run's own."""
    run = copied_run("run_tvqa", tmp_path)
    weights = read_state_dict(GOLDEN / "expected" / "pretrained.pt")
    weights |= read_state_dict(GOLDEN / "expected" / "head_videoqa.pt")
    (run / "ckpt").mkdir()
    torch.save({**weights, "vocab_padded": True}, run / "ckpt" / "model_step_1.pt")
    queries = str(THEIRS / "tvqa_test_public.db")
    words = ["--output_dir", str(run), "--checkpoint", "1", "--save_logits"]
    eval_videoQA.main([*words, "--split", "test_public", "--query_txt_db", queries])
    eval_videoQA.main([*words, "--split", "val"])
    recorded = THEIRS / "run_tvqa" / "results_test_public_w_logit"
    wanted = pickle.loads((recorded / "logits_1_all.pkl").read_bytes())
    for split in ("test_public", "val"):
        (file,) = run.rglob(f"results_{split}*/logits_1_all.json")
        logits = json.loads(file.read_text())
        assert logits.keys() == wanted.keys()
        for question, scores in logits.items():
            assert scores == pytest.approx(wanted[question], abs=2e-4), question
    answers = read_results(run / "results_val", "results_1_all.json")
    assert answers == read_results(recorded, "results_1_all.json")
