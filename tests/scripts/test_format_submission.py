"""What evaluation servers take."""

import json

import pytest

from scripts.format_submission import main
from utils.errors import UserError


@pytest.fixture
def submit(tmp_path):
    """Writes results and annotation lines, calls the script, returns the submission's text."""

    def run(task, results, annotation, *more):
        files = {name: tmp_path / name for name in ("results", "annotation", "output")}
        lines = results if task == "tvc" else [results]
        files["results"].write_text("\n".join(map(json.dumps, lines)))
        files["annotation"].write_text("\n".join(map(json.dumps, annotation)))
        flags = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        main(["--task", task, *flags, *more])
        return files["output"].read_text()

    return run


QUERIES = [{"desc_id": 11, "desc": "She runs."}, {"desc_id": 7, "desc": "He sits."}]
QUESTIONS = [{"qid": 3, "q": "?", "a0": "", "a1": "", "a2": ""}, {"qid": 1, "a0": "", "a1": ""}]
CLIPS = [
    {"clip_id": 5, "vid_name": "a", "ts": [1, 2]},
    {"clip_id": 6, "vid_name": "b", "ts": [0, 3]},
]


def ranking(*ids, length=2):
    rows = [[40, 1.5, 3.0 + number, 0.5] for number in range(length)]
    return [{"desc_id": id_, "desc": "", "predictions": rows} for id_ in ids]


def moments(**rankings):
    return {"video2idx": {"a": 40, "b": 41}, **rankings}


def test_moments(submit):
    results = moments(VCMR=ranking(7, 11, length=120), VR=ranking(11, 7))
    submission = json.loads(submit("tvr", results, QUERIES))
    assert list(submission) == ["video2idx", "VCMR", "VR"]
    assert submission["video2idx"] == {"a": 40, "b": 41}
    for name, length in (("VCMR", 100), ("VR", 2)):
        entries = submission[name]
        assert [(e["desc_id"], e["desc"]) for e in entries] == [(11, "She runs."), (7, "He sits.")]
        assert [len(e["predictions"]) for e in entries] == [length, length]
    assert submission["VCMR"][0]["predictions"][99] == [40, 1.5, 102.0, 0.5]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (moments(VCMR=ranking(11)), r"VCMR lacks 1 of 2 ids of the annotation.*\(7\)"),
        (moments(VCMR=ranking(11, 7), SVMR=ranking(7)), r"SVMR lacks 1 of 2 .*\(11\)"),
        (moments(VCMR=ranking(11, 7, 8, 9)), r"has 2 ids that the annotation lacks.*\(8, 9\)"),
        (moments(VCMR=ranking(11, 7, 7)), "answers 1 ids twice"),
        (moments(VR=ranking(11, 7)), "lacks the .* VCMR"),
        ({"VCMR": ranking(11, 7)}, "lacks the .* video2idx"),
        ([], "expected an object, got a list"),
        (moments(VCMR=[[11, 7]]), r"VCMR\[0\]: expected an object"),
        (
            moments(VCMR=[{"desc_id": 11, "predictions": [3]}, *ranking(7)]),
            r"VCMR\[0\]\.predictions\[0\]",
        ),
        (
            moments(VCMR=[{"desc_id": 11, "predictions": [[40, 1, "2", 3]]}, *ranking(7)]),
            r"VCMR\[0\]\.predictions\[0\]\[2\]: expected a number, got a text",
        ),
        (
            {"video2idx": {"a": 1}, "VCMR": ranking(11, 7)},
            r"query 11: \[40.0, 1.5, 3.0, 0.5\] names no index of video2idx",
        ),
    ],
)
def test_moments_that_cannot_be_handed_in(submit, results, message):
    with pytest.raises(UserError, match=message):
        submit("tvr", results, QUERIES)


def test_answers_are_in_the_order_of_the_annotation(submit):
    assert submit("tvqa", {"1": 0, "3": 2}, QUESTIONS) == '{"3": 2, "1": 0}'
    assert submit("how2qa", {"1": 1, "3": 0}, QUESTIONS) == '{"3": 0, "1": 1}'


@pytest.mark.parametrize("answer", [2, -1, "0", 1.0, True, None])
def test_an_answer_that_the_question_does_not_have(submit, answer):
    with pytest.raises(UserError, match=r"the answer to 1 is .*, not 0 … 1|'1': expected"):
        submit("tvqa", {"1": answer, "3": 2}, QUESTIONS)


def test_questions_nobody_answered_are_counted_and_the_first_named(submit):
    many = [{"qid": number, "a0": "", "a1": ""} for number in range(10, 18)]
    with pytest.raises(UserError, match=r"lacks 7 of 8 .*\(11, 12, 13, 14, 15, …\)"):
        submit("tvqa", {"10": 1}, many)


def test_statements(submit):
    lines = [{"desc_id": "x-0-0"}, {"desc_id": "x-0-1"}]
    assert json.loads(submit("violin", {"x-0-1": 1, "x-0-0": 0}, lines)) == {"x-0-0": 0, "x-0-1": 1}
    with pytest.raises(UserError, match="the answer to x-0-1 is 2, not 0 … 1"):
        submit("violin", {"x-0-1": 2, "x-0-0": 0}, lines)


