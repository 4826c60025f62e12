"""Outputs that cannot be written: found before the work, or said in one line after it."""

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from tests.hostile.harness import Case, Make, Place
from tests.hostile.pickles import collection, conversion, features, sound
from tests.hostile.text_files import (
    caption_preparation,
    choosing_videos,
    clip_cutting,
    didemo_conversion,
    dropping,
    of_task,
    query_preparation,
    submission,
    subtitle_conversion,
    subtitle_preparation,
)
from tests.hostile.worlds import copy_world, evaluation, search, training

LONG = "n" * 300


def searching(place: Place) -> list[object]:
    return [*search(place), "--output", place.folder / "found.json"]


def fixing(place: Place) -> list[object]:
    words = ["--config", copy_world(place) / "config.json", "--workers", 1]
    return [*words, "--fix-list", place.folder / "fix.json"]


def converting(place: Place) -> list[object]:
    return conversion(place, pickle.dumps(sound(place)))


def collecting(place: Place) -> list[object]:
    features(place)
    return collection(place)


# script, arrangement, option of the output, whether it is a folder
OUTPUTS: list[tuple[str, Make, str, bool]] = [
    ("scripts.prepro_query", query_preparation, "--output", True),
    ("scripts.prepro_sub", subtitle_preparation, "--output", True),
    ("scripts.prepro_tvc", caption_preparation, "--output", True),
    ("scripts.convert_videodb", converting, "--output", True),
    ("scripts.collect_video_feature_paths", collecting, "--output", True),
    ("scripts.drop_ids", dropping, "--output", True),
    ("scripts.make_pretrain_splits", choosing_videos, "--output", True),
    ("train_vcmr", training, "--output_dir", True),
    ("train_videoQA", of_task(training, "tvqa"), "--output_dir", True),
    ("pretrain", of_task(training, "pretrain"), "--output_dir", True),
    ("scripts.convert_annotations", didemo_conversion, "--output", False),
    ("scripts.convert_subtitles", subtitle_conversion, "--output", False),
    ("scripts.cut_clips", clip_cutting, "--output", False),
    ("scripts.format_submission", submission, "--output", False),
    ("scripts.search_videos", searching, "--output", False),
    ("scripts.check_data", fixing, "--fix-list", False),
    ("inf_tvc", of_task(evaluation, "tvc"), "--output", False),
]


def occupied(place: Place, is_folder: bool) -> Path:
    """A folder where a file belongs, or a file where a folder belongs."""
    path = place.path("occupied/it")
    if is_folder:
        path.write_text("in the way")
    else:
        path.mkdir()
        (path / "file").write_text("in the way")
    return path


def below_a_file(place: Place, is_folder: bool) -> Path:
    """A path below a file."""
    return place.write("a_file", "in the way") / "below"


def too_long(place: Place, is_folder: bool) -> Path:
    """A name that is longer than names may be."""
    return place.folder / LONG


def in_proc(place: Place, is_folder: bool) -> Path:
    """A file system that takes no files, even from root."""
    return Path("/proc/hostile/out")


UNWRITABLE: dict[str, tuple[Callable[[Place, bool], Path], str]] = {
    "something else in its place": (occupied, "occupied/it"),
    "below a file": (below_a_file, "a_file"),
    "a name of 300 characters": (too_long, "nnnn"),
    "a file system that takes no files": (in_proc, "/proc/hostile"),
}


def written_to(arrange: Make, option: str, spoil: Callable, is_folder: bool) -> Make:
    """A sound world, and an output that cannot be written."""

    def make(place: Place) -> list[object]:
        arguments = arrange(place)
        where = arguments.index(option) + 1
        if not is_folder and Path(str(arguments[where])).is_file():
            Path(str(arguments[where])).unlink()
        arguments[where] = spoil(place, is_folder)
        return arguments

    return make


CASES = [
    Case(
        f"output of {script.removeprefix('scripts.')}",
        mutation,
        script,
        written_to(arrange, option, spoil, is_folder),
        (word,),
    )
    for script, arrange, option, is_folder in OUTPUTS
    for mutation, (spoil, word) in UNWRITABLE.items()
]


def no_space(arrange: Make) -> Make:
    """A disk that is full when something shall reach it."""

    def make(place: Place) -> list[object]:
        arguments = arrange(place)
        refuse = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        place.stack.enter_context(patch.object(os, "fsync", side_effect=refuse))
        return arguments

    return make


CASES += [
    Case(
        f"output of {script.removeprefix('scripts.')}",
        "a full disk",
        script,
        no_space(arrange),
        ("no space left",),
    )
    for script, arrange, _, _ in OUTPUTS
]


def results_in_the_way(task: str) -> Make:
    """An evaluation whose results folder is a file."""

    def make(place: Place) -> list[object]:
        arguments = evaluation(place, task)
        shutil.rmtree(place.folder / "run" / "results", ignore_errors=True)
        place.write("run/results_val", "in the way")
        return arguments

    return make


CASES += [
    Case(
        f"output of {script}",
        "a file in place of its folder",
        script,
        results_in_the_way(task),
        ("results_val",),
    )
    for script, task in (
        ("eval_vcmr", "tvr"),
        ("eval_vr", "msrvtt_video_sub"),
        ("eval_videoQA", "tvqa"),
        ("eval_violin", "violin"),
    )
]


def storage_in_the_way(place: Place) -> list[object]:
    place.path("mirror/txt_db/x").write_text("")
    place.environment["HERO_BLOB_URL"] = str(place.folder / "mirror")
    return ["--dataset", "tvr", "--storage", place.write("storage", "in the way")]


CASES.append(
    Case(
        "output of prepare_data",
        "a file in place of its folder",
        "scripts.prepare_data",
        storage_in_the_way,
        ("storage",),
    )
)
