"""The command line of evaluation against recorded result files."""

import json

import pytest

import eval_vr
from tests.support.rankings import assert_same_ranking, evaluate
from tests.support.recorded import recorded_run, saved

pytestmark = [pytest.mark.golden, pytest.mark.device]


def assert_recorded_metrics(metrics: dict, expected, task: str, prefix: str) -> None:
    for name, value in json.loads((expected / "metrics.json").read_text())[task].items():
        assert metrics[f"{prefix}/{name}"] == pytest.approx(value, abs=0.01), name


def test_val_without_suppression(expected, world, tmp_path):
    run = recorded_run(expected, "exp_tvr_raw", tmp_path)
    metrics = evaluate(run, world, "val")
    assert_same_ranking(saved(run), saved(expected / "exp_tvr_raw"))
    assert_recorded_metrics(metrics, expected, "tvr_vcmr", "VCMR")


def test_val_with_suppression(expected, world, tmp_path):
    run = recorded_run(expected, "exp_tvr", tmp_path)
    threshold = json.loads((run / "log" / "hps.json").read_text())["nms_thd"]
    metrics = evaluate(run, world, "val")
    actual = json.loads((run / "results_val" / f"results_1_all_nms_{threshold}.json").read_text())
    assert_same_ranking(actual, saved(expected / "exp_tvr"))
    assert_recorded_metrics(metrics, expected, "tvr_vcmr_nms", f"VCMR_nms_{threshold}")


def test_a_split_without_ground_truth(expected, world, tmp_path):
    run, folder = recorded_run(expected, "exp_tvr", tmp_path), "results_test_public"
    assert evaluate(run, world, "test_public") == {}
    actual = saved(run, folder=folder)
    assert "SVMR" not in actual
    assert_same_ranking(actual, saved(expected / "exp_tvr", folder=folder))
    assert not list(run.glob(f"{folder}/metrics*"))


def test_batch_sizes_change_nothing(expected, world, tmp_path):
    results = []
    for number, sizes in enumerate((("3", "2"), ("100", "100"))):
        run = recorded_run(expected, "exp_tvr_raw", tmp_path / str(number))
        queries, videos = sizes
        evaluate(run, world, "val", "--batch_size", queries, "--vcmr_eval_video_batch_size", videos)
        results.append(saved(run))
    assert_same_ranking(*results)


@pytest.mark.parametrize("task", ["msrvtt_video_sub", "msrvtt_video_only"])
def test_video_retrieval(expected, world, tmp_path, task):
    run = recorded_run(expected, f"exp_{task}", tmp_path)
    metrics = evaluate(run, world, "val", "--task", task, script=eval_vr, db="msrvtt")
    # Plain cosines, some of them near zero: rounding is absolute.
    assert_same_ranking(saved(run), saved(expected / f"exp_{task}"), absolute=1e-6)
    assert_recorded_metrics(metrics, expected, task, "VR")
