"""The data check: every kind of damage is found, named and rated; sound databases pass."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest.mock import ANY

import numpy as np
import pytest

import pretrain
import train_vcmr
from config.config import TvcOptions, VcmrOptions, parse_options
from config.groups import Kind
from config.model_config import ModelConfig
from config.options import option
from config.training import AnswerOptions
from data.check import captions, features, queries, records, subtitles, tokens, videos
from data.check.broken_databases import BrokenRecords, drop_from
from data.check.checkup import check_before_training
from data.check.findings import CANNOT_OPEN, Check
from data.stores.lmdb_io import FeatureDbWriter, TextDb, TextDbWriter
from scripts import check_data, drop_ids
from tests.search.test_search_videos import documented_commands
from tests.support.damaged_world import FRAMES, INTERVAL, LISTED, META, TASKS, WIDTH, World
from tests.support.survival import REPOSITORY
from tests.utils.test_distributed import launch_command, launched
from utils.errors import UserError, run_main
from utils.files import read_json, write_json

ALL_TASKS = (*TASKS, *LISTED, "tvc", "pretrain")


def check(config: Path, *words: str) -> tuple[int, list[dict]]:
    """Exit code of the script, and the rows that it writes as JSON."""
    rows = config.parent / "rows.json"
    rows.unlink(missing_ok=True)
    try:
        check_data.main(["--config", str(config), "--json", str(rows), "--workers", "1", *words])
    except SystemExit as stopped:
        return stopped.code, read_json(rows)
    return 0, read_json(rows)


def wrong(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["severity"] != "ok"]


@dataclass(frozen=True)
class Damage:
    """Something wrong, and the row that must tell of it."""

    spoil: Callable[[World], object]
    check: Check
    where: str
    ids: tuple[str, ...]
    task: str = "tvr"
    severity: str = "error"
    quick: bool = False  # training's own check finds it too


def text(split: str, id_: str, **changes: object) -> Callable[[World], None]:
    """Change a query's record."""

    def spoil(world: World) -> None:
        world.queries[split].records[id_].update(changes)

    return spoil


def side(split: str, name: str, id_: str, value: object) -> Callable[[World], None]:
    """Change an entry of a query database's side file."""

    def spoil(world: World) -> None:
        world.queries[split].sides[name][id_] = value

    return spoil


def subtitle(vid: str, **changes: object) -> Callable[[World], None]:
    """Change a video's subtitle record."""

    def spoil(world: World) -> None:
        world.subtitles.records[vid].update(changes)

    return spoil


def caption(id_: str, **changes: object) -> Callable[[World], None]:
    """Change a training caption."""

    def spoil(world: World) -> None:
        world.captions["train"][0].records[id_].update(changes)

    return spoil


def frames(vid: str, array: np.ndarray) -> Callable[[World], None]:
    """Give a video other features, and its number of frames in ``id2nframe.json``."""

    def spoil(world: World) -> None:
        world.features[vid] = array

    return spoil


def meta(split: str, **changes: object) -> Callable[[World], None]:
    """Change the ``meta.json`` of a query database."""

    def spoil(world: World) -> None:
        world.queries[split].sides["meta.json"].update(changes)

    return spoil


def without_features(world: World) -> None:
    del world.features["b"]


def without_subtitles(world: World) -> None:
    del world.subtitles.records["b"], world.subtitles.sides["vid2len.json"]["b"]


def lose_query(world: World) -> None:
    del world.queries["train"].records["a1"]


def lose_subtitle_record(world: World) -> None:
    del world.subtitles.records["b"]


def lose_caption(world: World) -> None:
    del world.captions["train"][0].records["a1"]


def lose_clip(world: World) -> None:
    del world.captions["train"][1].records["ac"]


def lose_field(world: World) -> None:
    del world.queries["train"].records["a1"]["input_ids"]


def lose_video_of_query(world: World) -> None:
    del world.queries["train"].sides["query2video.json"]["a1"]


def lose_special_id(world: World) -> None:
    del world.queries["train"].sides["meta.json"]["CLS"]


def lose_vid2len(world: World) -> None:
    del world.subtitles.sides["vid2len.json"]


def match_other_frames(vid: str, number: int) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        world.subtitles.records[vid]["duration"] = number
        world.subtitles.sides["vid2len.json"][vid] = number

    return spoil


def other_frame_length(world: World) -> None:
    world.subtitles.sides["meta.json"]["frame_length"] = 1.5


def other_extraction(world: World) -> None:
    extraction = {"resnet": {"interval": 1.5, "width": 2}}
    meta = {"interval": INTERVAL, "width": 9, "parts": {"resnet": 2, "slowfast": WIDTH}}
    world.feature_meta = meta | {"extraction": extraction}


def no_pool(world: World) -> None:
    del world.subtitles.sides["vid2dur_idx.json"]
    world.queries["test"].sides["query2video.json"] = {}


def lose_line(world: World) -> None:
    world.queries["val"].lines[1] = {"desc_id": "x"}


def search_another(world: World) -> None:
    world.subtitles.sides["vid2dur_idx.json"]["val"] = {"d": [6.0, 1]}


def ask_another(world: World) -> None:
    world.queries["val"].records["c1"]["vid"] = "d"
    world.queries["val"].sides["query2video.json"]["c1"] = "d"


