"""JSON lines: annotations, subtitles, references. A broken line is named by file and number."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.harness import Case, Make, Place, damaged_file, spread
from tests.hostile.text_files import (
    DEEP,
    HUGE_INTEGER,
    Target,
    as_folder,
    caption_preparation,
    clip_cutting,
    of_task,
    overwrite,
    query_preparation,
    submission,
    subtitle_preparation,
)
from tests.hostile.worlds import ANNOTATIONS, TOKER, evaluation, training

NOTHING = object()  # a field that is taken away


def second_line(content: bytes) -> Callable[[Path], object]:
    """The file's first line, and then another."""

    def damage(path: Path) -> None:
        first = path.read_bytes().split(b"\n")[0]
        path.write_bytes(first + b"\n" + content + b"\n")

    return damage


LINE_MUTATIONS: dict[str, tuple[Callable[[Path], object], bool]] = {
    # name: (damage, whether the message names line 2)
    "empty": (overwrite(b""), False),
    "a folder": (as_folder, False),
    "not UTF-8": (second_line(b'{"caf\xe9": 1}'), False),
    "a line cut short": (second_line(b'{"vid_name": "a", "des'), True),
    "a line nested 200,000 deep": (second_line(DEEP), True),
    "a line with an integer of 5,000 digits": (second_line(HUGE_INTEGER), True),
    "a line of zeros": (second_line(b"\0" * 64), True),
    "a line that is a list": (second_line(b"[1, 2]"), True),
    "a line that is an empty object": (second_line(b"{}"), True),
}


def dropping_lines(place: Place) -> list[object]:
    drops = place.write("bad.json", '{"videos": ["a"]}')
    lines = place.write("ref.jsonl", '{"vid_name": "a"}\n{"vid_name": "b"}\n')
    return ["--list", drops, "--output", place.folder / "clean", lines]


LINE_TARGETS = [
    Target("annotation", "scripts.prepro_query", query_preparation, "tvr_val.jsonl"),
    Target("subtitles", "scripts.prepro_sub", subtitle_preparation, "tv_subtitles.jsonl"),
    Target("clips", "scripts.prepro_tvc", caption_preparation, "tvc_val.jsonl"),
    Target("subtitles", "scripts.prepro_tvc", caption_preparation, "tv_subtitles.jsonl"),
    Target("subtitles", "scripts.cut_clips", clip_cutting, "subtitles.jsonl"),
    Target("annotation", "scripts.format_submission", submission, "tvr_val.jsonl"),
    Target("references", "train_tvc", of_task(training, "tvc"), "ref.jsonl"),
    Target("target clips", "inf_tvc", of_task(evaluation, "tvc"), "ref.jsonl"),
    Target("annotation", "scripts.drop_ids", dropping_lines, "ref.jsonl"),
]


def edit_line(path: Path, number: int, field: str, value: Any) -> None:
    """Change a field of a line; ``sub.0.start`` is one of the first subtitle's."""
    lines = path.read_text().splitlines()
    raw = inner = json.loads(lines[number - 1])
    *outer, last = (int(part) if part.isdecimal() else part for part in field.split("."))
    for part in outer:
        inner = inner[part]
    if value is NOTHING:
        del inner[last]
    else:
        inner[last] = value
    lines[number - 1] = json.dumps(raw)
    path.write_text("\n".join(lines) + "\n")


def query_words(place: Place, annotation: str | Path, task: str) -> list[object]:
    """Words of ``prepro_query.py``."""
    words = ["--annotation", annotation, "--task", task, "--toker", TOKER]
    return [*words, "--output", place.folder / "out.db"]


def prepare_queries(task: str, name: str) -> Make:
    """Words of ``prepro_query.py`` for a recorded annotation."""

    def make(place: Place) -> list[object]:
        annotation = shutil.copy(ANNOTATIONS / f"{name}.jsonl", place.path(f"{name}.jsonl"))
        return query_words(place, annotation, task)

    return make


def field_case(
    script: str, arrange: Make, file: str, field: str, value: Any, reader: str, number: int = 2
) -> Case:
    """A line whose field has a value that makes no sense; the message names line and field."""
    make = damaged_file(arrange, file, lambda path: edit_line(path, number, field, value))
    what = "none" if value is NOTHING else json.dumps(value)[:40]
    named = next(part for part in reversed(field.split(".")) if not part.isdecimal())
    return Case(reader, f"{field} {what}", script, make, (f"{file}:{number}", named))


NAN, INFINITY = float("nan"), float("inf")
HALF = "\ud800 half a character"

