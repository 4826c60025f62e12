"""VALUE's scores, against the record and worked out by hand."""

import json

import pytest

from evaluation.caption_metrics import score_lines
from evaluation.value_metrics import average_recall, meta_average, segment_metrics, segment_of
from utils.files import read_jsonl

CAPTIONS = {
    "tvc": "tvc_val",
    "yc2c": "yc2c_val",
    "vatex_en_c": "vatex_en_c_test_public",
}


def lines(path):
    return [line for _, line in read_jsonl(path)]


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


@pytest.mark.golden_value
@pytest.mark.java
@pytest.mark.parametrize("task", CAPTIONS)
def test_caption_scores(golden_value, scores, task):
    metrics = golden_value / "metrics"
    captions = lines(metrics / "submission" / task / f"{CAPTIONS[task]}_predictions.jsonl")
    references = lines(metrics / "truth" / f"{task}.jsonl")
    score = segment_metrics if task == "yc2c" else score_lines
    wanted = dict(scores["detail"][task])
    if task == "yc2c":
        wanted |= {
            f"paragraph/{name}": value for name, value in scores["detail"]["yc2c_paragraph"].items()
        }
    assert score(captions, references) == pytest.approx(wanted, abs=1e-2)


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
