"""The recall of random rankings, against numbers worked out by hand and against drawing."""

import numpy as np
import pytest

from evaluation.chance import (
    MomentBounds,
    allowed_moments,
    chance_recall,
    random_recall,
    right_moments,
)
from evaluation.retrieval_metrics import GroundTruth

BOUNDS = MomentBounds(interval=1.5, min_pred_l=1, max_pred_l=3)


def line(video: str, spans: list) -> dict:
    return {"desc_id": 1, "vid_name": video, "ts": spans}


def truth(spans: list) -> GroundTruth:
    return GroundTruth.from_records([line("a", spans)], {"a": 0})


def test_allowed_moments_are_all_pairs_within_the_bounds():
    # Frames 0…3; pairs with 1 ≤ b − a < 3: (0,1) (0,2) (1,2) (1,3) (2,3), as [1.5 a, 1.5 (b+1)].
    expected = [[0, 3], [0, 4.5], [1.5, 4.5], [1.5, 6], [3, 6]]
    assert allowed_moments(4, BOUNDS).tolist() == expected


def test_a_video_shorter_than_the_shortest_moment_has_none():
    assert allowed_moments(1, BOUNDS).shape == (0, 2)


def test_right_moments_by_hand():
    moments = allowed_moments(4, BOUNDS)
    # IoU with [0, 3]: 1, 2/3, 1.5/4.5, 1.5/6, 0.
    assert right_moments(moments, truth([0.0, 3.0]), 0.5) == 2
    assert right_moments(moments, truth([0.0, 3.0]), 0.7) == 1


def test_an_iou_equal_to_the_threshold_is_a_hit():
    # [0, 4.5] against [0, 3]: 2/3 in float32 on both sides.
    two_thirds = float(np.float32(2 / 3))
    assert right_moments(np.array([[0.0, 4.5]]), truth([0.0, 3.0]), two_thirds) == 1


def test_with_four_annotators_two_must_be_hit():
    moments = np.array([[0.0, 5.0], [10.0, 15.0]])
    three = [[0.0, 5.0], [20.0, 25.0], [20.0, 25.0]]
    assert right_moments(moments, truth(three), 0.5) == 1
    assert right_moments(moments, truth([*three, [20.0, 25.0]]), 0.5) == 0
    assert right_moments(moments, truth([*three, [0.0, 5.0]]), 0.5) == 1


@pytest.mark.parametrize(
    ("right", "candidates", "k", "expected"),
    [
        (1, 40, 1, 1 / 40),
        (1, 40, 5, 5 / 40),
        (2, 5, 2, 1 - 3 / 5 * 2 / 4),
        (0, 5, 5, 0.0),
        (1, 3, 100, 1.0),
        (0, 0, 1, 0.0),
    ],
)
def test_random_recall(right, candidates, k, expected):
    assert random_recall(right, candidates, k) == pytest.approx(expected)


def test_recall_of_two_queries_by_hand():
    # Video a: 4 frames, 5 moments; video b: 2 frames, 1 moment [0, 3]; a corpus of 6 moments.
    queries = [line("a", [0.0, 3.0]), line("b", [0.0, 3.0])]
    recall = chance_recall(queries, {"a": 4, "b": 2}, BOUNDS, ranks=(1, 5))
    assert recall["VR"] == {"r1": pytest.approx(50.0), "r5": pytest.approx(100.0)}
    assert recall["SVMR"]["0.5-r1"] == pytest.approx(100 * (2 / 5 + 1) / 2)
    assert recall["SVMR"]["0.7-r1"] == pytest.approx(100 * (1 / 5 + 1) / 2)
    assert recall["VCMR"]["0.5-r1"] == pytest.approx(100 * (2 / 6 + 1 / 6) / 2)
    # Of 6 moments the first 5 miss a single right one in 1 case of 6, and never both of two.
    assert recall["VCMR"]["0.5-r5"] == pytest.approx(100 * (1 + 5 / 6) / 2)


def test_recall_is_what_drawing_gives():
    rng = np.random.default_rng(0)
    bounds = MomentBounds(1.5, 2, 16)
    moments = allowed_moments(20, bounds)
    span = [7.4, 16.1]
    right = [right_moments(moment[None], truth(span), 0.5) for moment in moments]
    drawn = [any(right[i] for i in rng.choice(len(moments), 5, replace=False)) for _ in range(4000)]
    recall = chance_recall([line("a", span)], {"a": 20}, bounds)["SVMR"]["0.5-r5"]
    assert recall == pytest.approx(100 * np.mean(drawn), abs=3.0)