def index(split: str, entries: object) -> Callable[[World], None]:
    """What ``vid2dur_idx.json`` says of a split."""

    def spoil(world: World) -> None:
        world.subtitles.sides["vid2dur_idx.json"][split] = entries

    return spoil


def repeat_line(world: World) -> None:
    """Lines of 1 and "1"."""
    files = world.queries["val"]
    files.records = {"1": files.records["c0"] | {"qid": "1"}}
    files.sides["id2len.json"], files.sides["query2video.json"] = {"1": 2}, {"1": "c"}
    files.lines = [line | {"desc_id": id_} for line, id_ in zip(files.lines, (1, "1"))]


def list_twice(world: World) -> None:
    world.listed = ["a", "b", 7, "c", "7"]
    world.features["7"] = world.features["a"]
    world.subtitles.records["7"] = world.subtitles.records["a"] | {"vid_name": 7, "v_id": "7"}
    world.subtitles.sides["vid2len.json"]["7"] = FRAMES["a"]


def counts(**numbers: int | None) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        world.counts = numbers

    return spoil


def options(**changes: object) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        world.options = changes

    return spoil


def not_finite() -> np.ndarray:
    array = np.ones((FRAMES["b"], WIDTH), np.float32)
    array[1, 2] = np.nan
    return array


SUB, VIDEO, TRAIN, VAL, TEST = "subtitles.db", "resnet_slowfast_2", "train.db", "val.db", "test.db"
ONES = np.ones((5, WIDTH))

