"""VALUE's submission: what is collected, what is refused, and what it scores."""

import json
import zipfile
from pathlib import Path

import pytest

from config.groups import Kind
from config.value import TASKS
from scripts.format_submission import main
from scripts.submission.value import PARTS
from tests.conftest import GOLDEN_VALUE
from utils.errors import UserError
from utils.files import read_json

METRICS = GOLDEN_VALUE / "metrics"
# Each run that was recorded in VALUE's form, and what of it is handed in.
RUNS = {
    "exp_vlep": ("vlep_dev", "vlep_test"),
    "exp_violin": ("violin_test_private",),
    "exp_yc2r": ("yc2r_val", "yc2r_test"),
    "exp_vatex_en_r": ("vatex_en_r_val", "vatex_en_r_test_public"),
    "exp_tvr": ("tvr_val",),
    "exp_tvc": ("tvc_val",),
    "exp_yc2c": ("yc2c_val",),
    "exp_vatex_en_c": ("vatex_en_c_test_public",),
}


def submit(*words: object) -> None:
    main(["--benchmark", "value", *map(str, words)])


def members(path: Path) -> dict[str, list]:
    """What a zip holds: the JSON values of each member's lines."""
    with zipfile.ZipFile(path) as archive:
        return {
            name: [json.loads(line) for line in archive.read(name).splitlines()]
            for name in archive.namelist()
        }


@pytest.fixture(scope="module")
def recorded_scores(tmp_path_factory):
    """What the command says of the recorded submission, once zipped."""
    folder, truth = tmp_path_factory.mktemp("scores"), METRICS / "truth"
    words = ("--annotation", truth, "--output", folder / "all.zip", "--partial")
    submit("--results", METRICS / "submission", *words)
    words = ("--annotation", truth, "--score", "--json", folder / "scores.json")
    submit("--results", folder / "all.zip", *words)
    return members(folder / "all.zip"), read_json(folder / "scores.json")


@pytest.mark.golden_value
@pytest.mark.java
@pytest.mark.parametrize("name", TASKS)
def test_recorded_scores(name, recorded_scores):
    found, recorded = recorded_scores[1]["val"], read_json(METRICS / "scores.json")
    assert found["scores"][name] == pytest.approx(recorded["scores"][name], abs=1e-6)
    detail = recorded["detail"].get(name, {})
    if TASKS[name].kind is Kind.CAPTIONS:
        paragraphs = recorded["detail"].get(f"{name}_paragraph", {})
        detail = detail | {f"paragraph/{metric}": value for metric, value in paragraphs.items()}
        assert found["detail"][name] == pytest.approx(detail, abs=1e-6)
    elif detail:
        assert found["detail"][name] == detail  # R@K at two decimals


@pytest.mark.golden_value
@pytest.mark.java
def test_the_recorded_submission_as_a_whole(recorded_scores):
    zipped, scores = recorded_scores
    assert list(zipped) == [part.member for part in PARTS if part.split == part.task.submitted[0]]
    recorded = read_json(METRICS / "scores.json")
    assert scores["val"]["Meta-Ave"] == pytest.approx(recorded["Meta-Ave"], abs=1e-6)
    assert list(scores) == ["val"]


@pytest.mark.golden_value
@pytest.mark.parametrize("run", RUNS)
def test_recorded_runs_are_collected(run, tmp_path):
    """Against annotations and against databases; two-stream results stay out."""
    world, folder = GOLDEN_VALUE / "world", GOLDEN_VALUE / "expected" / run
    for annotation in ("ann", "txt_db"):
        if "c_" in RUNS[run][0] and annotation == "txt_db":
            continue  # captions are of JSON lines
        output = tmp_path / f"{annotation}.zip"
        words = ("--annotation", world / annotation, "--output", output, "--partial")
        submit("--results", folder, *words)
        found = members(output)
        assert [Path(name).stem for name in found] == [f"{part}_predictions" for part in RUNS[run]]
        for part, values in zip(RUNS[run], found.values()):
            own = folder / f"results_{part}" / "results_1000_all.json"
            file = own if own.is_file() else folder / f"{part}_output.jsonl"
            recorded = [json.loads(line) for line in file.read_text().splitlines()]
            assert as_set(values) == as_set(recorded)


