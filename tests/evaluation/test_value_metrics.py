"""VALUE's scores against the record and by hand (of captions: test_value_submission.py)."""

import json

import pytest

from evaluation.value_metrics import average_recall, meta_average, segment_of


@pytest.fixture(scope="module")
def scores(golden_value) -> dict:
    return json.loads((golden_value / "metrics" / "scores.json").read_text())


@pytest.mark.golden_value
@pytest.mark.parametrize("task", ["tvr", "how2r", "yc2r", "vatex_en_r"])
def test_average_recall(scores, task):
    detail = scores["detail"][task]
    recalls = detail["VCMR" if "VCMR" in detail else "VR"]
    assert average_recall(recalls) == pytest.approx(scores["scores"][task])


@pytest.mark.golden_value
def test_meta_average(scores):
    assert meta_average(scores["scores"]) == pytest.approx(scores["Meta-Ave"])


@pytest.mark.parametrize(
    ("video", "segment"),
    [
        ("rj_b9qzRcIr_10", ("rj_b9qzRcIr", 10)),
        ("d-R4X-lZTYU_0", ("d-R4X-lZTYU", 0)),
        ("name", ("name", 0)),
        ("name_x", ("name_x", 0)),
    ],
)
def test_segments(video, segment):
    assert segment_of(video) == segment
