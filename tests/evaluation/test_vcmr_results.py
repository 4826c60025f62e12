"""Results objects: merged, suppressed, written, scored, shown."""

import json

import numpy as np
import pytest

from evaluation import retrieval_metrics as scores
from evaluation.results import (
    QueryPredictions,
    ResultsFiles,
    assemble_results,
    format_metrics,
    save_results,
    suppress_overlaps,
    write_results,
)
from evaluation.retrieval_metrics import retrieval_metrics

VIDEO2IDX = {"a": 19614, "b": 19620}
MOMENTS = np.array([[19614, 0.0, 4.5, 0.9], [19614, 0.0, 6.0, 0.8], [19620, 3.0, 9.0, 0.5]])
VIDEOS = np.array([[19614, 0, 0, 2.5]])


def answered(qid, desc_id, **lists):
    return QueryPredictions(qid, desc_id, lists)


def some_results():
    parts = [
        [answered("7", 7, VCMR=MOMENTS, VR=VIDEOS), answered("9", 9, VCMR=MOMENTS[2:], VR=VIDEOS)]
    ]
    return assemble_results(VIDEO2IDX, parts, ["7", "9"], ["VR", "VCMR"])


def as_lists(results):
    return json.loads(json.dumps(results, default=np.ndarray.tolist))


def test_merged_ranks_stand_in_the_order_of_the_split():
    queries = [answered(qid, int(qid), VR=VIDEOS * place) for place, qid in enumerate("135")]
    single = assemble_results(VIDEO2IDX, [queries], ["1", "3", "5"], ["VR"])
    merged = assemble_results(
        VIDEO2IDX, [[queries[2], queries[0]], [], [queries[1], queries[2]]], ["1", "3", "5"], ["VR"]
    )
    assert as_lists(merged) == as_lists(single)
    assert [entry["desc_id"] for entry in merged["VR"]] == [1, 3, 5]


def test_a_query_that_nobody_answered_is_named():
    with pytest.raises(ValueError, match="1 queries were not answered, the first is 2"):
        assemble_results(VIDEO2IDX, [[answered("1", 1, VR=VIDEOS)]], ["1", "2"], ["VR"])


def test_a_task_without_lists_is_left_out():
    parts = [[answered("1", 1, VR=VIDEOS)]]
    results = assemble_results(VIDEO2IDX, parts, ["1"], ["VCMR", "SVMR", "VR"])
    assert list(results) == ["video2idx", "VR"]


def test_the_file_is_the_documented_one(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, some_results())
    text = path.read_text()
    assert json.loads(text) == {
        "video2idx": VIDEO2IDX,
        "VCMR": [
            {"desc_id": 7, "desc": "", "predictions": MOMENTS.tolist()},
            {"desc_id": 9, "desc": "", "predictions": MOMENTS[2:].tolist()},
        ],
        "VR": [
            {"desc_id": 7, "desc": "", "predictions": VIDEOS.tolist()},
            {"desc_id": 9, "desc": "", "predictions": VIDEOS.tolist()},
        ],
    }
    assert "[19614, 0.0, 4.5, 0.9]" in text  # an index is an integer


@pytest.mark.golden
def test_a_recorded_file_survives_reading_and_writing(expected, tmp_path):
    for recorded in sorted(expected.glob("exp_*/results_*/results_1_all.json")):
        results = json.loads(recorded.read_text())
        if "video2idx" in results:
            write_results(tmp_path / "again.json", results)
            assert json.loads((tmp_path / "again.json").read_text()) == results


@pytest.mark.golden
def test_recorded_lists_after_nms(expected):
    plain = json.loads((expected / "exp_tvr_raw/results_val/results_1_all.json").read_text())
    recorded = json.loads((expected / "exp_tvr/results_val/results_1_all.json").read_text())
    nms_thd = json.loads((expected / "exp_tvr/log/hps.json").read_text())["nms_thd"]
    assert as_lists(suppress_overlaps(plain, nms_thd)) == recorded


@pytest.mark.golden
def test_recorded_metrics(expected, world):
    recorded = json.loads((expected / "metrics.json").read_text())
    truth = [json.loads(line) for line in (world / "ann/tvr_val.jsonl").read_text().splitlines()]
    for run, name in (("exp_tvr_raw", "tvr_vcmr"), ("exp_tvr", "tvr_vcmr_nms")):
        results = json.loads((expected / run / "results_val/results_1_all.json").read_text())
        assert retrieval_metrics(results, truth)["VCMR"] == recorded[name]