DAMAGES = {
    # features
    "no features": Damage(without_features, videos.NO_FEATURES, TRAIN, ("b",), quick=True),
    "no features, tvc": Damage(
        without_features, videos.NO_FEATURES, TRAIN, ("b",), "tvc", quick=True
    ),
    "no features, pretrain": Damage(
        without_features, videos.NO_FEATURES, "vids.json", ("b",), "pretrain", quick=True
    ),
    "too many rows": Damage(counts(b=4), features.ROWS, VIDEO, ("b",), severity="warning"),
    "too few rows": Damage(counts(b=9), features.ROWS, VIDEO, ("b",), severity="warning"),
    "no frame": Damage(frames("b", ONES[:0]), features.BAD_COUNT, VIDEO, ("b",), quick=True),
    "no record": Damage(counts(e=3), features.LOST, VIDEO, ("e",), severity="warning"),
    "no count": Damage(counts(b=None), features.UNCOUNTED, VIDEO, ("b",), severity="warning"),
    "narrow": Damage(frames("b", ONES[:, :3]), features.WIDTH, VIDEO, ("b",)),
    "not finite": Damage(frames("b", not_finite()), features.INFINITE, VIDEO, ("b",)),
    "doubles": Damage(frames("b", ONES), features.PRECISION, VIDEO, ("b",), severity="warning"),
    "other extraction": Damage(
        other_extraction,
        features.META,
        VIDEO,
        ("width", "width of all parts", "interval of resnet"),
        quick=True,
        severity="warning",
    ),
    # subtitles
    "no subtitles": Damage(without_subtitles, videos.NO_SUBTITLES, TRAIN, ("b",), quick=True),
    "no subtitle record": Damage(lose_subtitle_record, subtitles.LOST, SUB, ("b",)),
    "other interval": Damage(
        other_frame_length,
        subtitles.INTERVAL,
        SUB,
        ("frame_length",),
        quick=True,
        severity="warning",
    ),
    "other frames": Damage(
        match_other_frames("b", 8), subtitles.FRAMES, SUB, ("b",), quick=True, severity="warning"
    ),
    "one frame": Damage(
        match_other_frames("b", 6), subtitles.ONE_FRAME, SUB, ("b",), severity="warning", quick=True
    ),
    "no vid2len": Damage(
        lose_vid2len, subtitles.NO_LENGTHS, SUB, ("vid2len.json",), severity="warning", quick=True
    ),
    "other vid2len": Damage(
        subtitle("b", duration=4), subtitles.LENGTH, SUB, ("b",), severity="warning"
    ),
    "subtitle ids": Damage(subtitle("b", input_ids=[[50], [1]]), subtitles.OUTSIDE, SUB, ("b",)),
    "negative ids": Damage(subtitle("b", input_ids=[[-1], [1]]), records.BAD_VIDEO, SUB, ("b",)),
    "empty subtitle": Damage(
        subtitle("b", input_ids=[[], [1]]), subtitles.EMPTY, SUB, ("b",), severity="warning"
    ),
    "too many texts": Damage(
        subtitle("b", input_ids=[[1], [2], [3]]), subtitles.TEXTS, SUB, ("b",), severity="warning"
    ),
    "frame that cannot be": Damage(
        subtitle("b", unique_sub2frames=[[0, [0]], [1, [5]]]),
        subtitles.NO_FRAMES,
        SUB,
        ("b",),
        severity="warning",
    ),
    "late subtitle": Damage(
        subtitle("b", sub=[{"start": 1, "end": 2}, {"start": 10, "end": 11}]),
        subtitles.BEYOND,
        SUB,
        ("b",),
        severity="warning",
    ),
    "malformed subtitle": Damage(subtitle("b", sub2frames=3), records.BAD_VIDEO, SUB, ("b",)),
    # tokens
    "other tokenizer": Damage(
        meta("train", CLS=7),
        tokens.OTHER_TOKENIZER,
        TRAIN,
        ("CLS",),
        quick=True,
        severity="warning",
    ),
    "other range": Damage(
        meta("val", v_range=[4, 40]),
        tokens.OTHER_TOKENIZER,
        VAL,
        ("v_range",),
        quick=True,
        severity="warning",
    ),
    "other name": Damage(
        meta("val", toker="their/own"),
        tokens.OTHER_NAME,
        VAL,
        ("own",),
        severity="warning",
        quick=True,
    ),
    "no special id": Damage(lose_special_id, tokens.NO_SPECIAL, TRAIN, ("CLS",), quick=True),
    "special ids outside": Damage(
        meta("train", MASK=50), tokens.SPECIAL_OUTSIDE, TRAIN, ("MASK",), quick=True
    ),
    # queries
    "query ids": Damage(text("val", "c0", input_ids=[50, 1]), queries.OUTSIDE, VAL, ("c0",)),
    "answer ids": Damage(
        text("train", "a0", input_ids=[[1], [2, 99], [3]]), queries.OUTSIDE, TRAIN, ("a0",), "tvqa"
    ),
    "empty query": Damage(
        side("train", "id2len.json", "a0", 0),
        queries.EMPTY,
        TRAIN,
        ("a0",),
        severity="warning",
        quick=True,
    ),
    "other length": Damage(
        side("train", "id2len.json", "a0", 9), queries.LENGTH, TRAIN, ("a0",), severity="warning"
    ),
    "no length": Damage(
        side("train", "id2len.json", "a0", None), CANNOT_OPEN, TRAIN, ("",), quick=True
    ),
    "no query": Damage(lose_query, queries.LOST, TRAIN, ("a1",)),
    "fewer queries": Damage(lose_query, queries.COUNT, TRAIN, ("",), quick=True),
    "no field": Damage(lose_field, records.BAD_TEXT, TRAIN, ("a1",)),
    "no video": Damage(lose_video_of_query, queries.NO_VIDEO, TRAIN, ("a1",), quick=True),
    "other video": Damage(text("train", "a0", vid="b"), queries.OTHER_VIDEO, TRAIN, ("a0",)),
    "other name of record": Damage(text("train", "a0", qid="x"), queries.NAME, TRAIN, ("a0",)),
    "stray id": Damage(
        side("train", "query2video.json", "x", "a"),
        queries.STRAY,
        TRAIN,
        ("x",),
        severity="warning",
        quick=True,
    ),
    "no moment": Damage(
        text("train", "a0", target=None), queries.NO_TARGET, TRAIN, ("a0",), severity="warning"
    ),
    "reversed moment": Damage(
        text("train", "a0", target=[3.0, 1.0]), queries.CLAMPED, TRAIN, ("a0",), severity="warning"
    ),
    "negative moment": Damage(
        text("train", "a0", target=[-3.0, 1.0]), queries.CLAMPED, TRAIN, ("a0",), severity="warning"
    ),
    "no moment at all": Damage(text("train", "a0", target=[1.0]), records.BAD_TEXT, TRAIN, ("a0",)),
    "no clip at all": Damage(
        caption("a0", ts=[1.0, None]), records.BAD_TEXT, TRAIN, ("a0",), "tvc"
    ),
    "subtitle that cannot be": Damage(
        subtitle("b", unique_sub2frames=[[0, [0]], [2, [4]]]), records.BAD_VIDEO, SUB, ("b",)
    ),
    "moment beyond": Damage(
        text("train", "a0", target=[2.0, 14.5]), queries.BEYOND, TRAIN, ("a0",), severity="warning"
    ),
    "late moment": Damage(
        text("train", "a0", target=[12.0, 13.0]), queries.BEYOND, TRAIN, ("a0",), severity="warning"
    ),
    "all too long": Damage(options(max_txt_len=1), queries.TOO_LONG, TRAIN, ("",), quick=True),
    "nothing to search": Damage(
        no_pool, videos.NONE_WANTED, "test.db/query2video.json (videos to search for test)", ("",)
    ),
    "pool without a video": Damage(
        search_another,
        videos.NONE_SEARCHED,
        "vid2dur_idx.json (videos to search for val)",
        ("c0", "c1"),
        quick=True,
    ),
    "one query outside the pool": Damage(
        ask_another,
        videos.NOT_SEARCHED,
        "vid2dur_idx.json (videos to search for val)",
        ("c1",),
        severity="warning",
        quick=True,
    ),
    "one index for two videos": Damage(
        index("val", {"c": [8.0, 5], "d": [6.0, 5]}),
        videos.BAD_INDEX,
        "vid2dur_idx.json",
        ("val",),
        quick=True,
    ),
    "no index": Damage(
        index("val", {"c": [8.0]}), videos.BAD_INDEX, "vid2dur_idx.json", ("val",), quick=True
    ),
    "a list of videos": Damage(
        index("train", ["a", "b"]), videos.BAD_INDEX, "vid2dur_idx.json", ("train",), quick=True
    ),
    "no index of a split that nobody reads": Damage(
        index("other", {"c": 8.0}),
        videos.BAD_INDEX,
        "vid2dur_idx.json",
        ("other",),
        severity="warning",
        quick=True,
    ),
    "no index where nobody reads any": Damage(
        index("val", {"c": 8.0}),
        videos.BAD_INDEX,
        "vid2dur_idx.json",
        ("val",),
        "msrvtt_video_sub",
        "warning",
        quick=True,
    ),
    "one index in two splits": Damage(
        index("val", {"c": [8.0, ord("a")]}),
        videos.SHARED_INDEX,
        "vid2dur_idx.json",
        (str(ord("a")),),
        severity="warning",
        quick=True,
    ),
    "an id as number and as text": Damage(repeat_line, queries.TWICE, VAL, ("1",)),
    "a name as number and as text": Damage(
        list_twice, videos.LISTED_TWICE, "vids.json", ("7",), "pretrain", "warning", quick=True
    ),
    "other lines": Damage(lose_line, queries.LINES, VAL, ("c1", "x")),
    # questions and statements
    "wrong answer": Damage(text("train", "a0", target=2), queries.TARGET, TRAIN, ("a0",), "tvqa"),
    "no answer": Damage(text("train", "a0", target=None), queries.TARGET, TRAIN, ("a0",), "tvqa"),
    "more answers": Damage(
        side("train", "id2len.json", "a0", [1] * 4),
        queries.ANSWERS,
        TRAIN,
        ("a0",),
        "tvqa",
        quick=True,
    ),
    "no span": Damage(
        text("train", "a0", ts="NaN-NaN"), queries.NO_SPAN, TRAIN, ("a0",), "tvqa", "warning"
    ),
    "reversed span": Damage(
        text("train", "a0", ts="5.0-3.0"),
        queries.CLAMPED,
        TRAIN,
        ("a0",),
        "tvqa",
        severity="warning",
    ),
    "wrong label": Damage(
        text("train", "a-0", target=2), queries.TARGET, TRAIN, ("a-0",), "violin"
    ),
    "partners apart": Damage(
        side("train", "query2video.json", "a-0", "b"),
        queries.PAIRS,
        TRAIN,
        ("a-0", "a-1"),
        "violin",
        quick=True,
        severity="warning",
    ),
    # captions
    "no caption": Damage(lose_caption, captions.LOST, TRAIN, ("a1",), "tvc"),
    "fewer captions": Damage(lose_caption, captions.COUNT, TRAIN, ("",), "tvc", quick=True),
    "no clip": Damage(lose_clip, captions.CLIP_LOST, TRAIN, ("a0", "a1"), "tvc", "warning"),
    "caption ids": Damage(caption("a0", input_ids=[50]), captions.OUTSIDE, TRAIN, ("a0",), "tvc"),
    "empty caption": Damage(
        caption("a0", input_ids=[]), captions.EMPTY, TRAIN, ("a0",), "tvc", "warning"
    ),
    "caption's video": Damage(
        caption("a0", vid_name="b"), captions.OTHER_VIDEO, TRAIN, ("a0",), "tvc"
    ),
    "reversed clip": Damage(
        caption("a0", ts=[3.0, 1.0]), queries.CLAMPED, TRAIN, ("a0",), "tvc", severity="warning"
    ),
    "clip beyond": Damage(
        caption("a0", ts=[3.0, 99.0]), captions.BEYOND, TRAIN, ("a0",), "tvc", "warning"
    ),
    "clip after the cut": Damage(
        caption("a0", ts=[13.0, 13.5]), captions.AFTER_CUT, TRAIN, ("a0",), "tvc", "warning"
    ),
    "an event too many": Damage(
        side("train", "id2len.json", "a0", [1, 2, 3]),
        *(queries.ANSWERS, TRAIN, ("a0",), "vlep"),
        quick=True,
    ),
    "events longer than allowed": Damage(
        lambda world: world.options.update(max_txt_len=1),
        *(queries.TOO_LONG, TRAIN, ("",), "vlep"),
        quick=True,
    ),
    "an event that is none": Damage(
        text("train", "a0", target=2), queries.TARGET, TRAIN, ("a0",), "vlep"
    ),
    "what came before the events": Damage(
        text("val", "c0", ts=[1.0, 99.0]), queries.BEYOND, VAL, ("c0",), "vlep", "warning"
    ),
    "a split without indices": Damage(
        lambda world: world.subtitles.sides["vid2dur_idx.json"].pop("val"),
        *(videos.NO_SPLIT, "vid2dur_idx.json", ("val",), "yc2r"),
        quick=True,
    ),
    "a query of a video without features": Damage(
        text("train", "a0", vid="z"), queries.OTHER_VIDEO, TRAIN, ("a0",), "yc2r"
    ),
    "a query to learn captions from": Damage(
        text("train", "b1", input_ids=[20, 99]), queries.OUTSIDE, TRAIN, ("b1",), "yc2c"
    ),
    "a clip to caption without an id": Damage(
        lambda world: world.clip.pop("clip_id"),
        *(CANNOT_OPEN, "ref.jsonl", ("",), "yc2c"),
        quick=True,
    ),
}


