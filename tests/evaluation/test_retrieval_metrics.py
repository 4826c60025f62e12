"""Recall, against recorded scores and numbers worked out by hand."""

import json

import numpy as np
import pytest

from evaluation.retrieval_metrics import retrieval_metrics
from utils.errors import UserError
from utils.names import VIDEO_QUERY_NAMES

VIDEO2IDX = {"a": 10, "b": 11}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def truth(desc_id, ts=(0, 10), vid_name="a", **more):
    return {"desc_id": desc_id, "vid_name": vid_name, "ts": ts, **more}


def results(task, **lists):
    """Lists by desc_id, which is a string here."""
    entries = [{"desc_id": id_, "desc": "", "predictions": rows} for id_, rows in lists.items()]
    return {"video2idx": VIDEO2IDX, task: entries}


def moments(*spans, video=10):
    return [[video, *span, 1.0] for span in spans]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("kind", "file"), [("single", "retrieval_gt.jsonl"), ("multi", "retrieval_gt_multi.jsonl")]
)
def test_recorded_scores(golden, kind, file):
    folder = golden / "metrics"
    submission = json.loads((folder / "retrieval_submission.json").read_text())
    recorded = json.loads((folder / "retrieval_scores.json").read_text())[kind]
    by_type = any(name.endswith("_by_type") for name in recorded)
    found = retrieval_metrics(submission, lines(folder / file), by_type)
    assert found == recorded
    assert list(found) == list(recorded)
    assert [list(values) for values in found.values()] == [list(v) for v in recorded.values()]


def test_rank_of_the_first_right_moment():
    found = retrieval_metrics(
        results(
            "VCMR",
            q1=moments((0, 6)),  # IoU 0.6
            q2=moments((20, 30), (0, 8)),  # 0.8 at the second place
            q3=moments((0, 10), video=11),  # the wrong video
        ),
        [truth("q1"), truth("q2"), truth("q3")],
    )
    assert found == {
        "VCMR": {
            "0.5-r1": 33.33,
            "0.5-r5": 66.67,
            "0.5-r10": 66.67,
            "0.5-r100": 66.67,
            "0.7-r1": 0.0,
            "0.7-r5": 33.33,
            "0.7-r10": 33.33,
            "0.7-r100": 33.33,
        }
    }


@pytest.mark.parametrize(
    ("span", "predicted"),
    [((0, 10), (0, 7)), ((1.18, 2.18), (1.18, 1.88))],  # the second is below 0.7 in float64
)
def test_an_iou_of_exactly_the_threshold_is_a_hit(span, predicted):
    found = retrieval_metrics(results("SVMR", q=moments(predicted)), [truth("q", ts=span)])
    assert found["SVMR"]["0.7-r1"] == 100.0


def test_a_hundred_predictions_count_and_no_more():
    wrong = moments(*[(20, 30)] * 99)
    right = moments((0, 10))
    inside = retrieval_metrics(results("VCMR", q=wrong + right), [truth("q")])
    outside = retrieval_metrics(results("VCMR", q=wrong + wrong[:1] + right), [truth("q")])
    assert inside["VCMR"]["0.5-r100"] == 100.0
    assert outside["VCMR"]["0.5-r100"] == 0.0


@pytest.mark.parametrize(("hit", "recall"), [(1, 0.0), (2, 100.0), (4, 100.0)])
def test_two_of_four_annotators_must_agree(hit, recall):
    spans = [[0, 10]] * hit + [[50, 60]] * (4 - hit)
    found = retrieval_metrics(results("VCMR", q=moments((0, 10))), [truth("q", ts=spans)])
    assert found["VCMR"]["0.7-r1"] == recall


def test_annotators_may_differ_in_number_from_query_to_query():
    found = retrieval_metrics(
        results("VCMR", q1=moments((0, 10)), q2=moments((0, 10))),
        [
            truth("q1", ts=[[0, 10]] * 2 + [[50, 60]] * 3),
            truth("q2", ts=[[0, 10]] + [[50, 60]] * 3),
        ],
    )
    assert found["VCMR"]["0.5-r1"] == 50.0


def test_video_retrieval_by_type():
    found = retrieval_metrics(
        results(
            "VR",
            q1=[[10, 0, 0, 2.0], [11, 0, 0, 1.0]],
            q2=[[11, 0, 0, 2.0], [10, 0, 0, 1.0]],
            q3=[[11, 0, 0, 2.0]],
        ),
        [truth("q1", type="v"), truth("q2", type="v"), truth("q3", type="vt")],
        by_type=True,
    )
    assert found["VR"] == {"r1": 33.33, "r5": 66.67, "r10": 66.67, "r100": 66.67}
    by_type = {"v-r1": 50.0, "v-r5": 100.0, "v-r10": 100.0, "v-r100": 100.0}
    by_type |= {"vt-r1": 0.0, "vt-r5": 0.0, "vt-r10": 0.0, "vt-r100": 0.0}
    assert found["VR_by_type"] == by_type | {"desc_type_ratio": "v 66.67 vt 33.33"}


def test_ground_truth_without_types_has_no_entries_by_type():
    assert list(retrieval_metrics(results("VR", q=[]), [truth("q")], by_type=True)) == ["VR"]


def test_every_query_of_the_ground_truth_counts():
    found = retrieval_metrics(
        results("VR", q1=[[10, 0, 0, 1.0]], extra=[[10, 0, 0, 1.0]]),
        [truth("q1"), truth("unanswered"), truth("elsewhere", vid_name="not in the pool")],
    )
    assert found["VR"]["r100"] == 33.33


def test_ids_may_be_numbers_or_strings_and_keys_those_of_msrvtt():
    entries = [{"desc_id": "7", "desc": "", "predictions": np.array([[11, 0, 0, 0.3]])}]
    line = {"sen_id": 7, "clip_name": "b", "vid_name": "a", "desc_id": 9, "caption": "…"}
    results = {"video2idx": VIDEO2IDX, "VR": entries}
    found = retrieval_metrics(results, [line], names=VIDEO_QUERY_NAMES)
    assert found["VR"]["r1"] == 100.0


@pytest.mark.parametrize(
    ("task", "ground_truth", "message"),
    [
        ("VR", [], "no queries"),
        ("VR", [truth("other")], "same split"),
        ("VR", [{"desc_id": "q"}], "vid_name"),
        ("VCMR", [{"desc_id": "q", "vid_name": "a"}], "no.* times"),
    ],
)
def test_mistakes_are_named(task, ground_truth, message):
    with pytest.raises(UserError, match=message):
        retrieval_metrics(results(task, q=moments((0, 10))), ground_truth)
