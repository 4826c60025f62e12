"""What conversions read: published annotations, subtitle files, results to hand in, weights."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from model.extractors.build import EXTRACTORS
from tests.hostile.harness import LINE_CHARACTERS, Case, Make, Place
from tests.hostile.text_files import submission
from tests.hostile.worlds import ANNOTATIONS, TOKER, copy_world, evaluation, search, training
from tests.support.small_extractors import use_small_networks
from tests.support.videos import make_video
from utils.files import read_json, read_jsonl

NAN, INFINITY = float("nan"), float("inf")
HOW2QA = "v1,[61:69],wrong,no,never,why?,right\n"
HOW2R = "v1,[60:120],[61:69],a man talks\n"


def published(task: str, name: str, content: bytes | str) -> Make:
    """A conversion of a published file."""

    def make(place: Place) -> list[object]:
        words = ["--task", task, "--annotation", place.write(name, content)]
        return [*words, "--output", place.write("out.jsonl", "made before\n")]

    return make


CSV: dict[str, tuple[str, bytes | str]] = {
    "empty": ("how2qa", ""),
    "too few cells": ("how2qa", HOW2QA + "v1,[1:2],a\n"),
    "a cell cut short": ("how2qa", HOW2QA + 'v1,[1:2],"a'),
    "not UTF-8": ("how2r", HOW2R.encode() + b"v1,[60:120],[61:69],caf\xe9\n"),
    "zeros": ("how2r", b"\0" * 100),
    "a cell of 200,000 characters": ("how2r", HOW2R + f"v1,[60:120],[61:69],{'x' * 200_000}\n"),
    "no times": ("how2r", HOW2R + "v1,[60:120],61-69,x\n"),
    "times of 5,000 digits": ("how2r", HOW2R + f"v1,[60:120],[{'9' * 5000}:1],x\n"),
    "a clip that starts in between": ("how2r", HOW2R + "v1,[61:121],[61:69],x\n"),
}
CASES = [
    Case(
        "CSV",
        mutation,
        "scripts.convert_annotations",
        published(task, f"{task}.csv", content),
        (f"{task}.csv",),
    )
    for mutation, (task, content) in CSV.items()
]


def didemo(**changes: Any) -> str:
    """Two records, the second one changed."""
    record = {"annotation_id": 1, "description": "x", "video": "v.mp4", "times": [[0, 1], [0, 1]]}
    return json.dumps([record, record | {"annotation_id": 2} | changes])


def _place(content: str) -> tuple[str, ...]:
    """Text with NaN or Infinity is no JSON at all; else the record is named."""
    return ("valid JSON",) if "NaN" in content or "Infinity" in content else ("record 2",)


DIDEMO: dict[str, str] = {
    "times that are a flat pair": didemo(times=[0, 1]),
    "times that are a text": didemo(times="0-1"),
    "times that are NaN": didemo(times=[[NAN, 1]]),
    "times that are infinite": didemo(times=[[0, INFINITY]]),
    "half segments": didemo(times=[[0.5, 1.5]]),
    "times that are texts": didemo(times=[["0", "1"]]),
    "times that are true": didemo(times=[[True, True]]),
    "three times": didemo(times=[[0, 1, 2]]),
    "segment 10^300": didemo(times=[[0, 10**300]]),
    "no video": didemo(video=None),
    "a video that is a list": didemo(video=["v"]),
    "a description that is a number": didemo(description=3),
    "an id that is null": didemo(annotation_id=None),
    "an id that is an object": didemo(annotation_id={}),
    "a record that is a number": '[{"annotation_id": 1, "description": "x", "video": "v", '
    '"times": [[0, 1]]}, 7]',
}
CASES += [
    Case(
        "DiDeMo record",
        mutation,
        "scripts.convert_annotations",
        published("didemo", "val_data.json", content),
        ("val_data.json", *_place(content)),
    )
    for mutation, content in DIDEMO.items()
]


def odd_moments_left_out(folder: Path) -> None:
    rows = [row for _, row in read_jsonl(folder / "out.jsonl")]
    assert [row["desc_id"] for row in rows] == [1]
    assert rows[0]["ts"] == [[0, 10], [0, 10]]


CASES += [
    Case(
        "DiDeMo record",
        mutation,
        "scripts.convert_annotations",
        published("didemo", "val_data.json", content),
        ("1 annotations", "left out 1 moment(s)"),
        code=0,
        check=odd_moments_left_out,
    )
    for mutation, content in {
        "a negative moment": didemo(times=[[-1, 0]]),
        "a moment that ends before it starts": didemo(times=[[3, 2]]),
    }.items()
]


def subtitle_file(name: str, content: bytes | str, *words: str) -> Make:
    """A conversion of one subtitle file."""

    def make(place: Place) -> list[object]:
        place.write(f"subs/{name}", content)
        arguments = ["--input", place.folder / "subs", *words]
        return [*arguments, "--output", place.write("out.jsonl", "made before\n")]

    return make


SRT = "1\n00:00:01,000 --> 00:00:02,000\nHello.\n\n"
SUBTITLES: dict[str, tuple[str, bytes | str]] = {
    "binary": ("a.srt", bytes(range(256)) * 20),
    "zeros": ("a.srt", bytes(1000)),
    "an archive": ("a.srt", b"PK\x03\x04" + bytes(range(256))),
    "times that are none": ("a.srt", "2\n00:00:xx --> 00:00:04,000\nHello.\n"),
    "an end before its start": ("a.srt", "2\n00:00:09,000 --> 00:00:04,000\nHello.\n"),
    "hours of 5,000 digits": ("a.srt", f"1\n{'9' * 5000}:00:01,000 --> 00:00:02,000\nHello.\n"),
    "times of frames": ("a.srt", "{10}{20}Hello.\n"),
    "a page of a web site": ("a.vtt", "<html>\n"),
    "no events": ("a.ass", "[Script Info]\nTitle: x\n"),
    "times of another kind": (
        "a.ssa",
        "[Script Info]\n\n[Events]\nFormat: Marked, Start, End, Style, Text\n"
        "Dialogue: Marked=0,yesterday,today,x,Hello.\n",
    ),
}
CASES += [
    Case(
        "subtitle file",
        mutation,
        "scripts.convert_subtitles",
        subtitle_file(name, content),
        (name,),
    )
    for mutation, (name, content) in SUBTITLES.items()
]


def says(*texts: str) -> Callable[[Path], None]:
    """A check that the one video's subtitles are these."""

    def check(folder: Path) -> None:
        (row,) = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        assert tuple(subtitle["text"].strip() for subtitle in row["sub"]) == texts
        (said,) = read_json(folder / "out.failed.json").values()
        assert said["subtitles"] == len(texts) and said["used"]

    return check