@pytest.mark.parametrize("task", ALL_TASKS)
@pytest.mark.parametrize("compressed", [False, True])
def test_sound_databases_pass(task, compressed, tmp_path, capsys):
    world = World(tmp_path, task, compressed=compressed, options={"compressed_db": compressed})
    parts = {"slowfast": 1, "resnet": WIDTH - 1}
    world.feature_meta = {"interval": INTERVAL, "width": WIDTH, "dtype": "float32", "parts": parts}
    code, rows = check(world.write())
    # Nothing is even odd, but that captioning has no test split to ask for its video.
    assert {row["check"] for row in wrong(rows)} <= {"spare videos"}
    assert code == 0
    databases = {Path(row["database"]).name for row in rows}
    assert {SUB, f"{VIDEO}_compressed" if compressed else VIDEO} < databases
    assert f"{len(rows) - len(wrong(rows))} check(s) passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_found_and_rated(name, tmp_path, capsys):
    damage = DAMAGES[name]
    world = World(tmp_path, damage.task)
    damage.spoil(world)
    config = world.write()
    for words in ([], ["--quick"]) if damage.quick else ([],):
        code, rows = check(config, *words)
        (row,) = [
            row
            for row in rows
            if row["problem"].startswith(damage.check.title)
            and row["database"].endswith(damage.where)
            and row["severity"] == damage.severity
        ]
        assert tuple(case["id"] for case in row["cases"]) == damage.ids
        assert code == (1 if any(row["severity"] == "error" for row in rows) else 0)
        if damage.severity == "error":
            assert code == 1
        printed = " ".join(capsys.readouterr().out.split())
        assert all(id_ in printed for id_ in damage.ids)


