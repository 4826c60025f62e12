"""Temporal NMS, against recorded lists and numbers worked out by hand."""

import json

import numpy as np
import pytest

from evaluation.nms import temporal_iou, temporal_nms


@pytest.mark.golden
def test_recorded_lists(golden):
    submission = json.loads((golden / "metrics" / "retrieval_submission.json").read_text())
    recorded = json.loads((golden / "metrics" / "retrieval_after_nms.json").read_text())
    for task, lists in recorded.items():
        for entry, kept in zip(submission[task], lists, strict=True):
            assert temporal_nms(np.array(entry["predictions"], dtype=float), 0.5).tolist() == kept


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 4), (0, 4), 1),
        ((0, 4), (2, 6), 1 / 3),
        ((0, 10), (2, 4), 0.2),
        ((0, 2), (2, 4), 0),
        ((0, 2), (5, 6), 0),
        ((3, 3), (3, 3), 0),
    ],
)
def test_iou(first, second, iou):
    spans = np.array([first, second], dtype=np.float32)
    found = temporal_iou(*spans[0], *spans[1])
    assert found.dtype == np.float32
    assert found == np.float32(iou)


def test_a_dropped_prediction_drops_nothing():
    # 0-4 overlaps 1-5 by 3/5, 1-5 overlaps 2-6 by 3/5, 0-4 overlaps 2-6 by 2/6.
    rows = np.array([[7, 0, 4, 0.9], [7, 1, 5, 0.8], [7, 2, 6, 0.7]])
    assert temporal_nms(rows, 0.5).tolist() == rows[[0, 2]].tolist()


def test_an_iou_of_exactly_the_threshold_stays():
    rows = np.array([[7, 0, 4, 0.9], [7, 0, 2, 0.8]])
    assert len(temporal_nms(rows, 0.5)) == 2
    assert len(temporal_nms(rows, 0.49)) == 1


def test_videos_do_not_suppress_each_other_and_the_best_come_first():
    rows = np.array([[1, 0, 4, 0.2], [2, 0, 4, 0.9], [1, 0, 4, 0.5]])
    assert temporal_nms(rows, 0.5).tolist() == rows[[1, 2]].tolist()


def test_of_equal_scores_the_first_stays():
    rows = np.array([[1, 0, 4, 0.5], [1, 0, 3, 0.5]])
    assert temporal_nms(rows, 0.5).tolist() == rows[[0]].tolist()


def test_equal_scores_keep_their_order():
    rows = np.array([[1.0, 10 * place, 10 * place + 5, place % 2] for place in range(40)])
    assert temporal_nms(rows, 0.5).tolist() == [*rows[1::2].tolist(), *rows[::2].tolist()]


def test_an_empty_list_stays_empty():
    assert temporal_nms(np.empty((0, 4)), 0.5).shape == (0, 4)
