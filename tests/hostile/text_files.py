"""JSON and JSON-lines files that are damaged, or hold something else than they should."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.harness import Case, Make, Place, spread
from tests.hostile.worlds import (
    ANNOTATIONS,
    TOKER,
    copy_world,
    evaluation,
    resuming,
    training,
)

DEEP = b"[" * 200_000
HUGE_INTEGER = b'{"a": ' + b"9" * 5000 + b"}"


def as_folder(path: Path) -> None:
    """Put a folder where a file belongs."""
    path.unlink()
    path.mkdir()


def overwrite(content: bytes) -> Callable[[Path], object]:
    """Something else in the file's place."""
    return lambda path: path.write_bytes(content)


def cut_short(path: Path) -> None:
    """Only the first half of the file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


JSON_MUTATIONS: dict[str, Callable[[Path], object]] = {
    "empty": overwrite(b""),
    "cut short": cut_short,
    "nested 200,000 deep": overwrite(DEEP),
    "an integer of 5,000 digits": overwrite(HUGE_INTEGER),
    "not UTF-8": overwrite(b'{"caf\xe9": 1}'),
    "zeros": overwrite(b"\0" * 64),
    "a folder": as_folder,
    "a text": overwrite(b'"text"'),
    "a list of lists": overwrite(b"[[1], [2]]"),
    "null": overwrite(b"null"),
}


@dataclass(frozen=True)
class Target:
    """A file that a command reads.

    Attributes:
        reader: what it is.
        script: the command.
        arrange: writes sound files; returns the words of the command.
        file: where it lies.
    """

    reader: str
    script: str
    arrange: Make
    file: str

    def damaged(self, mutation: str, damage: Callable[[Path], object], *words: str) -> Case:
        """The case of the file damaged."""

        def make(place: Place) -> list[object]:
            arguments = self.arrange(place)
            damage(place.folder / self.file)
            return arguments

        words = words or (Path(self.file).name,)
        return Case(self.reader, mutation, self.script, make, words)


def query_preparation(place: Place) -> list[object]:
    index = place.path("vid2dur_idx.json")
    shutil.copy(ANNOTATIONS / "vid2dur_idx.json", index)
    annotation = shutil.copy(ANNOTATIONS / "tvr_val.jsonl", place.path("tvr_val.jsonl"))
    words = ["--annotation", annotation, "--output", place.folder / "out.db", "--toker", TOKER]
    return [*words, "--vid2dur_idx", index, "--split", "val"]


def subtitle_preparation(place: Place) -> list[object]:
    for name in ("tv_subtitles.jsonl", "tv_vid2nframe.json", "vid2dur_idx.json"):
        shutil.copy(ANNOTATIONS / name, place.path(name))
    words = ["--annotation", place.path("tv_subtitles.jsonl"), "--toker", TOKER]
    words += ["--vid2nframe", place.path("tv_vid2nframe.json")]
    words += ["--vid2dur_idx", place.path("vid2dur_idx.json")]
    return [*words, "--output", place.folder / "out.db"]


def caption_preparation(place: Place) -> list[object]:
    for name in ("tv_subtitles.jsonl", "tvc_val.jsonl"):
        shutil.copy(ANNOTATIONS / name, place.path(name))
    words = ["--annotation", place.path("tvc_val.jsonl"), "--toker", TOKER]
    words += ["--subtitles", place.path("tv_subtitles.jsonl")]
    return [*words, "--output", place.folder / "out.db"]


def didemo_conversion(place: Place) -> list[object]:
    text = '[{"annotation_id": 1, "description": "x", "video": "v", "times": [[0, 1], [0, 1]]}]'
    annotation = place.write("val_data.json", text)
    words = ["--task", "didemo", "--annotation", annotation]
    return [*words, "--output", place.write("out.jsonl", "made before\n")]


def subtitle_conversion(place: Place) -> list[object]:
    place.write("subs/a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    counts = place.write("id2nframe.json", '{"a": 6, "b": 5}')
    words = ["--input", place.folder / "subs", "--vid2nframe", counts]
    return [*words, "--output", place.write("out.jsonl", "made before\n")]


def clip_cutting(place: Place) -> list[object]:
    line = '{"vid_name": "a", "sub": [{"text": "x", "start": 1.0, "end": 2.0}]}\n'
    words = ["--annotation", place.write("subtitles.jsonl", line)]
    words += ["--vid2nframe", place.write("id2nframe.json", '{"a": 60}')]
    return [*words, "--output", place.write("out.jsonl", "made before\n")]


def dropping(place: Place) -> list[object]:
    folder = copy_world(place)
    drops = place.write("bad.json", '{"videos": ["a"], "records": {"train.db": ["b0"]}}')
    words = [folder / "train.db", folder / "vids.json", folder / "ref.jsonl"]
    return ["--list", drops, "--output", place.folder / "clean", *words]


def submission(place: Place) -> list[object]:
    copy_world(place)
    lines = '{"desc_id": "c0", "desc": "words"}\n{"desc_id": "c1", "desc": "words"}\n'
    words = ["--task", "tvr", "--annotation", place.write("tvr_val.jsonl", lines)]
    words += ["--results", place.folder / "run" / "results" / "results_1_all.json"]
    return [*words, "--output", place.write("out.json", "{}")]


def choosing_videos(place: Place) -> list[object]:
    folder = copy_world(place)
    exclude = place.write("exclude.json", '["a"]')
    words = ["--name", "x", "--sub_txt_db", folder / "subtitles.db", "--exclude", exclude]
    return [*words, "--vfeat_db", folder / "video", "--output", folder / "lists"]


def checking(place: Place) -> list[object]:
    return ["--config", copy_world(place) / "config.json", "--workers", 1]


def of_task(arrange: Callable[[Place, str], list[object]], task: str) -> Make:
    return lambda place: arrange(place, task)


JSON_TARGETS = [
    Target("config", "train_vcmr", training, "config.json"),
    Target("config", "scripts.check_data", checking, "config.json"),
    Target("model", "train_vcmr", training, "model.json"),
    Target("query meta", "train_vcmr", training, "train.db/meta.json"),
    Target("query lengths", "train_vcmr", training, "train.db/id2len.json"),
    Target("videos of queries", "train_vcmr", training, "train.db/query2video.json"),
    Target("subtitle meta", "train_vcmr", training, "subtitles.db/meta.json"),
    Target("numbers of frames", "train_vcmr", training, "video/id2nframe.json"),
    Target("options of the run", "train_vcmr", resuming, "run/log/hps.json"),
    Target("options of the run", "eval_vcmr", evaluation, "run/log/hps.json"),
    Target("model of the run", "eval_vcmr", evaluation, "run/log/model_config.json"),
    Target(
        "captions of videos",
        "train_tvc",
        of_task(training, "tvc"),
        "train.db/cap.db/vid2caps.json",
    ),
    Target("list of videos", "pretrain", of_task(training, "pretrain"), "vids.json"),
    Target("index of videos", "scripts.prepro_query", query_preparation, "vid2dur_idx.json"),
    Target("index of videos", "scripts.prepro_sub", subtitle_preparation, "vid2dur_idx.json"),
    Target("numbers of frames", "scripts.prepro_sub", subtitle_preparation, "tv_vid2nframe.json"),
    Target("DiDeMo", "scripts.convert_annotations", didemo_conversion, "val_data.json"),
    Target("numbers of frames", "scripts.convert_subtitles", subtitle_conversion, "id2nframe.json"),
    Target("numbers of frames", "scripts.cut_clips", clip_cutting, "id2nframe.json"),
    Target("list to drop", "scripts.drop_ids", dropping, "bad.json"),
    Target(
        "results",
        "scripts.format_submission",
        submission,
        "run/results/results_1_all.json",
    ),
    Target("list to exclude", "scripts.make_pretrain_splits", choosing_videos, "exclude.json"),
]

CASES = [
    target.damaged(mutation, damage)
    for target, (mutation, damage) in spread(JSON_MUTATIONS.items(), JSON_TARGETS, 7)
    if (target.file, mutation) != ("video/id2nframe.json", "a folder")  # frames are counted
]