class MovieOptions(AnswerOptions):
    """Question answering on other videos"""

    KIND = Kind.QUESTIONS

    task: Literal["movies"] = option("movies", help="data set")


def test_a_new_task_says_what_its_databases_hold(tmp_path, monkeypatch):
    monkeypatch.setitem(check_data.SCRIPTS, "train_movies", MovieOptions)
    world = World(tmp_path / "sound", "tvqa", options={"task": "movies"})
    assert check(world.write()) == (0, ANY)
    world = World(tmp_path / "damaged", "tvqa", options={"task": "movies"})
    text("train", "a0", target=2)(world)  # there are answers 0 and 1
    code, rows = check(world.write())
    (row,) = [row for row in rows if row["severity"] == "error"]
    assert (code, [case["id"] for case in row["cases"]]) == (1, ["a0"])
    assert row["problem"].startswith(queries.TARGET.title)


def test_features_in_safetensors_files(tmp_path):
    world = World(tmp_path)
    config = world.write()
    shutil.rmtree(tmp_path / "video")
    with FeatureDbWriter(tmp_path / "video", interval=INTERVAL, format_="safetensors") as db:
        for vid, array in world.features.items():
            db.put(vid, array[:, :3] if vid == "b" else array)
    code, rows = check(config)
    (row,) = wrong(rows)
    assert (code, row["check"], row["database"]) == (1, "width", f"{db.path}")


def test_what_nobody_reads_is_a_warning(tmp_path):
    world = World(tmp_path)
    world.features["spare"] = not_finite()
    code, rows = check(world.write())
    odd = {row["check"]: [case["id"] for case in row["cases"]] for row in wrong(rows)}
    assert odd == {"finite values": ["spare"], "spare videos": ["spare"]}
    assert code == 0


@pytest.mark.parametrize("npz", [False, True])
def test_records_of_the_other_format(npz, tmp_path):
    world = World(tmp_path, compressed=npz)
    config = world.write()
    names = [f"{VIDEO}_compressed", VIDEO]
    folders = [tmp_path / "video" / name for name in (names if npz else names[::-1])]
    folders[0].rename(folders[1])
    flag = "--no_compressed_db" if npz else "--compressed_db"
    for words in ([flag], [flag, "--quick"]):
        code, rows = check(config, *words)
        (row,) = wrong(rows)
        assert (code, row["check"], row["database"]) == (1, "compression", str(folders[1]))
        details = f"{'npz' if npz else 'no npz'}, compressed_db is {not npz}".lower()
        assert {case["detail"] for case in row["cases"]} == {details}


def test_only_the_other_variant_is_there(tmp_path):
    config = World(tmp_path).write()
    code, rows = check(config, "--compressed_db")
    (row,) = wrong(rows)
    assert code == 1 and row["check"] == "opens"
    assert f"holds {VIDEO})" in row["cases"][0]["detail"]


@pytest.mark.parametrize("lost", [SUB, TRAIN, VAL, TEST, "video"])
def test_a_missing_database_is_a_row_and_the_others_are_checked(lost, tmp_path):
    world = World(tmp_path)
    text("val", "c0", input_ids=[50])(world)
    config = world.write()
    shutil.rmtree(tmp_path / lost)
    code, rows = check(config)
    missing = {row["database"] for row in wrong(rows) if row["problem"] == CANNOT_OPEN.title}
    where = tmp_path / lost / VIDEO if lost == "video" else tmp_path / lost
    assert code == 1 and missing == {str(where)}
    assert lost == VAL or queries.OUTSIDE.title in {row["problem"] for row in wrong(rows)}


@pytest.mark.parametrize("name", ["id2len.json", "data.mdb", "meta.json", "query2video.json"])
def test_a_truncated_file_is_a_row(name, tmp_path):
    config = World(tmp_path).write()
    path = tmp_path / TRAIN / name
    path.write_bytes(path.read_bytes()[:7])
    code, rows = check(config)
    (row,) = [row for row in wrong(rows) if row["check"] == "opens"]
    assert code == 1 and row["database"] == str(tmp_path / TRAIN)