CASES += [
    Case(
        "subtitle file",
        mutation,
        "scripts.convert_subtitles",
        subtitle_file(name, content),
        (name, word),
        code=0,
        check=says(*texts),
    )
    for mutation, name, content, word, texts in (
        ("empty", "a.srt", "", "no subtitles", ()),
        (
            "not UTF-8",
            "a.srt",
            SRT.encode() + b"2\n00:00:03,000 --> 00:00:04,000\ncaf\xe9\n",
            "cp1252",
            ("Hello.", "café"),
        ),
        (
            "times of one that are none",
            "a.srt",
            SRT + "2\n00:00:xx --> 00:00:04,000\nBye.\n",
            "line 6",
            ("Hello.",),
        ),
        (
            "an event cut short",
            "a.ass",
            "[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,x,,0,0,0,,Hello.\nDialogue: 0,0:0\n",
            "line 3",
            ("Hello.",),
        ),
        (
            "cut in a letter",
            "a.srt",
            (SRT + "é" * 9).encode()[:-1],
            "damaged",
            ("Hello. éééééééé\ufffd",),
        ),
    )
]


def two_of_one_video(place: Place) -> list[object]:
    arguments = subtitle_file("a.srt", SRT)(place)
    place.write("subs/more/a.vtt", SRT.replace("Hello", "Bye"))
    return arguments


CASES += [
    Case(
        "subtitle file",
        "two of one video",
        "scripts.convert_subtitles",
        two_of_one_video,
        ("a.srt", "a.vtt"),
    ),
    Case(
        "subtitle file",
        "an unknown encoding",
        "scripts.convert_subtitles",
        subtitle_file("a.srt", SRT, "--encoding", "klingon"),
        ("klingon",),
    ),
]


def results(change: Callable[[dict], object]) -> Make:
    """Results to hand in, changed."""

    def make(place: Place) -> list[object]:
        arguments = submission(place)
        path = place.folder / "run" / "results" / "results_1_all.json"
        content = read_json(path)
        change(content)
        path.write_text(json.dumps(content))
        return arguments

    return make


def first_row(content: dict, value: Any) -> None:
    content["VCMR"][0]["predictions"][0] = value


RESULTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "no pool": (lambda content: content.pop("video2idx"), "video2idx"),
    "a pool that is a list": (lambda content: content.update(video2idx=[1]), "video2idx"),
    "indices that are texts": (lambda content: content.update(video2idx={"c": "0"}), "video2idx"),
    "indices that are lists": (lambda content: content.update(video2idx={"c": [0]}), "video2idx"),
    "no ranking": (lambda content: content.pop("VCMR"), "VCMR"),
    "a ranking that is a text": (lambda content: content.update(VCMR="text"), "VCMR"),
    "an entry that is a number": (lambda content: content["VCMR"].__setitem__(0, 7), "VCMR"),
    "predictions that are null": (
        lambda content: content["VCMR"][0].update(predictions=None),
        "c0",
    ),
    "predictions that are a text": (
        lambda content: content["VCMR"][0].update(predictions="text"),
        "c0",
    ),
    "a prediction of a megabyte": (lambda content: first_row(content, "x" * 1_000_000), "c0"),
    "a NaN score": (lambda content: first_row(content, [0, 1.0, 2.0, NAN]), "valid JSON"),
    "a time that is a text": (lambda content: first_row(content, [0, "1", 2.0, 0.5]), "c0"),
    "a video that is a list": (lambda content: first_row(content, [[0], 1.0, 2.0, 0.5]), "c0"),
    "a query twice": (lambda content: content["VCMR"].append(content["VCMR"][0]), "twice"),
    "a query less": (lambda content: content["VCMR"].pop(), "lacks 1 of 2"),
    "an unknown query": (
        lambda content: content["VCMR"].append(content["VCMR"][0] | {"desc_id": "zz"}),
        "zz",
    ),
}
CASES += [
    Case(
        "results to hand in",
        mutation,
        "scripts.format_submission",
        results(change),
        ("results_1_all.json", word),
    )
    for mutation, (change, word) in RESULTS.items()
]


def answers(task: str, content: Any) -> Make:
    """Answers to hand in."""

    def make(place: Place) -> list[object]:
        line = {"qid": "q1", "desc_id": "q1", "a0": "x", "a1": "y"}
        words = ["--task", task, "--annotation", place.write("val.jsonl", json.dumps(line))]
        words += ["--results", place.write("results.json", json.dumps(content))]
        return [*words, "--output", place.write("out.json", "{}")]

    return make


CASES += [
    Case(
        "answers to hand in",
        f"{task} {json.dumps(content)[:30]}",
        "scripts.format_submission",
        answers(task, content),
        ("results.json", word),
    )
    for task, content, word in (
        ("tvqa", {"q1": "1"}, "q1"),
        ("tvqa", {"q1": 2}, "q1"),
        ("tvqa", {"q1": True}, "q1"),
        ("tvqa", {"q1": ["x" * 1_000_000]}, "q1"),
        ("tvqa", {}, "q1"),
        ("violin", {"q1": -1}, "q1"),
        ("violin", [1], "object"),
    )
]


def extraction(weights: Callable[[Path], object], model: str = "resnet") -> Make:
    """An extraction with weights that are none."""

    def make(place: Place) -> list[object]:
        place.write("videos/a.mp4", b"no video")
        path = place.path("weights.pth")
        weights(path)
        words = ["--video_dir", place.folder / "videos", "--models", model]
        words += [f"--{model}_weights", path, "--workers", 1]
        return [*words, "--output", place.folder / "feat"]

    return make


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"<html>\n" * 100),
    "a folder": lambda path: path.mkdir(),
    "a list": lambda path: torch.save([1], path),
    "other weights": lambda path: torch.save({"a": torch.ones(2)}, path),
    "a picture": lambda path: Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, "png"),
}
CASES += [
    Case(
        "weights of an extractor",
        mutation,
        "scripts.extract_features",
        extraction(damage, model),
        ("weights.pth",),
    )
    for model in ("resnet", "slowfast")
    for mutation, damage in WEIGHTS.items()
    if model == "resnet" or mutation in ("text", "other weights")
]


def video(name: str, content: Callable[[Path], object]) -> Make:
    """An extraction, by small networks, from a video, and from a file that is none."""

    def make(place: Place) -> list[object]:
        use_small_networks(partial(_replace, place))
        make_video(place.path("videos/good.mp4"), seconds=1, rate=4)
        content(place.path(f"videos/{name}"))
        words = ["--video_dir", place.folder / "videos", "--models", "resnet", "--random_weights"]
        return [*words, "--workers", 1, "--output", place.folder / "feat"]

    return make


def _replace(place: Place, name: str, network: type) -> None:
    place.stack.enter_context(patch.dict(EXTRACTORS, {name: network}))


def cut_video(path: Path) -> None:
    make_video(path, seconds=1, rate=4)
    path.write_bytes(path.read_bytes()[:1500])


def is_listed(folder: Path) -> None:
    failed = read_json(folder / "feat" / "failed.json")
    ((path, problem),) = failed.items()
    assert Path(path).stem == "a" and 0 < len(problem["reason"]) < LINE_CHARACTERS
    extracted = (folder / "feat").glob("*_features/**/*.npz")
    assert [path.stem for path in extracted] == ["good"]