def test_captions(submit):
    captions = [
        {"clip_id": 6, "descs": [{"desc": "B."}], "vid_name": "?", "more": 1},
        {"clip_id": 5, "descs": [{"desc": "A.", "score": 0.5}]},
    ]
    lines = [json.loads(line) for line in submit("tvc", captions, CLIPS).splitlines()]
    assert lines == [
        {"vid_name": "a", "clip_id": 5, "ts": [1, 2], "descs": [{"desc": "A."}]},
        {"vid_name": "b", "clip_id": 6, "ts": [0, 3], "descs": [{"desc": "B."}]},
    ]
    with pytest.raises(UserError, match=r"lacks 1 of 2 .*\(5\)"):
        submit("tvc", captions[:1], CLIPS)


@pytest.mark.parametrize("descs", [None, [], [{"desc": 1}], [{"desc": "A."}, {"desc": "B."}]])
def test_a_clip_without_exactly_one_caption(submit, descs):
    captions = [{"clip_id": 5, "descs": descs}, {"clip_id": 6, "descs": [{"desc": "B."}]}]
    with pytest.raises(UserError, match="clip 5 must have one caption"):
        submit("tvc", captions, CLIPS)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ([{"desc_id": 1}], r"annotation:1: it has no qid"),
        (
            [{"qid": 1, "a0": ""}, {"qid": "1", "a0": ""}],
            "annotation:2: the id '1' was used in line 1",
        ),
        ([], "holds no annotations"),
    ],
)
def test_an_unusable_annotation(submit, annotation, message):
    with pytest.raises(UserError, match=message):
        submit("tvqa", {"1": 0}, annotation)


def test_nothing_is_written_where_something_is_missing(submit, tmp_path):
    with pytest.raises(UserError):
        submit("tvqa", {"1": 0}, QUESTIONS)
    assert not (tmp_path / "output").exists()


@pytest.mark.golden
def test_recorded_results_are_complete(expected, world, tmp_path):
    results = {
        "tvr": ("exp_tvr/results_test_public/results_1_all.json", "tvr_test_public"),
        "tvqa": ("exp_tvqa/results_val/results_1_all.json", "tvqa_val"),
        "violin": ("exp_violin/results_val/results_1_all.json", "violin_val"),
        "tvc": ("exp_tvc/val_output.jsonl", "tvc_val"),
    }
    for task, (file, annotation) in results.items():
        paths = {
            "--results": expected / file,
            "--annotation": world / "ann" / f"{annotation}.jsonl",
            "--output": tmp_path / task,
        }
        main(["--task", task, *(str(word) for pair in paths.items() for word in pair)])
    assert json.loads((tmp_path / "tvqa").read_text()) == json.loads(
        (expected / results["tvqa"][0]).read_text()
    )


def test_a_part_of_the_split_is_refused(submit, tmp_path):
    """Unless --partial is given; what was searched shows in the annotation, or beside it."""
    named = [query | {"vid_name": vid} for query, vid in zip(QUERIES, ("b.mp4", "c"))]
    results = moments(VCMR=ranking(11, 7))
    with pytest.raises(UserError, match=r"searched 2 videos, the annotation has 1 more.* \(c\)"):
        submit("tvr", results, named)
    entries = json.loads(submit("tvr", results, named, "--partial"))["VCMR"]
    assert [entry["desc_id"] for entry in entries] == [11, 7]
    marked = results | {"partial": {"videos": {"used": 2, "of": 4}}}
    with pytest.raises(UserError, match=r"is of a part of the split .*--only_available"):
        submit("tvr", marked, QUERIES)
    assert "partial" not in json.loads(submit("tvr", marked, QUERIES, "--partial"))
    splits = {"train": {"a": [9, 1], "x": [9, 2]}, "test": {"a": [9, 40], "b": [9, 41]}}
    (tmp_path / "tvr_video2dur_idx.json").write_text(json.dumps(splits))
    submit("tvr", results, QUERIES)
    splits["test"]["z"] = [9, 42]
    (tmp_path / "tvr_video2dur_idx.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match=r"split test of .*video2dur_idx.json has 1 more.* \(z\)"):
        submit("tvr", results, QUERIES)
    submit("tvr", results, QUERIES, "--partial")


def test_a_part_of_the_answers(submit):
    for task, results, annotation in (
        ("tvqa", {"1": 1}, QUESTIONS),
        ("tvc", [{"clip_id": 6, "vid_name": "b", "ts": [0, 3], "descs": [{"desc": "x"}]}], CLIPS),
        ("tvr", moments(VCMR=ranking(7)), QUERIES),
    ):
        with pytest.raises(UserError, match=r"lacks 1 of 2 ids.*--partial"):
            submit(task, results, annotation)
        assert submit(task, results, annotation, "--partial").count("\n") <= 1
    assert json.loads(submit("tvqa", {"1": 1}, QUESTIONS, "--partial")) == {"1": 1}