def test_suppression_leaves_videos_and_its_input_alone():
    results = some_results()
    before = as_lists(results)
    suppressed = suppress_overlaps(results, 0.5)
    assert suppressed["VCMR"][0]["predictions"].tolist() == MOMENTS[[0, 2]].tolist()
    assert suppressed["VR"] is results["VR"]
    assert as_lists(results) == before


def test_submission_and_nms_variant_are_saved_with_their_metrics(tmp_path, capsys):
    truth = [
        {"desc_id": 7, "vid_name": "a", "ts": [0, 6], "type": "t"},
        {"desc_id": 9, "vid_name": "b", "ts": [3, 9], "type": "v"},
    ]
    metrics = save_results(some_results(), ResultsFiles(tmp_path, "5000", 0.5), truth, by_type=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics_5000.json",
        "metrics_5000_nms_0.5.json",
        "results_5000_all.json",
        "results_5000_all_nms_0.5.json",
    ]
    assert json.loads((tmp_path / "metrics_5000.json").read_text()) == metrics[""]
    assert metrics[""]["VCMR"]["0.7-r5"] == 100.0
    assert metrics["_nms_0.5"]["VCMR"]["0.7-r5"] == 100.0
    assert metrics["_nms_0.5"]["VCMR_by_type"]["t-0.7-r5"] == 100.0  # 4.5 / 6 is the best one's
    shown = capsys.readouterr().out
    assert format_metrics(metrics[""]) in shown
    assert str(tmp_path / "results_5000_all_nms_0.5.json") in shown


def test_without_ground_truth_or_nms_only_the_submission_is_saved(tmp_path):
    assert save_results(some_results(), ResultsFiles(tmp_path, "best")) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["results_best_all.json"]


def test_the_table_has_a_line_per_task_type_and_threshold():
    metrics = {
        "VCMR": {f"{iou}-r{k}": k / 8 for iou in (0.5, 0.7) for k in (1, 5, 10, 100)},
        "VR": {"r1": 1.0, "r5": 5.0, "r10": 10.0, "r100": 100.0},
        "VR_by_type": {"vt-r1": 1.0, "vt-r5": 5.0, "vt-r10": 10.0, "vt-r100": 100.0}
        | {"desc_type_ratio": "vt 100.0"},
    }
    lines = [line.split() for line in format_metrics(metrics).splitlines()]
    assert lines[2] == ["VCMR", "all", "0.5", "0.12", "0.62", "1.25", "12.50"]
    assert lines[3][:3] == ["VCMR", "all", "0.7"]
    assert lines[4] == ["VR", "all", "1.00", "5.00", "10.00", "100.00"]
    assert lines[5][:2] == ["VR", "vt"]
    assert lines[6] == ["desc_type_ratio:", "vt", "100.0"]
    assert len(lines) == 7


def test_a_metric_of_any_name_is_saved_and_shown(tmp_path, capsys, monkeypatch):
    """A metric that ``_recalls`` adds: the mean reciprocal rank."""
    recalls = scores._recalls

    def with_mrr(first_hits):
        mrr = {
            f"{criterion}mrr": 100 * float(np.mean(1 / (places + 1)))
            for criterion, places in first_hits.items()
        }
        return recalls(first_hits) | mrr

    monkeypatch.setattr(scores, "_recalls", with_mrr)
    truth = [{"desc_id": 7, "vid_name": "b"}, {"desc_id": 9, "vid_name": "b"}]
    found = {"video2idx": {"a": 0, "b": 1}}
    rows = [[0, 0, 0, 0.9], [1, 0, 0, 0.8]]  # first hits: the second place, the first
    found["VR"] = [
        {"desc_id": 7, "desc": "", "predictions": rows},
        {"desc_id": 9, "desc": "", "predictions": rows[::-1]},
    ]
    metrics = save_results(found, ResultsFiles(tmp_path, "5"), truth)
    assert metrics[""]["VR"] == {"r1": 50.0, "r5": 100.0, "r10": 100.0, "r100": 100.0, "mrr": 75.0}
    assert json.loads((tmp_path / "metrics_5.json").read_text()) == metrics[""]
    assert capsys.readouterr().out.splitlines()[-1] == "VR mrr: 75.00"
