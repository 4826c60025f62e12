"""Data that is odd: still read where it can be, with a warning that tells numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.stores.lmdb_io import TextDb
from tests.hostile.harness import Case, Make, Place
from tests.hostile.line_files import prepare_queries
from tests.hostile.records import with_field
from tests.hostile.side_files import edited, entry
from tests.hostile.text_files import (
    didemo_conversion,
    of_task,
    subtitle_preparation,
)
from tests.hostile.worlds import ANNOTATIONS, TOKER, search, training
from utils.files import read_json, read_jsonl


def usable(
    reader: str,
    mutation: str,
    script: str,
    make: Make,
    words: tuple[str, ...],
    check: Callable[[Path], None],
) -> Case:
    """Data that can be used: ``words`` must be in the warnings."""
    return Case(reader, mutation, script, make, words, code=0, check=check)


def trained(folder: Path) -> None:
    assert (folder / "new" / "ckpt" / "model_step_1.pt").is_file()


MOMENTS = {
    "a moment that ends before it starts": [5.0, 1.0],
    "a moment that lies before zero": [-6.0, -3.0],
    "a moment that starts before zero": [-1.0, 3.5],
    "a moment after the end of its video": [500.0, 510.0],
}
CASES = [
    usable(
        "query record",
        mutation,
        "train_vcmr",
        with_field(training, "train.db", "a0", "target", moment),
        ("1 moment(s)", "a0") if "after" not in mutation else (),
        trained,
    )
    for mutation, moment in MOMENTS.items()
] + [
    usable(
        "question record",
        mutation,
        "train_videoQA",
        with_field(of_task(training, "tvqa"), "train.db", "a0", "ts", ts),
        words,
        trained,
    )
    for mutation, ts, words in (
        ("a span that ends before it starts", "5.0-1.0", ("1 moment(s)", "a0")),
        ("a span that is not known", "NaN-NaN", ()),
        ("a span before zero", "-6.0--3.0", ("1 moment(s)", "a0")),
    )
]


CASES += [
    usable(
        "caption record",
        mutation,
        "train_tvc",
        with_field(of_task(training, "tvc"), "train.db/cap.db", "a1", "ts", ts),
        ("1 moment(s)", "ac"),
        trained,
    )
    for mutation, ts in (
        ("a clip that ends before it starts", [5.0, 1.0]),
        ("a clip before zero", [-6.0, -3.0]),
    )
]


def change_lines(path: Path, change: Callable[[dict], object]) -> None:
    """Change every line of a JSON-lines file."""
    rows = [row for _, row in read_jsonl(path)]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def subtitles(change: Callable[[dict], object]) -> Make:
    """A preparation of subtitles, all of which are changed."""

    def make(place: Place) -> list[object]:
        arguments = subtitle_preparation(place)
        change_lines(place.folder / "tv_subtitles.jsonl", change)
        return arguments

    return make


def times(factor: float) -> Callable[[dict], object]:
    def change(row: dict) -> None:
        for subtitle in row["sub"]:
            subtitle["start"] *= factor
            subtitle["end"] *= factor

    return change


def say_nothing(row: dict) -> None:
    for subtitle in row["sub"]:
        subtitle["text"] = " "


def prepared(folder: Path) -> None:
    counts = read_json(folder / "tv_vid2nframe.json")
    assert set(TextDb(folder / "out.db").keys()) == set(counts)


CASES += [
    usable("subtitles", mutation, "scripts.prepro_sub", subtitles(change), words, prepared)
    for mutation, change, words in (
        ("times in milliseconds", times(1000), ("0 of", "milliseconds")),
        ("times in frames of a film", times(24), ("only 5 of 69", "frames")),
        ("texts that are all empty", say_nothing, ("empty",)),
        ("videos that all say nothing", lambda row: row.update(sub=[]), ("no subtitles",)),
    )
]


def milliseconds_in_training(place: Place) -> list[object]:
    """Subtitles none of which meets a frame, in a database that is made already."""
    arguments = training(place)
    for vid in "abcd":
        for field, value in (
            ("unique_sub2frames", []),
            ("sub2frames", [[0, []], [1, []]]),
            ("sub", [{"text": "x", "start": 5000, "end": 7000}] * 2),
        ):
            with_field(lambda _: [], "subtitles.db", vid, field, value)(place)
    return arguments


CASES.append(
    usable(
        "subtitle database",
        "no subtitle meets a frame",
        "train_vcmr",
        milliseconds_in_training,
        ("subtitles.db", "0 of"),
        trained,
    )
)


def with_mark(place: Place) -> list[object]:
    arguments = prepare_queries("tvr", "tvr_val")(place)
    path = place.folder / "tvr_val.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return arguments


def queries_prepared(folder: Path) -> None:
    db = TextDb(folder / "out.db")
    rows = [row for _, row in read_jsonl(ANNOTATIONS / "tvr_val.jsonl")]
    assert set(db.keys()) == {str(row["desc_id"]) for row in rows}
    assert db[str(rows[0]["desc_id"])]["desc"] == rows[0]["desc"]


def numbers_as_names(place: Place) -> list[object]:
    """Videos and ids that are numbers in the annotation."""
    arguments = prepare_queries("tvr", "tvr_val")(place)
    change_lines(place.folder / "tvr_val.jsonl", lambda row: row.update(vid_name=10001))
    return arguments


def names_are_texts(folder: Path) -> None:
    queries_prepared(folder)
    assert set(read_json(folder / "out.db" / "query2video.json").values()) == {"10001"}


CASES += [
    usable(
        "tvr annotation",
        "a byte-order mark",
        "scripts.prepro_query",
        with_mark,
        (),
        queries_prepared,
    ),
    usable(
        "tvr annotation",
        "numbers as names of videos",
        "scripts.prepro_query",
        numbers_as_names,
        (),
        names_are_texts,
    ),
]


def dropping_numbers(place: Place) -> list[object]:
    """A list whose ids and videos are numbers, as a program may write it."""
    numbers_as_names(place)
    arguments = ["--annotation", place.folder / "tvr_val.jsonl", "--toker", TOKER]
    from scripts import prepro_query

    database = place.folder / "numbers.db"
    prepro_query.main([*map(str, arguments), "--output", str(database), "--workers", "1"])
    first = next(row for _, row in read_jsonl(place.folder / "tvr_val.jsonl"))
    drops = {"videos": [5], "records": {"numbers.db": [int(first["desc_id"])]}}
    words = ["--list", place.write("bad.json", json.dumps(drops))]
    return [*words, "--output", place.folder / "clean", database]


def one_is_dropped(folder: Path) -> None:
    before, after = TextDb(folder / "numbers.db"), TextDb(folder / "clean" / "numbers.db")
    assert len(after) == len(before) - 1


CASES += [
    usable(
        "list to drop", "numbers as ids", "scripts.drop_ids", dropping_numbers, (), one_is_dropped
    ),
]


def with_extension(place: Place) -> list[object]:
    arguments = didemo_conversion(place)
    path = place.folder / "val_data.json"
    path.write_text(path.read_text().replace('"v"', '"1@N00_2_3.mov"'))
    return arguments


def without_extension_or_known(folder: Path) -> None:
    (_, row) = next(iter(read_jsonl(folder / "out.jsonl")))
    assert row["vid_name"].removesuffix(".mov") == "1@N00_2_3"
    assert row["target"] == [0, 10]


CASES.append(
    usable(
        "DiDeMo record",
        "a video with the ending of its file",
        "scripts.convert_annotations",
        with_extension,
        ("1 annotations",),
        without_extension_or_known,
    )
)


def counts(**changes: int) -> Callable[[Any], Any]:
    return lambda content: content | changes


CASES += [
    usable(
        "numbers of frames",
        "fewer than the features have",
        "train_vcmr",
        edited(training, "video/id2nframe.json", counts(a=4)),
        (),
        trained,
    ),
    usable(
        "numbers of frames",
        "more than the features have",
        "train_vcmr",
        edited(training, "video/id2nframe.json", counts(a=9)),
        (),
        trained,
    ),
    usable(
        "subtitle meta",
        "another interval",
        "train_vcmr",
        edited(training, "subtitles.db/meta.json", entry("frame_length", 1.5)),
        ("subtitles.db", "1.5"),
        trained,
    ),
    usable(
        "subtitle meta",
        "another tokenizer",
        "train_vcmr",
        edited(training, "subtitles.db/meta.json", entry("toker", "other/vocabulary")),
        ("vocabulary",),
        trained,
    ),
    Case(
        "subtitle meta",
        "another interval",
        "scripts.search_videos",
        edited(search, "subtitles.db/meta.json", entry("frame_length", 1.5)),
        ("subtitles.db", "1.5"),
    ),
    Case(
        "subtitle meta",
        "a tokenizer of other ids",
        "scripts.search_videos",
        edited(search, "subtitles.db/meta.json", entry("BOS", 7)),
        ("subtitles.db", "7"),
    ),
]