# task, recorded annotation, [(field, value)]
QUERY_FIELDS: list[tuple[str, str, list[tuple[str, Any]]]] = [
    (
        "tvr",
        "tvr_val",
        [
            ("desc_id", None),
            ("desc_id", True),
            ("desc_id", 1.5),
            ("desc_id", ["a"]),
            ("desc_id", ""),
            ("desc_id", "x" * 600),
            ("vid_name", 7.5),
            ("vid_name", {}),
            ("desc", 5),
            ("desc", HALF),
            ("desc", NOTHING),
            ("ts", "1-2"),
            ("ts", [5.0, 2.0]),
            ("ts", [-4.0, 2.0]),
            ("ts", [NAN, 2.0]),
            ("ts", [1.0, INFINITY]),
            ("ts", [1.0]),
            ("ts", [[1.0, 2.0], [3.0]]),
            ("ts", [True, 2]),
            ("ts", {"start": 1}),
        ],
    ),
    (
        "tvqa",
        "tvqa_val",
        [
            ("qid", NOTHING),
            ("q", None),
            ("a3", NOTHING),
            ("a3", 4),
            ("answer_idx", 5),
            ("answer_idx", -1),
            ("answer_idx", "1"),
            ("answer_idx", 1.5),
            ("answer_idx", True),
            ("ts", "9.5-3"),
            ("ts", "a-b"),
            ("ts", [1, 2, 3]),
            ("ts", 7),
        ],
    ),
    (
        "violin",
        "violin_val",
        [("label", 2), ("label", "1"), ("label", 0.5), ("label", False), ("desc", ["a"])],
    ),
    ("msrvtt", "msrvtt_val", [("sen_id", {}), ("clip_name", False)]),
]
SUBTITLE_FIELDS: list[tuple[str, Any]] = [
    ("vid_name", NOTHING),
    ("sub", None),
    ("sub", {"text": "x"}),
    ("sub.0", "text"),
    ("sub.0.start", "00:01"),
    ("sub.0.start", NAN),
    ("sub.0.end", INFINITY),
    ("sub.0.end", 10**400),
    ("sub.0.text", None),
    ("sub.0.text", HALF),
]
CLIP_FIELDS: list[tuple[str, Any]] = [
    ("clip_id", NOTHING),
    ("vid_name", []),
    ("duration", "long"),
    ("ts", [9.0, 3.0]),
    ("ts", [-9.0, 3.0]),
    ("ts", [NAN, NAN]),
    ("descs", "text"),
    ("descs.0", "text"),
    ("descs.0.desc", 9),
    ("descs.0.desc_id", NOTHING),
]

CASES = []
for _target, (_mutation, (_damage, _is_line)) in spread(LINE_MUTATIONS.items(), LINE_TARGETS, 4):
    # An object without a video's name is just not about a video to drop.
    if (_target.script, _mutation) != ("scripts.drop_ids", "a line that is an empty object"):
        _place = Path(_target.file).name + ":2" * _is_line
        CASES.append(_target.damaged(_mutation, _damage, _place))
for _task, _name, _fields in QUERY_FIELDS:
    CASES += [
        field_case(
            "scripts.prepro_query",
            prepare_queries(_task, _name),
            f"{_name}.jsonl",
            field,
            value,
            f"{_task} annotation",
        )
        for field, value in _fields
    ]
CASES += [
    field_case(
        "scripts.prepro_sub",
        subtitle_preparation,
        "tv_subtitles.jsonl",
        field,
        value,
        "subtitles",
        1,
    )
    for field, value in SUBTITLE_FIELDS
]
CASES += [
    field_case("scripts.prepro_tvc", caption_preparation, "tvc_val.jsonl", field, value, "clips")
    for field, value in CLIP_FIELDS
]


def repeated_id(place: Place) -> list[object]:
    arguments = prepare_queries("tvr", "tvr_val")(place)
    path = place.folder / "tvr_val.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0]]))
    return arguments


CASES.append(
    Case(
        "tvr annotation",
        "an id used twice",
        "scripts.prepro_query",
        repeated_id,
        ("tvr_val.jsonl", "was used in line 1"),
    )
)

MOMENT = {"annotation_id": 1, "description": "x", "video": "v.mp4", "times": [[0, 0]]}
STATEMENT = {"split": "test", "statement": [["yes", "no"]]}
SENTENCE = {"caption": "x", "video_id": "video0"}
MSRVTT = {"info": {}, "videos": [], "sentences": [SENTENCE]}
# task, name, content, words
PUBLISHED: list[tuple[str, str, str, tuple[str, ...]]] = [
    (
        "didemo",
        "val_data.json",
        json.dumps([MOMENT], indent=1),
        ("convert_annotations.py", "--task didemo"),
    ),
    (
        "how2qa",
        "how2QA_val_release.csv",
        "v1,[0:9],a,b,c,why?,d\n",
        ("convert_annotations.py", "--task how2qa"),
    ),
    ("msrvtt", "train_val_videodatainfo.json", json.dumps(MSRVTT), ("one JSON",)),
    ("violin", "violin_annotation.json", json.dumps({"clip": STATEMENT}, indent=2), ("one JSON",)),
    ("tvqa", "tvqa_plus_val.json", json.dumps([{"q": "x", "a0": "a", "qid": 1}]), ("one JSON",)),
]
CASES += [
    Case(
        f"published {task}",
        "as it is published",
        "scripts.prepro_query",
        lambda place, task=task, name=name, content=content: query_words(
            place, place.write(name, content), task
        ),
        (name, *words),
    )
    for task, name, content, words in PUBLISHED
]
