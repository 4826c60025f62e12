"""The command line of evaluation against recorded result files."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import eval_vcmr
import eval_vr

pytestmark = [pytest.mark.golden, pytest.mark.device]

RELATIVE = 3e-4  # of scores: exponentials of 20 × a float32 cosine


def recorded_run(expected: Path, world: Path, name: str, folder: Path) -> Path:
    """A run folder as a user has it: options, model sizes, weights of step 1."""
    run = folder / name
    shutil.copytree(expected / name / "log", run / "log")
    (run / "ckpt").mkdir()
    shutil.copy(expected / "pretrained.pt", run / "ckpt" / "model_step_1.pt")
    return run


def evaluate(
    run: Path, world: Path, split: str, *more: str, script: ModuleType = eval_vcmr, db: str = "tvr"
) -> dict:
    """Call the script as a user does; returns its metrics."""
    return script.main(
        [
            *("--query_txt_db", str(world / "txt_db" / f"{db}_{split}.db"), "--split", split),
            *("--vfeat_db", str(world / "video_db" / "tv")),
            *("--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db")),
            *("--output_dir", str(run), "--checkpoint", "1", "--n_workers", "0", *more),
        ]
    )


def assert_same_ranking(actual: dict, recorded: dict, absolute: float = 0.0) -> None:
    """The same predictions with the same scores; only ties may change places."""
    assert actual["video2idx"] == recorded["video2idx"]
    assert actual.keys() == recorded.keys()
    for task in ("VCMR", "SVMR", "VR"):
        if task not in recorded:
            continue
        theirs = {entry["desc_id"]: entry for entry in recorded[task]}
        assert [entry["desc_id"] for entry in actual[task]] == list(theirs)
        for entry in actual[task]:
            where = f"{task} {entry['desc_id']}"
            wanted = real_predictions(theirs[entry["desc_id"]]["predictions"])
            assert_same_list(entry["predictions"], wanted, where, absolute)


def real_predictions(predictions: list) -> list:
    """Without the zero-score pairs that fill up recorded short lists."""
    return [row for row in predictions if row[3] != 0]


def assert_same_list(ours: list, wanted: list, where: str, absolute: float) -> None:
    assert len(ours) >= len(wanted) > 0, where
    scores = {tuple(row[:3]): row[3] for row in ours}
    last = ours[-1][3]  # which of those that tie with it still stand in a full list is chance
    for row in wanted:
        score = scores.get(tuple(row[:3]), last)
        assert score == pytest.approx(row[3], rel=RELATIVE, abs=absolute), f"{where} {row}"
    for (*_, ours_score), (*_, score) in zip(ours, wanted, strict=False):
        assert ours_score == pytest.approx(score, rel=RELATIVE, abs=absolute), where


def test_val_without_suppression(expected, world, tmp_path):
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    metrics = evaluate(run, world, "val")
    actual = json.loads((run / "results_val" / "results_1_all.json").read_text())
    recorded = json.loads(
        (expected / "exp_tvr_raw" / "results_val" / "results_1_all.json").read_text()
    )
    assert_same_ranking(actual, recorded)
    for name, value in json.loads((expected / "metrics.json").read_text())["tvr_vcmr"].items():
        assert metrics[f"VCMR/{name}"] == pytest.approx(value, abs=0.01), name


def test_val_with_suppression(expected, world, tmp_path):
    run = recorded_run(expected, world, "exp_tvr", tmp_path)
    threshold = json.loads((run / "log" / "hps.json").read_text())["nms_thd"]
    metrics = evaluate(run, world, "val")
    actual = json.loads((run / "results_val" / f"results_1_all_nms_{threshold}.json").read_text())
    recorded = json.loads((expected / "exp_tvr" / "results_val" / "results_1_all.json").read_text())
    assert_same_ranking(actual, recorded)
    for name, value in json.loads((expected / "metrics.json").read_text())["tvr_vcmr_nms"].items():
        assert metrics[f"VCMR_nms_{threshold}/{name}"] == pytest.approx(value, abs=0.01), name


def test_a_split_without_ground_truth(expected, world, tmp_path):
    run = recorded_run(expected, world, "exp_tvr", tmp_path)
    assert evaluate(run, world, "test_public") == {}
    actual = json.loads((run / "results_test_public" / "results_1_all.json").read_text())
    recorded = json.loads(
        (expected / "exp_tvr" / "results_test_public" / "results_1_all.json").read_text()
    )
    assert "SVMR" not in actual
    assert_same_ranking(actual, recorded)
    assert not list(run.glob("results_test_public/metrics*"))


def test_batch_sizes_change_nothing(expected, world, tmp_path):
    results = []
    for number, sizes in enumerate((("3", "2"), ("100", "100"))):
        run = recorded_run(expected, world, "exp_tvr_raw", tmp_path / str(number))
        queries, videos = sizes
        evaluate(run, world, "val", "--batch_size", queries, "--vcmr_eval_video_batch_size", videos)
        results.append(json.loads((run / "results_val" / "results_1_all.json").read_text()))
    assert_same_ranking(*results)


@pytest.mark.parametrize("task", ["msrvtt_video_sub", "msrvtt_video_only"])
def test_video_retrieval(expected, world, tmp_path, task):
    run = recorded_run(expected, world, f"exp_{task}", tmp_path)
    metrics = evaluate(run, world, "val", "--task", task, script=eval_vr, db="msrvtt")
    actual = json.loads((run / "results_val" / "results_1_all.json").read_text())
    recorded = json.loads(
        (expected / f"exp_{task}" / "results_val" / "results_1_all.json").read_text()
    )
    # Plain cosines, some of them near zero: rounding is absolute.
    assert_same_ranking(actual, recorded, absolute=1e-6)
    for name, value in json.loads((expected / "metrics.json").read_text())[task].items():
        assert metrics[f"VR/{name}"] == pytest.approx(value, abs=0.01), name