CASES += [
    Case(
        "video",
        mutation,
        "scripts.extract_features",
        video(name, content),
        ("1 videos extracted", "1 failed"),
        code=0,
        check=is_listed,
    )
    for mutation, name, content in (
        ("empty", "a.mp4", lambda path: path.write_bytes(b"")),
        ("text", "a.mp4", lambda path: path.write_bytes(b"<html>\n" * 1000)),
        ("random bytes", "a.mkv", lambda path: path.write_bytes(bytes(range(256)) * 100)),
        ("cut short", "a.mp4", cut_video),
        ("subtitles", "a.avi", lambda path: path.write_bytes(SRT.encode())),
    )
]
CASES = list({str(case): case for case in CASES}.values())

OPTIONS: list[tuple[str, Callable[[Place], list[object]], list[object], str]] = [
    ("train_vcmr", training, ["--learning_rate", "nan"], "learning_rate"),
    ("train_vcmr", training, ["--learning_rate", "inf"], "learning_rate"),
    ("train_vcmr", training, ["--num_train_steps", "9" * 5000], "num_train_steps"),
    ("train_vcmr", training, ["--num_train_steps", "²"], "num_train_steps"),
    ("train_vcmr", training, ["--seed", -1], "seed"),
    ("train_vcmr", training, ["--seed", 2**70], "seed"),
    ("train_vcmr", training, ["--vfeat_interval", "nan"], "vfeat_interval"),
    ("train_vcmr", training, ["--output_dir", ""], "output is empty"),
    ("eval_vcmr", evaluation, ["--nms_thd", "nan"], "nms_thd"),
    ("scripts.search_videos", search, ["--query", "\udcff"], "query"),
    (
        "scripts.check_data",
        lambda place: ["--config", copy_world(place) / "config.json"],
        ["--workers", "many"],
        "workers",
    ),
]
CASES += [
    Case(
        "options",
        f"{words[0]} {words[1]}"[:40],
        script,
        lambda place, arrange=arrange, words=words: [*arrange(place), *words],
        (word,),
    )
    for script, arrange, words, word in OPTIONS
]


def raw_preparation(place: Place) -> list[object]:
    """All steps from raw files, one of which is damaged."""
    for path in ANNOTATIONS.iterdir():
        shutil.copy(path, place.path(f"ann/{path.name}"))
    annotation = place.folder / "ann" / "tvr_val.jsonl"
    annotation.rename(place.folder / "ann" / "tvr_val_release.jsonl")
    (place.folder / "ann" / "tvr_train.jsonl").unlink()
    place.write("ann/tvr_train_release.jsonl", '{"desc_id": 1}\n')
    words = ["--from", "raw", "--dataset", "tvr", "--ann_dir", place.folder / "ann"]
    return [*words, "--toker", TOKER, "--storage", place.folder / "storage", "--workers", 1, *ONLY]


ONLY = ["--only", "txt_db/tvr_train.db"]


CASES.append(
    Case(
        "annotation",
        "a line without its fields",
        "scripts.prepare_data",
        raw_preparation,
        ("steps failed",),
        told=("tvr_train_release.jsonl:1",),
    )
)


def extraction_again(content: str) -> Make:
    """An extraction into a folder whose record is damaged."""

    def make(place: Place) -> list[object]:
        use_small_networks(partial(_replace, place))
        make_video(place.path("videos/good.mp4"), seconds=1, rate=4)
        place.write("feat/extraction.json", content)
        words = ["--video_dir", place.folder / "videos", "--models", "resnet", "--random_weights"]
        return [*words, "--workers", 1, "--output", place.folder / "feat"]

    return make


CASES += [
    Case(
        "record of an extraction",
        content[:30],
        "scripts.extract_features",
        extraction_again(content),
        ("extraction.json",),
    )
    for content in ("", "[1]", '{"resnet": 7}', '{"resnet": {"interval": "2"}}')
]


def odd_name(name: bytes) -> Make:
    """Subtitles in a file of an odd name."""

    def make(place: Place) -> list[object]:
        arguments = subtitle_file("good.srt", SRT)(place)
        Path(os.fsdecode(os.fsencode(place.folder) + b"/subs/" + name)).write_text(SRT)
        return arguments

    return make


CASES += [
    Case(
        "subtitle file",
        f"a name {name!r}",
        "scripts.convert_subtitles",
        odd_name(name),
        ("srt", "rename it", "1 subtitles"),
        code=0,
    )
    for name in (b"caf\xe9.srt", b"\xff\xfe.srt")
]
