"""Files that are no plain files, tokenizers, what runs left behind, and sizes beyond the model."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from tests.hostile.harness import Case, Make, Place
from tests.hostile.line_files import LINE_TARGETS, prepare_queries, second_line
from tests.hostile.pickles import conversion
from tests.hostile.records import packed, with_field
from tests.hostile.side_files import edited, entry
from tests.hostile.tensor_files import from_checkpoint, resumed
from tests.hostile.text_files import (
    DEEP,
    JSON_TARGETS,
    Target,
    choosing_videos,
    clip_cutting,
    overwrite,
    subtitle_preparation,
)
from tests.hostile.worlds import TOKER, evaluation, resuming, training


def pipe(path: Path) -> None:
    """A named pipe that nobody writes into: who opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A device that gives zeros for ever."""
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


STRANGE: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "an endless device": zeros,
    "a link to itself": link_to_itself,
}
CASES = [
    target.damaged(mutation, damage)
    for target in (*JSON_TARGETS[::3], *LINE_TARGETS[::3])
    for mutation, damage in STRANGE.items()
]
CASES += [
    Case("checkpoint", mutation, "train_vcmr", from_checkpoint(damage), ("start.pt",))
    for mutation, damage in STRANGE.items()
]
CASES += [
    Case("restore point", mutation, "train_vcmr", resumed(damage), ("restore.pt",))
    for mutation, damage in STRANGE.items()
]


def strange_pickle(damage: Callable[[Path], object]) -> Make:
    def make(place: Place) -> list[object]:
        arguments = conversion(place, b"")
        damage(place.folder / "video_feat_info.pkl")
        return arguments

    return make


CASES += [
    Case(
        "feature paths",
        mutation,
        "scripts.convert_videodb",
        strange_pickle(damage),
        ("video_feat_info.pkl",),
    )
    for mutation, damage in STRANGE.items()
]


def tokenizer(damage: Callable[[Path], object]) -> Make:
    """A preparation with a damaged tokenizer."""

    def make(place: Place) -> list[object]:
        arguments = prepare_queries("tvr", "tvr_val")(place)
        folder = Path(shutil.copytree(TOKER, place.folder / "toker"))
        damage(folder)
        arguments[arguments.index("--toker") + 1] = folder
        return arguments

    return make


def tokenizer_file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def vocabulary(change: Callable[[dict], Any]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "vocab.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


TOKENIZERS: dict[str, Callable[[Path], object]] = {
    "an empty vocabulary": tokenizer_file("vocab.json", b"{}"),
    "a vocabulary nested 200,000 deep": tokenizer_file("vocab.json", DEEP),
    "a vocabulary that is a list": tokenizer_file("vocab.json", b"[1]"),
    "a vocabulary cut short": tokenizer_file("vocab.json", b'{"<s>": 0, "<pad'),
    "ids that are texts": vocabulary(lambda words: {word: str(n) for word, n in words.items()}),
    "negative ids": vocabulary(lambda words: {word: -n for word, n in words.items()}),
    "merges that are binary": tokenizer_file("merges.txt", bytes(range(256)) * 4),
    "merges of unknown parts": tokenizer_file("merges.txt", b"#version: 0.2\nqq zz\n"),
    "a tokenizer.json that is garbage": tokenizer_file("tokenizer.json", b"{"),
    "a config that is garbage": tokenizer_file("tokenizer_config.json", b"[1"),
    "no files": lambda folder: [path.unlink() for path in folder.iterdir()],
}
CASES += [
    Case("tokenizer", mutation, "scripts.prepro_query", tokenizer(damage), ("toker",))
    for mutation, damage in TOKENIZERS.items()
]


TRUTH = Target("ground truth", "eval_vcmr", evaluation, "val.db/query_data.jsonl")
CASES += [
    TRUTH.damaged("a line cut short", second_line(b'{"desc_id": '), "query_data.jsonl:2"),
    TRUTH.damaged("a line nested 200,000 deep", second_line(DEEP), "query_data.jsonl:2"),
    TRUTH.damaged("a line that is a list", second_line(b"[1]"), "query_data.jsonl:2"),
    TRUTH.damaged("not UTF-8", second_line(b'{"caf\xe9": 1}'), "query_data.jsonl"),
    TRUTH.damaged(
        "a moment that is a text",
        second_line(b'{"desc_id": "c1", "vid_name": "c", "desc": "x", "ts": "1-2"}'),
        "query_data.jsonl:2",
        "ts",
    ),
    TRUTH.damaged(
        "a moment of one time",
        second_line(b'{"desc_id": "c1", "vid_name": "c", "desc": "x", "ts": [1.0]}'),
        "query_data.jsonl:2",
        "ts",
    ),
]


def left_behind(file: str, damage: Callable[[Path], object]) -> Make:
    """A run that goes on, one of whose logs is damaged."""

    def make(place: Place) -> list[object]:
        arguments = resuming(place)
        damage(place.folder / file)
        return [*arguments, "--num_train_steps", 2, "--allow_changed_options"]

    return make


CASES += [
    Case("metrics of the run", mutation, "train_vcmr", make, words)
    for mutation, make, words in (
        (
            "binary",
            left_behind("run/log/metrics.jsonl", overwrite(bytes(range(256)))),
            ("metrics.jsonl",),
        ),
        (
            "a line that is a list",
            left_behind("run/log/metrics.jsonl", overwrite(b"[1]\n")),
            ("metrics.jsonl",),
        ),
        (
            "a line without a step",
            left_behind("run/log/metrics.jsonl", overwrite(b'{"name": "x"}\n')),
            ("metrics.jsonl",),
        ),
    )
]

LONG = list(range(4, 24)) * 300  # tokens: more than there are positions
CASES += [
    Case("query record", "6,000 tokens", script, make, ("6001 positions", "table of 128"))
    for script, make in (
        ("train_vcmr", with_field(training, "train.db", "a0", "input_ids", LONG)),
        ("eval_vcmr", with_field(evaluation, "val.db", "c0", "input_ids", LONG)),
    )
]


def foreign_key(place: Place, arrange: Make = training) -> list[object]:
    """An id in the database that is no UTF-8."""
    arguments = arrange(place)
    with (
        lmdb.open(str(place.folder / "subtitles.db"), map_size=1 << 26, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"\xff\xfe", packed({"a": 1}))
    return arguments


def checking_foreign_key(place: Place) -> list[object]:
    foreign_key(place)
    return ["--config", place.folder / "config.json", "--workers", 1]


CASES += [
    Case(
        "subtitle database",
        "an id that is no UTF-8",
        "scripts.make_pretrain_splits",
        lambda place: foreign_key(place, choosing_videos),
        ("subtitles.db",),
    ),
]


def frames(number: int) -> Make:
    """A preparation whose first video has so many frames by its count."""

    def make(place: Place) -> list[object]:
        arguments = subtitle_preparation(place)
        path = place.folder / "tv_vid2nframe.json"
        counts = json.loads(path.read_text())
        counts[next(iter(counts))] = number
        path.write_text(json.dumps(counts))
        return arguments

    return make


CASES += [
    Case(
        "numbers of frames",
        f"{number:.0e}",
        "scripts.prepro_sub",
        frames(number),
        ("tv_vid2nframe.json",),
    )
    for number in (10**9, 10**18, -1)
]
CASES += [
    Case(
        "numbers of frames",
        "10^9 frames to cut",
        "scripts.cut_clips",
        edited(clip_cutting, "id2nframe.json", entry("a", 10**9)),
        ("id2nframe.json",),
    )
]
OPTIONS: list[tuple[str, Make, list[object], str]] = [
    ("scripts.cut_clips", clip_cutting, ["--clip_interval", "nan"], "clip_interval"),
    ("scripts.cut_clips", clip_cutting, ["--clip_interval", "inf"], "clip_interval"),
    ("scripts.cut_clips", clip_cutting, ["--clip_interval", "-60"], "clip_interval"),
    ("scripts.cut_clips", clip_cutting, ["--frame_length", "nan"], "frame_length"),
    ("scripts.make_pretrain_splits", choosing_videos, ["--val_share", "nan"], "val_share"),
    ("scripts.make_pretrain_splits", choosing_videos, ["--seed", "-1"], "seed"),
    ("scripts.prepro_sub", subtitle_preparation, ["--frame_length", "nan"], "frame_length"),
    ("scripts.prepro_sub", subtitle_preparation, ["--workers", "0x"], "workers"),
]
CASES += [
    Case(
        "options",
        f"{words[0]} {words[1]}",
        script,
        lambda place, arrange=arrange, words=words: [*arrange(place), *words],
        (word,),
    )
    for script, arrange, words, word in OPTIONS
]