def as_set(values: list) -> set[str]:
    """Values, whatever their order: queries, answers and clips come in that of the annotation."""
    entries = [
        entry | {"of": name}
        for value in values
        for name, found in value.items()
        if isinstance(found, list) and name in ("VCMR", "VR")
        for entry in found
    ]
    return {json.dumps(value, sort_keys=True) for value in entries or values}


# --- A small benchmark by hand ----------------------------------------------------------------

VIDEOS = {"val": {"a_0": [9, 40], "a_1": [9, 41]}, "test": {"b_0": [9, 50]}}
ANNOTATIONS = {
    "yc2r_val.jsonl": [{"desc_id": 1, "vid_name": "a_0"}, {"desc_id": 2, "vid_name": "a_1"}],
    "yc2r_test.jsonl": [{"desc_id": 3}],
    "vlep_dev.jsonl": [
        {"example_id": 4, "events": ["x", "y"], "answer": 0},
        {"example_id": 5, "events": ["x", "y"], "answer": 1},
    ],
    "vlep_test.jsonl": [{"example_id": 6, "events": ["x", "y"]}],
    "tvr_val.jsonl": [{"desc_id": 7, "vid_name": "c", "ts": [0, 10]}],
    "tvc_val.jsonl": [{"clip_id": 8, "vid_name": "c", "ts": [0, 2], "descs": [{"desc": "x"}]}],
}


def video_ranking(id_, *indices):
    return {"desc_id": id_, "predictions": list(indices)}


YC2R_VAL = {"VR": [video_ranking("2", 40, 41), video_ranking("1", 40, 41)]}
YC2R_TEST = {"VR": [video_ranking("3", 50)]}


@pytest.fixture
def benchmark(tmp_path):
    """Annotations, and a function that writes results and calls the command."""
    annotation = tmp_path / "ann"
    annotation.mkdir()
    for name, lines in ANNOTATIONS.items():
        (annotation / name).write_text("\n".join(map(json.dumps, lines)))
    (annotation / "yc2_vid2dur_idx.json").write_text(json.dumps(VIDEOS))
    table = {"val": {"c": [20, 60]}}
    (annotation / "tv_vid2dur_idx.json").write_text(json.dumps(table))

    def run(results: dict, *words: object) -> dict[str, list]:
        for name, value in results.items():
            path = tmp_path / "run" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = value if isinstance(value, list) else [value]
            path.write_text("\n".join(map(json.dumps, lines)))
        output = tmp_path / "out.zip"
        words = ("--results", tmp_path / "run", *words)
        submit(*words, "--annotation", annotation, "--output", output)
        return members(output)

    run.folder, run.annotation, run.output = tmp_path / "run", annotation, tmp_path / "out.zip"
    return run


def step(part: str, number: int = 9, ending: str = "") -> str:
    return f"results_{part}{ending}/results_{number}_all.json"


YC2R = {step("yc2r_val"): YC2R_VAL, step("yc2r_test"): YC2R_TEST}


def test_both_splits_of_a_task(benchmark, capsys):
    found = benchmark(YC2R, "--score")
    assert found == {
        "yc2r/yc2r_val_predictions.json": [{"VR": YC2R_VAL["VR"][::-1]}],
        "yc2r/yc2r_test_predictions.json": [YC2R_TEST],
    }
    # Query 1 has its video first, query 2 second: R@1 50, R@5 and R@10 100.
    said = capsys.readouterr().out
    assert "not scored: yc2r_test: 1 of 1 annotations have no vid_name" in said
    assert "Meta-Ave (val): 83.33, mean of yc2r alone" in said


