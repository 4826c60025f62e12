"""VALUE's files: annotations, lists, databases, results to hand in, and what scores them."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import GOLDEN_VALUE
from tests.hostile.harness import Case, Make, Place
from tests.hostile.line_files import HALF, INFINITY, NAN, NOTHING, field_case, query_words
from tests.hostile.records import with_field
from tests.hostile.side_files import edited, entry, without
from tests.hostile.text_files import of_task
from tests.hostile.worlds import evaluation, training

ANNOTATIONS = GOLDEN_VALUE / "world" / "ann"


def recorded(task: str, name: str) -> Make:
    """Words of ``prepro_query.py`` for a recorded annotation."""

    def make(place: Place) -> list[object]:
        path = place.path(f"{name}.jsonl")
        shutil.copy(ANNOTATIONS / path.name, path)
        return query_words(place, path, task)

    return make


# task, recorded annotation, [(field, value)]
LINE_FIELDS: list[tuple[str, str, list[tuple[str, Any]]]] = [
    (
        "vlep",
        "vlep_dev",
        [
            ("example_id", None),
            ("example_id", True),
            ("vid_name", 7.5),
            ("events", NOTHING),
            ("events", "text"),
            ("events", ["one"]),
            ("events", ["one", "two", "three"]),
            ("events", ["one", 2]),
            ("ts", "1.0-2.0"),
            ("ts", [1.0]),
            ("ts", [5.0, 2.0]),
            ("ts", [NAN, 2.0]),
            ("ts", [1.0, INFINITY]),
            ("answer", 2),
            ("answer", -1),
            ("answer", "1"),
            ("answer", True),
        ],
    ),
    (
        "violin",
        "violin_val",
        [("example_id", ["a"]), ("statement", 5), ("statement", NOTHING), ("answer", 0.5)],
    ),
    ("yc2r", "yc2r_val", [("desc_id", {}), ("desc", None), ("vid_name", [])]),
    ("vatex_en_r", "vatex_en_r_val", [("desc_id", ""), ("desc", HALF)]),
]
CASES = [
    field_case(
        *("scripts.prepro_query", recorded(task, name), f"{name}.jsonl", field, value),
        f"{task} annotation of VALUE",
    )
    for task, name, fields in LINE_FIELDS
    for field, value in fields
]


# --- lists ------------------------------------------------------------------------------------


def first_entry(list_name: str, **changes: Any) -> Callable[[dict], dict]:
    """A config whose first data set of a list says something else; NOTHING: no such key."""

    def change(config: dict) -> dict:
        first, *others = config[list_name]
        first = {name: value for name, value in (first | changes).items() if value is not NOTHING}
        return config | {list_name: [first, *others]}

    return change


TRAIN, VAL = "train_datasets", "val_datasets"
LISTS: list[tuple[str, Callable[[dict], dict], tuple[str, ...]]] = [
    ("no list to train on", lambda config: config | {TRAIN: []}, (TRAIN,)),
    ("a list that is an object", lambda config: config | {TRAIN: {}}, (TRAIN,)),
    ("a list of texts", lambda config: config | {VAL: ["yc2r"]}, (VAL,)),
    ("a data set twice", lambda config: config | {TRAIN: config[TRAIN] * 2}, (TRAIN, "once")),
    ("an unknown data set", first_entry(TRAIN, name="yc3r_video_sub_train"), ("yc3r", "yc2r")),
    ("no channel", first_entry(TRAIN, name="yc2r_train"), ("yc2r_train", "video_sub")),
    ("no split", first_entry(VAL, name="yc2r_video_sub"), ("yc2r_video_sub", "split")),
    ("the task of another", first_entry(TRAIN, task="vcmr"), ("vcmr", "'vr'")),
    ("no name", first_entry(TRAIN, name=NOTHING), (TRAIN, "name")),
    ("an unknown key", first_entry(TRAIN, batchsize=4), (TRAIN, "batchsize")),
    ("a batch size that is a text", first_entry(TRAIN, batch_size="4"), (TRAIN, "batch_size")),
    ("a batch size of 0", first_entry(TRAIN, batch_size=0), ("batch_size",)),
    ("a ratio that is negative", first_entry(TRAIN, ratio=-1), ("ratio",)),
    ("a ratio of 0", first_entry(TRAIN, ratio=0), ("ratio",)),
    ("no queries", first_entry(TRAIN, query_txt_db=NOTHING), ("query_txt_db",)),
    ("queries that are a list", first_entry(TRAIN, query_txt_db=["a"]), (TRAIN, "query_txt_db")),
    ("no subtitles", first_entry(TRAIN, sub_txt_db=NOTHING), ("sub_txt_db",)),
    ("no features", first_entry(TRAIN, vfeat_db=NOTHING), (TRAIN, "vfeat_db")),
    ("queries that are nowhere", first_entry(VAL, query_txt_db="/no/val.db"), ("/no/val.db",)),
]
CASES += [
    Case(
        "lists of data sets",
        mutation,
        "train_all_multitask" if number % 2 else "scripts.check_data",
        edited(of_task(training, "yc2r"), "config.json", change),
        words,
    )
    for number, (mutation, change, words) in enumerate(LISTS)
    if mutation != "queries that are nowhere"  # a row of the table, and another exit code
]
CASES.append(
    Case(
        *("lists of data sets", LISTS[-1][0], "train_all_multitask"),
        edited(of_task(training, "yc2r"), "config.json", LISTS[-1][1]),
        LISTS[-1][2],
    )
)

# --- databases --------------------------------------------------------------------------------

INDICES: list[tuple[str, Callable[[Any], Any], tuple[str, ...]]] = [
    ("no such split", without("val"), ("vid2dur_idx.json", "val")),
    ("a split that is a list", entry("val", ["c"]), ("vid2dur_idx.json", "val")),
    ("an index that is a text", entry("val", {"c": [8.0, "9"]}), ("vid2dur_idx.json", "c")),
    (
        "one index for two videos",
        entry("val", {"c": [8.0, 99], "d": [6.0, 99]}),
        ("vid2dur_idx.json", "99"),
    ),
    ("an unknown video", entry("val", {"unknown": [8.0, 9]}), ("unknown",)),
]
CASES += [
    Case(
        *("index of videos of VALUE", mutation, script),
        edited(of_task(arrange, "yc2r"), "subtitles.db/vid2dur_idx.json", change),
        words,
    )
    for mutation, change, words in INDICES
    for script, arrange in (("train_all_multitask", training), ("eval_vr", evaluation))
]

EVENTS: list[Any] = [NOTHING, "text", [4], [[4], [-1]], [[4], 5], [[4]], []]
CASES += [
    Case(
        *("event record", f"input_ids {json.dumps(tokens) if tokens is not NOTHING else 'none'}"),
        script,
        with_field(of_task(arrange, "vlep"), database, id_, "input_ids", tokens),
        (database, id_),
    )
    for tokens in EVENTS
    for script, arrange, database, id_ in (
        ("train_all_multitask", training, "train.db", "a0"),
        ("eval_videoQA", evaluation, "val.db", "c0"),
    )
]

CLIPS: list[tuple[str, Any]] = [
    ("clip_id", NOTHING),
    ("clip_id", 1.5),
    ("vid_name", None),
    ("vid_name", "unknown_video"),
    ("descs", "text"),
    ("descs", [{"desc": 5}]),
]
CASES += [
    Case(
        *("clips of whole videos", f"{name} {'none' if value is NOTHING else json.dumps(value)}"),
        "train_all_multitask",
        edited(
            of_task(training, "yc2c"),
            "ref.jsonl",
            lambda line, name=name, value=value: {
                key: found for key, found in (line | {name: value}).items() if found is not NOTHING
            },
        ),
        (str(value) if value == "unknown_video" else "ref.jsonl",),
    )
    for name, value in CLIPS
]

# --- results to hand in -----------------------------------------------------------------------

RANKING = {"VR": [{"desc_id": "1", "predictions": [40, 41]}]}
QUERY = {"desc_id": 1, "vid_name": "a_0"}
TABLE = {"val": {"a_0": [9.0, 40], "a_1": [9.0, 41]}}
CAPTION = {"clip_id": 1, "vid_name": "a_0", "descs": [{"desc": "x"}]}


def handing_in(
    results: Any = RANKING,
    annotation: Any = QUERY,
    table: Any = TABLE,
    part: str = "yc2r_val",
    score: bool = True,
) -> Make:
    """One split's results, checked and scored."""

    def make(place: Place) -> list[object]:
        name = {"yc2c_val": "yc2c_val_output.jsonl"}.get(part, f"{part}_predictions.json")
        place.write(f"run/{name}", results if isinstance(results, bytes) else json.dumps(results))
        place.write(f"ann/{part}.jsonl", json.dumps(annotation))
        place.write("ann/yc2_vid2dur_idx.json", json.dumps(table))
        words = ["--benchmark", "value", "--results", place.folder / "run"]
        words += ["--annotation", place.folder / "ann", "--score"]
        return [*words, "--partial", "--output", place.write("out.zip", "made before")]

    return make