def test_damaged_bytes_are_rows(tmp_path):
    world = World(tmp_path)
    config = world.write()
    with TextDbWriter(tmp_path / TRAIN, force=True) as db:
        for id_, record in world.queries["train"].records.items():
            db.put(id_, record) if id_ != "a1" else db.put_value(id_, b"no frame")
        for name, value in world.queries["train"].sides.items():
            db.write_side(name, value)
        (db.folder / "query_data.jsonl").write_text("{}")
    with FeatureDbWriter(tmp_path / "video", interval=INTERVAL, force=True) as db:
        for vid, array in world.features.items():
            db.put(vid, array) if vid != "b" else db.put_encoded(vid, 5, b"no map")
    code, rows = check(config)
    found = {(row["problem"], row["cases"][0]["id"]) for row in wrong(rows)}
    assert code == 1
    assert found == {(records.BAD_TEXT.title, "a1"), (features.DAMAGED.title, "b")}


def test_shards(tmp_path):
    world = World(tmp_path, "pretrain")
    world.write()
    with FeatureDbWriter(tmp_path / "more", interval=INTERVAL) as db:
        db.put("a", np.ones((6, 3), np.float32))
        db.put("e", np.ones((6, 3), np.float32))
    (target,) = world.config()["targets"]
    del target["vfeat_db"]
    target["vfeat_shards"] = [str(tmp_path / "video"), str(tmp_path / "more")]
    write_json(tmp_path / "first.json", ["a", "b", "c", "d"])
    write_json(tmp_path / "second.json", ["b"])
    lists = [str(tmp_path / "first.json"), str(tmp_path / "second.json")]
    target["splits"][0]["train_idx"] = lists
    world.options = {"targets": [target]}
    write_json(tmp_path / "config.json", world.config())
    for words in ([], ["--quick"]):
        code, rows = check(tmp_path / "config.json", *words)
        found = {row["problem"]: [case["id"] for case in row["cases"]] for row in wrong(rows)}
        assert code == 1
        assert found[features.TWO_SHARDS.title] == ["a"]
        assert found[videos.NO_FEATURES.title] == ["b"]  # not in the list's own shard
        assert features.OTHER_WIDTH.title in found


def test_workers_find_what_one_process_finds(tmp_path):
    world = World(tmp_path)
    for number in range(600):
        vid, record = f"v{number}", world.subtitles.records["a"]
        world.subtitles.records[vid] = record | {"vid_name": vid, "duration": 6}
        world.subtitles.sides["vid2len.json"][vid] = 6
        world.features[vid] = world.features["a"][: 5 if number % 100 == 0 else 6]
        world.counts[vid] = 6
    config = world.write()
    write_json(tmp_path / VAL / "query2video.json", {f"v{n}": f"v{n}" for n in range(600)})
    one, several = (check(config, "--workers", number)[1] for number in ("1", "3"))
    assert one == several
    (row,) = [row for row in wrong(one) if row["problem"] == features.ROWS.title]
    found = {case["id"] for case in row["cases"]}
    assert found == {f"v{number}" for number in range(0, 600, 100)}


# --- the command -----------------------------------------------------------------------------


RECIPES = sorted((REPOSITORY / "config").rglob("*-*.json"))


@pytest.mark.parametrize("name", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_config_tells_the_script(name):
    script = check_data.script_of(read_json(name))
    assert (REPOSITORY / f"{script}.py").is_file()
    parse_options(check_data.SCRIPTS[script], ["--config", str(name)])
    pretraining = "pretrain" in name.stem
    assert (script == "pretrain") == pretraining


def test_a_config_of_another_task_may_have_targets_too():
    assert check_data.script_of({"targets": [], "task": "tvqa"}) == "train_videoQA"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "--script"),
        (["--script", "train_vcrm"], "train_vcmr"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--config", "config/train-tvr-8gpu.json", "--vfeat_dbb", "x"], "--vfeat_db"),
        (["--config", "config/train-tvr-8gpu.json", "--model_config", "x.json"], "x.json"),
    ],
)
def test_a_mistake_in_the_command_is_exit_code_2(words, hint, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: check_data.main(words))
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and hint in line


def test_an_unknown_objective_is_a_mistake_in_the_command(tmp_path):
    config = World(tmp_path, "pretrain").write()
    options = read_json(config)
    options["targets"][0]["splits"][0]["tasks"] = ["vsm", "mln"]
    write_json(config, options)
    with pytest.raises(UserError, match=r"unknown objective 'mln'; did you mean mlm\?"):
        check(config)


# --- at the start of training ----------------------------------------------------------------


def test_training_stops_with_one_line(tmp_path, capsys):
    world = World(tmp_path)
    without_features(world)
    meta("train", MASK=50)(world)
    config = str(world.write())
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda: train_vcmr.main(["--config", config]))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    for part in ("found 2 error(s)", "first: b", "MASK (50, vocab_size 50)", "scripts/check_data"):
        assert part in line


def test_the_check_can_be_skipped(tmp_path):
    world = World(tmp_path)
    meta("train", MASK=50)(world)
    write_json(world.write(), world.config() | {"num_train_steps": 1, "n_workers": 0})
    words = ["--config", str(tmp_path / "config.json"), "--train_batch_size", "2"]
    with pytest.raises(UserError, match="special token ids"):
        train_vcmr.main(words)
    assert "loss/total" in train_vcmr.main([*words, "--skip_data_check"])