def test_names_of_folders_and_files(benchmark, tmp_path):
    """Of two steps --checkpoint chooses; a channel may be part of the name; a file can be named."""
    names = {step("yc2r_video_sub_val"): YC2R_VAL, step("yc2r_video_sub_test"): YC2R_TEST}
    benchmark(names)
    other = {"VR": [video_ranking(1, 41), video_ranking(2, 41)]}
    more = {step("yc2r_val", 10): other, step("yc2r_val", 9, "_two_stream"): YC2R_VAL}
    with pytest.raises(UserError, match=r"there are 2 files of yc2r_val \(.*--checkpoint STEP"):
        benchmark(more)
    assert benchmark({}, "--checkpoint", 10)["yc2r/yc2r_val_predictions.json"] == [other]
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_text(json.dumps(YC2R_VAL))
    assert benchmark({}, f"yc2r_val={elsewhere}")["yc2r/yc2r_val_predictions.json"] == [
        {"VR": YC2R_VAL["VR"][::-1]}
    ]


def test_captions_keep_the_moments_of_tvc_alone(benchmark):
    captions = {
        "tvc_val_step7.jsonl": [{"clip_id": 8, "vid_name": "c", "descs": [{"desc": "A."}]}],
        "yc2c_test.jsonl": [{"clip_id": 1, "vid_name": "b_0", "descs": [{"desc": "B."}]}],
        "results_tvc_val_two_stream/tvc_val_step7.jsonl": [{"clip_id": 8, "descs": []}],
        "tvc_val_release.jsonl": [],  # no captions of a run
    }
    assert benchmark(captions, "--partial") == {
        "tvc/tvc_val_predictions.jsonl": [
            {"vid_name": "c", "clip_id": 8, "ts": [0, 2], "descs": [{"desc": "A."}]}
        ],
        "yc2c/yc2c_test_predictions.jsonl": [
            {"vid_name": "b_0", "clip_id": 1, "descs": [{"desc": "B."}]}
        ],
    }


def test_moments_and_an_overlap_of_exactly_the_threshold(benchmark, tmp_path):
    rows = [[60, 0, 7], *([60, 8, 9.5, 0.1] for _ in range(120))]
    results = {"VCMR": [{"desc_id": 7, "predictions": rows}], "VR": [video_ranking(7, 60)]}
    scores = tmp_path / "scores.json"
    found = benchmark({step("tvr_val"): results}, "--partial", "--score", "--json", scores)
    entry = found["tvr/tvr_val_predictions.json"][0]["VCMR"][0]["predictions"]
    assert (len(entry), entry[0], entry[1]) == (100, [60, 0.0, 7.0], [60, 8.0, 9.5, 0.1])
    detail = read_json(scores)["val"]["detail"]["tvr"]
    assert (detail["VCMR"]["0.7-r1"], detail["VR"]["r1"]) == (100.0, 100.0)