def ranked(*rows: Any) -> dict:
    return {"VR": [{"desc_id": 1, "predictions": list(rows)}]}


HANDED_IN: list[tuple[str, Make, tuple[str, ...]]] = [
    ("a ranking that is a text", handing_in({"VR": "40 41"}), ("val_predictions.json", "VR")),
    ("a ranking without an id", handing_in({"VR": [{"predictions": [40]}]}), ("VR[0]", "desc_id")),
    ("a video that is a text", handing_in(ranked("40")), ("VR[0]", "predictions")),
    ("a video that is NaN", handing_in(ranked([NAN])), ("val_predictions.json", "JSON")),
    ("an empty row", handing_in(ranked([])), ("VR[0]", "predictions")),
    ("a video that is not searched", handing_in(ranked(42)), ("[42]", "vid2dur_idx.json")),
    ("a number with a fraction", handing_in(ranked([40.5])), ("[40.5]", "vid2dur_idx.json")),
    ("no ranking", handing_in({}), ("val_predictions.json", "VR")),
    ("an unknown query", handing_in({"VR": [RANKING["VR"][0] | {"desc_id": "zz"}]}), ("zz",)),
    ("a query twice", handing_in({"VR": RANKING["VR"] * 2}), ("twice",)),
    ("a megabyte of text", handing_in(ranked("x" * 1_000_000)), ("VR[0]",)),
    ("cut short", handing_in(b'{"VR": ['), ("val_predictions.json",)),
    ("nested 200,000 deep", handing_in(b"[" * 200_000), ("val_predictions.json",)),
    ("an annotation without an id", handing_in(annotation={"desc": "x"}), ("val.jsonl:1", "desc")),
    ("indices that are a list", handing_in(table=[1]), ("vid2dur_idx.json",)),
    ("indices malformed", handing_in(table={"val": {"a_0": 40}}), ("vid2dur_idx.json", "a_0")),
    (
        "an answer that is a text",
        handing_in({"1": "0"}, {"example_id": 1, "answer": 0}, part="vlep_dev"),
        ("dev_predictions.json", "'1'"),
    ),
    (
        "an answer out of range",
        handing_in({"1": 2}, {"example_id": 1, "events": ["a", "b"]}, part="vlep_dev"),
        ("dev_predictions.json", "0 … 1"),
    ),
    (
        "a truth that is a text",
        handing_in({"1": 0}, {"example_id": 1, "answer": "0"}, part="vlep_dev"),
        ("1: answer", "'0'"),
    ),
    (
        "a caption that is a number",
        handing_in(CAPTION | {"descs": [{"desc": 5}]}, CAPTION, part="yc2c_val"),
        ("val_output.jsonl", "clip 1"),
    ),
    (
        "two captions",
        handing_in(CAPTION | {"descs": CAPTION["descs"] * 2}, CAPTION, part="yc2c_val"),
        ("val_output.jsonl", "clip 1"),
    ),
    (
        "references that are a text",
        handing_in(CAPTION, CAPTION | {"descs": "x"}, part="yc2c_val"),
        ("clip 1", "descs"),
    ),
]
CASES += [
    Case("VALUE's results", mutation, "scripts.format_submission", make, words)
    for mutation, make, words in HANDED_IN
]


def zipped(name: str, damage: Callable[[Path], object] = lambda path: None) -> Make:
    """An earlier submission with one member."""

    def make(place: Place) -> list[object]:
        path = place.path("old.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, json.dumps(RANKING))
        damage(path)
        place.write("ann/yc2r_val.jsonl", json.dumps(QUERY))
        words = ["--benchmark", "value", "--results", path, "--annotation", place.folder / "ann"]
        return [*words, "--score"]

    return make


def corrupt(path: Path) -> None:
    """Other bytes in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[60:70] = b"x" * 10
    path.write_bytes(content)


MEMBER = "yc2r/yc2r_val_predictions.json"
CASES += [
    Case("VALUE's submission", mutation, "scripts.format_submission", make, words)
    for mutation, make, words in (
        ("a member outside", zipped(f"../{MEMBER}"), ("old.zip", "outside")),
        ("no member of it", zipped("readme.json"), ("old.zip", "TASK_SPLIT=FILE")),
        ("damaged", zipped(MEMBER, corrupt), ("old.zip",)),
        ("no zip", zipped(MEMBER, lambda path: path.write_bytes(b"PK")), ("old.zip",)),
    )
]