def test_training_says_what_is_odd(tmp_path, caplog):
    world = World(tmp_path)
    match_other_frames("b", 6)(world)
    run_options = parse_options(VcmrOptions, ["--config", str(world.write())])
    model = ModelConfig.from_json(tmp_path / "model.json")
    caplog.clear()
    with caplog.at_level("INFO", "hero"):
        check_before_training(run_options, model)
    warning, summary = [record.getMessage() for record in caplog.records]
    assert "first: b (6, features have 5)" in warning
    assert "0 error(s), 1 warning(s)" in summary


def odd_data(world: World) -> None:
    """Everything that differs between databases, and yet can be computed."""
    match_other_frames("a", 40)(world)
    match_other_frames("b", 2)(world)
    other_frame_length(world)
    other_extraction(world)
    counts(a=3, c=40)(world)
    text("train", "a0", target=[-3.0, 1.0])(world)
    text("train", "b0", target=[9.0, 1.0])(world)
    subtitle("b", unique_sub2frames=[[0, [3]], [1, [0, 77]]])(world)
    meta("train", v_range=[4, 40])(world)


def test_odd_data_trains_and_is_named(tmp_path, caplog):
    world = World(tmp_path)
    odd_data(world)
    config = world.write()
    write_json(config, world.config() | {"num_train_steps": 2, "n_workers": 0, "valid_steps": 2})
    metrics = train_vcmr.main(["--config", str(config), "--train_batch_size", "2"])
    assert np.isfinite(metrics["loss/total"])
    said = caplog.text
    for part in (
        "first: a (40, features have 3); b (2, features have 5); c (4, features have 40)): sub",
        "frame_length (1.5, vfeat_interval 2.0)",
        "interval of resnet (1.5, not 2.0)",
        "a0 [-3, 1], b0 [9, 1]",
    ):
        assert part in said
    code, rows = check(config)
    assert code == 0 and {row["severity"] for row in wrong(rows)} == {"warning"}
    found = {row["problem"]: [case["id"] for case in row["cases"]] for row in wrong(rows)}
    assert found[features.ROWS.title] == ["a", "c"]
    assert found[subtitles.FRAMES.title] == ["a", "b", "c"]
    assert found[queries.CLAMPED.title] == ["a0", "b0"]
    assert found[subtitles.NO_FRAMES.title] == ["b"]


def test_odd_data_pre_trains(tmp_path):
    world = World(tmp_path, "pretrain")
    for spoil in (match_other_frames("a", 40), match_other_frames("b", 2), other_frame_length):
        spoil(world)
    counts(a=3, c=40)(world)
    config = world.write()
    options = {"num_train_steps": 2, "n_workers": 0, "valid_steps": 2, "train_batch_size": 2}
    write_json(config, world.config() | options)
    metrics = pretrain.main(["--config", str(config)])
    assert metrics and all(np.isfinite(value) for value in metrics.values())


def test_training_checks_the_test_split_that_it_evaluates(tmp_path):
    config = World(tmp_path).write()
    shutil.rmtree(tmp_path / TEST)
    run_options = parse_options(VcmrOptions, ["--config", str(config)])
    with pytest.raises(UserError, match=f"{TEST} is no database"):
        check_before_training(run_options, ModelConfig.from_json(tmp_path / "model.json"))


@launched
def test_all_ranks_stop(backend, tmp_path):
    world = World(tmp_path)
    without_features(world)
    command = [*launch_command(backend, 2), "train_vcmr.py", "--config", str(world.write())]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "first: b" in done.stdout + done.stderr


# --- leaving out what is wrong ---------------------------------------------------------------


def drop(folder: Path, *names: str) -> Path:
    """Copies without what is wrong; returns a config that names them."""
    sources = [str(folder / name) for name in names]
    words = ["--list", str(folder / "bad.json"), "--output", str(folder / "clean"), *sources]
    drop_ids.main(words)
    config = (folder / "config.json").read_text()
    for name in names:
        config = config.replace(str(folder / name), str(folder / "clean" / name))
    (folder / "clean.json").write_text(config)
    return folder / "clean.json"


def test_queries_and_videos_are_left_out(tmp_path, capsys):
    world = World(tmp_path)
    frames("b", not_finite())(world)
    text("train", "a0", target=[3.0])(world)
    text("val", "c1", input_ids=[50, 1])(world)
    config = world.write()
    bad = tmp_path / "bad.json"
    assert check(config, "--fix-list", str(bad))[0] == 1
    assert read_json(bad) == {"videos": ["b"], "records": {TRAIN: ["a0"], VAL: ["c1"]}}
    code, rows = check(drop(tmp_path, SUB, TRAIN, VAL))
    assert code == 0
    assert {row["check"] for row in wrong(rows)} == {"finite values", "spare videos"}
    left = TextDb(tmp_path / "clean" / TRAIN)
    assert list(left.keys()) == list(left.side("id2len.json")) == ["a1"]
    assert left.side("query2video.json") == {"a1": "a"} and left.meta == META
    (line,) = (tmp_path / "clean" / TRAIN / "query_data.jsonl").read_text().splitlines()
    assert json.loads(line)["desc_id"] == "a1"
    kept = TextDb(tmp_path / "clean" / SUB)
    assert list(kept.keys()) == list(kept.side("vid2len.json")) == ["a", "c", "d"]
    assert list(kept.side("vid2dur_idx.json")["train"]) == ["a"]
    said = capsys.readouterr().out
    assert f"{SUB}: 3 of 4 left; vid2dur_idx.json: 3 of 4 videos left\n" in said
    assert f"{VAL}: 1 of 2 left\n" in said
    assert "a0" in TextDb(tmp_path / TRAIN)  # the original is as it was