VLEP = {step("vlep_dev"): {"4": 0, "5": 0}, step("vlep_test"): {"6": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({step("yc2r_test"): None}, "lacks yc2r_test: give their results, or pass --partial"),
        ({step("yc2r_val"): {"VR": YC2R_VAL["VR"][:1]}}, r"VR lacks 1 of 2 ids.*--partial \(1\)"),
        (
            {step("yc2r_test"): {"VR": [video_ranking("3", 50), video_ranking("x", 50)]}},
            r"VR has 1 ids that the annotation lacks.*\(x\)",
        ),
        ({step("yc2r_test"): {"VR": YC2R_TEST["VR"] * 2}}, "VR answers 1 ids twice"),
        (
            {step("yc2r_test"): {"VR": [video_ranking("3", 40)]}},
            r"query 3: \[40\] names no index of vid2dur_idx.json",
        ),
        ({step("yc2r_test"): {"VCMR": []}}, "results_9_all.json has no VR"),
        ({step("yc2r_test"): [[]]}, "expected an object, got a list"),
        (
            {step("yc2r_test"): {"VR": [video_ranking("3", "50")]}},
            r"VR\[0\].predictions\[0\]: expected .*query '3'",
        ),
        (
            {step("yc2r_test"): YC2R_TEST | {"partial": {"videos": {"used": 1, "of": 2}}}},
            "is of a part of the split .*--only_available",
        ),
        ({step("vlep_test"): {}}, r"lacks 1 of 1 ids of the annotation.*\(6\)"),
        ({step("vlep_test"): {"6": 2}}, "the answer to 6 is 2, not 0 … 1"),
        (
            {step("tvr_val"): {"VCMR": [{"desc_id": 7, "predictions": []}]}},
            "lacks tvr_test",
        ),
        ({"tvc_val.jsonl": [{"clip_id": 9, "descs": []}]}, "lacks tvc_test"),
    ],
)
def test_what_cannot_be_handed_in(benchmark, change, message):
    results = {name: value for name, value in (YC2R | VLEP | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        benchmark(results)
    assert not benchmark.output.exists()


def test_annotations_are_needed_to_check_with(benchmark):
    (benchmark.annotation / "vlep_test.jsonl").unlink()
    with pytest.raises(UserError, match=r"every id of vlep_test: --annotation has neither vlep_te"):
        benchmark(VLEP)
    assert len(benchmark({}, "--partial")) == 2


@pytest.mark.parametrize(
    ("part", "most"), [("tvqa_val", 4), ("how2qa_val", 3), ("vlep_dev", 1), ("violin_test", 1)]
)
@pytest.mark.parametrize("bare", [True, False])
def test_an_answer_that_nobody_offers(benchmark, part, most, bare):
    """Whatever the annotations tell of the answers, and where there are none."""
    if bare:
        name = {"vlep_dev": "example_id", "violin_test": "example_id"}.get(part, "qid")
        (benchmark.annotation / f"{part}.jsonl").write_text(json.dumps({name: 4}))
    else:
        (benchmark.annotation / f"{part}.jsonl").unlink(missing_ok=True)
    assert len(benchmark({step(part): {"4": most}}, "--partial")) == 1
    for answer in (-1, most + 1):
        with pytest.raises(UserError, match=f"the answer to 4 is {answer}, not 0 … {most}"):
            benchmark({step(part): {"4": answer}}, "--partial")


@pytest.mark.parametrize("ending", [".jsonl", "_1k.jsonl", "_release.jsonl"])
def test_names_of_an_annotation(benchmark, ending):
    """How2R's public splits are val_1k and test_public_1k in the names of their files."""
    lines = {"val": [{"desc_id": 1}], "test_public": [{"desc_id": 2}]}
    results = {}
    for split, (line,) in lines.items():
        (benchmark.annotation / f"how2r_{split}{ending}").write_text(json.dumps(line))
        ranking = {"desc_id": line["desc_id"], "predictions": []}
        results[step(f"how2r_{split}")] = {"VCMR": [ranking], "VR": [ranking]}
    assert len(benchmark(results)) == 2


def test_a_split_that_the_indices_lack_is_not_searched_for_indices(benchmark, caplog):
    (benchmark.annotation / "yc2_vid2dur_idx.json").write_text(json.dumps({"val": VIDEOS["val"]}))
    assert len(benchmark(YC2R)) == 2
    assert "has no split test" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--results", "{}"], "nothing to do: give --output"),
        (["--results", "{}", "--json", "x", "--output", "y"], "--json needs --score"),
        (["--results", "{}/nothing", "--score"], "nothing does not exist"),
        (["--results", "{}", "--score"], "has no predictions: evaluate its run or leave it out"),
        (["--results", "tvr_val={}/nothing", "--score"], "nothing does not exist"),
        (["--results", "{}", "--annotation", "{}/no", "--score"], "no is no folder of annotations"),
        (["--results", "{}", "--vid2dur_idx", "x", "--score"], "--vid2dur_idx needs --task"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        submit(*(word.replace("{}", str(tmp_path)) for word in words))