def test_videos_that_are_only_searched_are_left_out(tmp_path, capsys, caplog):
    """They have no record in the database that lists them."""
    world = World(tmp_path)
    world.queries["test"].sides["video_ids.json"] = ["d", "lost"]
    del world.subtitles.records["d"]
    world.write()
    write_json(tmp_path / "bad.json", {"videos": ["d"]})
    drop(tmp_path, SUB)
    assert f"{SUB}: 3 of 3 left; vid2dur_idx.json: 3 of 4 videos left\n" in capsys.readouterr().out
    assert not caplog.records
    drop(tmp_path, "test.db")
    assert "test.db: 0 of 2 left; video_ids.json: 1 of 2 videos left\n" in capsys.readouterr().out


def test_captions_and_clips_are_left_out(tmp_path):
    world = World(tmp_path, "tvc")
    without_features(world)
    caption("a0", input_ids=[50])(world)
    config = world.write()
    assert check(config, "--fix-list", str(tmp_path / "bad.json"))[0] == 1
    code, _ = check(drop(tmp_path, SUB, TRAIN, VAL, "ref.jsonl"))
    assert code == 0
    clean = tmp_path / "clean" / TRAIN
    assert TextDb(clean / "cap.db").side("vid2caps.json") == {"a": ["a1"]}
    clips = TextDb(clean / "clip.db")
    assert list(clips.keys()) == ["ac"] and clips.side("vid2clips.json") == {"a": ["ac"]}
    assert [one["id"] for one in clips["ac"]["captions"]] == ["a1"]
    parse_options(TvcOptions, ["--config", str(tmp_path / "clean.json")])


def test_lists_of_videos_lose_names(tmp_path):
    world = World(tmp_path, "pretrain")
    without_features(world)
    config = world.write()
    assert check(config, "--fix-list", str(tmp_path / "bad.json"))[0] == 1
    assert check(drop(tmp_path, "vids.json", SUB))[0] == 0
    assert read_json(tmp_path / "clean" / "vids.json") == ["a", "c", "d"]


def test_the_documented_commands(tmp_path, monkeypatch):
    world = World(tmp_path)
    text("train", "a0", target=[3.0])(world)
    paths = {"config/train-tvr-8gpu.json": world.write(), "/video/tv": tmp_path / "video"}
    paths = {name: str(path) for name, path in paths.items()}
    paths |= {"txt_db/tvr_train.db": TRAIN, "txt_db/tvr_val.db": VAL, "txt_db/tv_subtitles.db": SUB}
    monkeypatch.chdir(tmp_path)
    check_first, check_all, drop_all = documented_commands("Checking data")
    for _, _, *words in (check_first, check_all):
        with pytest.raises(SystemExit) as stopped:
            check_data.main([paths.get(word, word) for word in words])
        assert stopped.value.code == 1
    assert read_json(tmp_path / "bad.json")["records"] == {TRAIN: ["a0"]}
    assert (tmp_path / "checked.json").exists()
    drop_ids.main([paths.get(word, word) for word in drop_all[2:]])
    assert "a0" not in TextDb(tmp_path / "clean_txt_db" / TRAIN)


def test_what_cannot_be_left_out_is_said(tmp_path, capsys):
    world = World(tmp_path)
    lose_special_id(world)
    code, _ = check(world.write(), "--fix-list", str(tmp_path / "bad.json"))
    assert code == 1 and read_json(tmp_path / "bad.json") == {"videos": [], "records": {}}
    said = [line for line in capsys.readouterr().out.splitlines() if "does not fix" in line]
    assert len(said) == 1 and "lacks special token ids" in said[0]


def test_drop_ids_refuses(tmp_path):
    world = World(tmp_path)
    world.write()
    (tmp_path / "notes.txt").write_text("a")
    drops = BrokenRecords({"a"})
    with pytest.raises(UserError, match="own copy"):
        drop_from(tmp_path / TRAIN, tmp_path / TRAIN, drops)
    with pytest.raises(UserError, match="neither a database"):
        drop_from(tmp_path / "notes.txt", tmp_path / "other.txt", drops)
    drop_from(tmp_path / TRAIN, tmp_path / "x" / TRAIN, drops)
    drop_from(tmp_path / "vids.json", tmp_path / "x" / "vids.json", drops)
    for name in (TRAIN, "vids.json"):
        with pytest.raises(UserError, match="--force"):
            drop_from(tmp_path / name, tmp_path / "x" / name, drops)
        drop_from(tmp_path / name, tmp_path / "x" / name, drops, force=True)
    for wrong_list in ([], {"videos": "a"}, {"records": {}}):
        write_json(tmp_path / "list.json", wrong_list)
        with pytest.raises(UserError, match=r"list\.json"):
            BrokenRecords.load(tmp_path / "list.json")
