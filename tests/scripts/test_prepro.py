"""Preparation scripts: the recorded databases from their raw files, mistakes, restarts."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
import pytest

from data.prepare.feature_files import FeaturePaths, read_paths
from data.stores.lmdb_io import FeatureDb, TextDb
from data.tokenize import FINGERPRINT
from scripts import (
    collect_video_feature_paths,
    convert_annotations,
    convert_videodb,
    prepro_query,
    prepro_sub,
    prepro_tvc,
)
from tests.support import REPOSITORY
from utils.errors import UserError
from utils.files import read_json, write_json, write_jsonl

REAL = os.environ.get("HERO_REAL")
# How a database was made: paths and the task's name, which say nothing about its contents.
ORIGIN = ("annotation", "output", "toker", "tokenizer", "task", "vid2nframe", "subtitles")


@pytest.fixture
def toker(world: Path) -> str:
    """The recorded tokenizer's folder."""
    return str(world / "toker")


def assert_same_database(
    made: Path,
    recorded: Path,
    token_ids: Mapping[str, list] | None = None,
    own: Container[str] = (),
) -> None:
    """The same records (fields in the same order), side files and meta.json.

    If ``token_ids`` are given, the tokens, and the lengths that follow from them, are those. The
    made meta.json may have entries of its ``own``.
    """
    new, old = TextDb(made), TextDb(recorded)
    assert list(new.keys()) == list(old.keys())
    wanted = {id_: retokenized(id_, old[id_], token_ids) for id_ in old.keys()}  # noqa: SIM118
    for id_, record in wanted.items():
        assert json.dumps(new[id_]) == json.dumps(record)
    ignored = {"data.mdb", "meta.json", "sub_info.json"}  # sub_info.json: statistics, never read
    sides = {path.name for path in old.path.iterdir()} - ignored
    assert {path.name for path in new.path.iterdir()} - ignored == sides
    for name in sides:
        if name == "query_data.jsonl":
            assert (new.path / name).read_bytes() == (old.path / name).read_bytes()
        else:
            lengths = side_of_lengths(name, old.side(name), wanted)
            assert (new.path / name).read_text() == json.dumps(lengths)
    # Recorded databases have no fingerprint.
    ours = [key for key in new.meta if key not in own]
    assert ours == [*old.meta] + [FINGERPRINT] * (FINGERPRINT not in old.meta)
    assert {k: v for k, v in new.meta.items() if k not in (*ORIGIN, FINGERPRINT, *own)} == {
        k: v for k, v in old.meta.items() if k not in (*ORIGIN, FINGERPRINT)
    }


def retokenized(id_: str, record: dict, token_ids: Mapping[str, list] | None) -> dict:
    """The record with other tokens."""
    if token_ids is None:
        return record
    if "captions" in record:  # a clip
        captions = [{**cap, "input_ids": token_ids[str(cap["id"])]} for cap in record["captions"]]
        return {**record, "captions": captions}
    record = {**record, "input_ids": token_ids[id_]}
    if "sub2frames" in record:
        pairs = zip(record["input_ids"], record["sub2frames"], strict=True)
        longest = max((len(tokens) + len(frames) for tokens, (_, frames) in pairs), default=0)
        record["max_mtached_sub_len"] = longest
    return record


def side_of_lengths(name: str, side: dict, records: dict[str, dict]) -> dict:
    """The side file; if it holds lengths, those of the tokens of ``records``."""
    if name == "vid2max_frame_sub_len.json":
        return {vid: records[vid]["max_mtached_sub_len"] for vid in side}
    if name != "id2len.json":
        return side
    ids = {id_: records[id_]["input_ids"] for id_ in side}
    return {
        id_: [len(part) for part in tokens] if isinstance(side[id_], list) else len(tokens)
        for id_, tokens in ids.items()
    }


@pytest.fixture
def token_ids(expected: Path) -> dict[str, dict]:
    """{database: {id: tokens}} as a preparation script must write them."""
    return read_json(expected / "token_ids.json")


def prepare_queries(annotation: Path, output: Path, task: str, toker: str, *more: str) -> TextDb:
    """Run prepro_query.py."""
    arguments = ["--annotation", annotation, "--output", output, "--task", task, "--toker", toker]
    prepro_query.main([*map(str, arguments), *more])
    return TextDb(output)


# --------------------------------------------------------------------------------------------------
# The recorded databases
# --------------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_recorded_query_databases(world, toker, token_ids, tmp_path):
    names = {path.stem for path in (world / "ann").glob("*.jsonl")} - {"tv_subtitles"}
    names = sorted(name for name in names if not name.startswith("tvc_"))
    assert {name.partition("_")[0] for name in names} >= {"tvr", "tvqa", "violin", "msrvtt"}
    for name in names:
        task, _, split = name.partition("_")
        recorded = world / "txt_db" / f"{name}.db"
        videos = ["--vid2dur_idx", str(world / "ann" / "vid2dur_idx.json"), "--split", split]
        more = videos if (recorded / "video_ids.json").exists() else []
        made = prepare_queries(world / "ann" / f"{name}.jsonl", tmp_path / name, task, toker, *more)
        assert_same_database(made.path, recorded, token_ids[recorded.name])
        assert made.meta["task"] == task and made.meta["toker"] == toker


@pytest.mark.golden
@pytest.mark.parametrize("split", ["train", "val"])
def test_recorded_caption_databases(world, toker, token_ids, tmp_path, split):
    arguments = ["--annotation", str(world / "ann" / f"tvc_{split}.jsonl"), "--toker", toker]
    arguments += ["--subtitles", str(world / "ann" / "tv_subtitles.jsonl")]
    prepro_tvc.main([*arguments, "--output", str(tmp_path / "tvc.db")])
    for part in ("cap.db", "clip.db"):
        recorded = world / "txt_db" / f"tvc_{split}.db"
        assert_same_database(tmp_path / "tvc.db" / part, recorded / part, token_ids[recorded.name])


def subtitle_arguments(world: Path, toker: str, output: Path) -> list[str]:
    """The command line that made the recorded subtitle database."""
    ann = world / "ann"
    arguments = ["--annotation", ann / "tv_subtitles.jsonl", "--output", output, "--task", "tv"]
    arguments += ["--vid2nframe", ann / "tv_vid2nframe.json", "--frame_length", "1.5"]
    arguments += ["--vid2dur_idx", ann / "vid2dur_idx.json", "--toker", toker]
    return list(map(str, arguments))


@pytest.mark.golden
def test_recorded_subtitle_database(world, toker, token_ids, tmp_path):
    prepro_sub.main(subtitle_arguments(world, toker, tmp_path / "subs.db"))
    recorded = world / "txt_db" / "tv_subtitles.db"
    assert_same_database(tmp_path / "subs.db", recorded, token_ids[recorded.name])


@pytest.mark.golden
def test_recorded_feature_databases(world, tmp_path):
    collect(world / "feat", tmp_path)
    for compressed in (False, True):
        convert(tmp_path, *(["--compress"] if compressed else []))
        made = FeatureDb(tmp_path / "tv", compressed=compressed)
        recorded = FeatureDb(world / "video_db" / "tv", compressed=compressed)
        assert list(made.keys()) == list(recorded.keys())
        assert made.id2nframe == recorded.id2nframe
        assert made.stored_dtype == recorded.stored_dtype == np.float32
        for vid in recorded.id2nframe:
            np.testing.assert_array_equal(made[vid], recorded[vid])


@pytest.mark.slow
@pytest.mark.golden
def test_all_databases_of_a_folder(world, toker, token_ids, tmp_path):
    (tmp_path / "ann").mkdir()
    names = ["tv_subtitles.jsonl", "tv_vid2nframe.json", "vid2dur_idx.json", "tvc_val.jsonl"]
    for name in (*names, "tvqa_val.jsonl", "tvr_test_public.jsonl"):
        shutil.copy(world / "ann" / name, tmp_path / "ann")
    (tmp_path / "ann" / "how2R_val_release.csv").write_text("v,[60:120],[61.5:63],A dog\n")
    environment = {**os.environ, "HERO_TOKER": toker, "PYTHON": sys.executable}
    for script in ("create_txtdb.sh", "prepro_tvc.sh"):
        command = ["bash", REPOSITORY / "scripts" / script, "txt_db", "ann"]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    made = tmp_path / "txt_db"
    for name in ("tv_subtitles", "tvr_test_public", "tvqa_val", "tvc_val/cap", "tvc_val/clip"):
        path = name.replace("/", ".db/") + ".db"
        ids = token_ids[path.partition("/")[0]]
        assert_same_database(made / path, world / "txt_db" / path, ids)
    assert TextDb(made / "how2r_val.db")["0"]["vid"] == "v.1"
    lines = (made / "tvc_val_release.jsonl").read_bytes()
    assert lines == (world / "ann" / "tvc_val.jsonl").read_bytes()


def test_a_folder_without_annotations(tmp_path):
    command = ["bash", str(REPOSITORY / "scripts" / "create_txtdb.sh"), str(tmp_path / "txt")]
    environment = {**os.environ, "PYTHON": sys.executable}
    for ann, message in ((tmp_path, "none of the files"), (tmp_path / "no", "is no folder")):
        done = subprocess.run([*command, str(ann)], capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and message in done.stderr
    help_text = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert help_text.returncode == 2  # --help stands alone
    help_text = subprocess.run([*command[:2], "--help"], capture_output=True, text=True)
    assert help_text.returncode == 0 and "_vid2nframe.json" in help_text.stdout


def test_the_container_gets_the_same_folders(tmp_path):
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    for name in ("ann", "toker"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}", "HERO_DOCKER": "1"}
    environment |= {"HERO_TOKER": "toker", "HERO_IMAGE": "some:image"}
    command = ["bash", REPOSITORY / "scripts" / "create_txtdb.sh", "txt_db", "ann"]
    done = subprocess.run(
        command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    arguments = done.stdout.splitlines()
    assert arguments[0] == "run" and "--rm" in arguments
    inside = ["some:image", "bash", "/src/scripts/create_txtdb.sh", "/txt", "/ann"]
    assert arguments[-len(inside) :] == inside
    mounts = {argument for argument in arguments if argument.startswith("type=bind")}
    readonly = {tmp_path / "ann": "/ann", tmp_path / "toker": "/toker", REPOSITORY: "/src"}
    expected = {f"type=bind,source={f},destination={d},readonly" for f, d in readonly.items()}
    assert mounts == {f"type=bind,source={tmp_path}/txt_db,destination=/txt", *expected}
    assert "HERO_TOKER=/toker" in arguments


# --------------------------------------------------------------------------------------------------
# Fields of the tasks
# --------------------------------------------------------------------------------------------------

QUESTION = {"q": "Who?", "a0": "A", "a1": "B", "a2": "NO ONE", "a3": "D", "ts": "1.5-3"}

LINES = [
    ("tvr", {"desc": "A man.", "desc_id": 7}, "7", None, None),
    ("how2r", {"desc": "", "desc_id": "x", "vid_name": "v.3", "ts": [0, 1]}, "x", "v.3", [0, 1]),
    (
        "didemo",
        {"desc": "a", "desc_id": 1, "vid_name": "v", "ts": [[0, 5], [5, 10], [5, 10], [0, 5]]},
        "1",
        "v",
        [0, 5],
    ),
    (
        "didemo_video_only",
        {"desc": "a", "desc_id": 1, "vid_name": "v", "ts": [[0, 5], [5, 10]], "target": [5, 10]},
        "1",
        "v",
        [5, 10],
    ),
    (
        "msrvtt",
        {"sen_id": 5, "clip_name": "video7", "caption": "a dog", "other": [1.0]},
        "5",
        "video7",
        None,
    ),
    (
        "msrvtt",
        {"retrieval_key": "ret4", "vid_name": "video9", "desc": "a"},
        "ret4",
        "video9",
        None,
    ),
    ("tvqa", {"qid": 9, **QUESTION, "a4": "E", "vid_name": "v"}, "9", "v", None),
    ("how2qa", {"qid": 9, **QUESTION, "vid_name": "v.0", "answer_idx": 3}, "9", "v.0", 3),
    ("violin", {"desc_id": "v-0-1", "desc": "a", "vid_name": "v", "label": 1}, "v-0-1", "v", 1),
    ("violin", {"desc_id": "v-0-0", "desc": "a", "vid_name": "v"}, "v-0-0", "v", None),
    (
        "violin",
        {"example_id": 3, "paired_id": 4, "statement": "a", "vid_name": "v", "answer": 0},
        "3",
        "v",
        0,
    ),
    ("violin", {"example_id": 3, "statement": "a", "vid_name": 9}, "3", "9", None),
    ("yc2r", {"desc_id": 7, "desc": "a", "vid_name": "v_1", "duration": 20.5}, "7", "v_1", None),
    ("vatex_en_r", {"desc_id": 7, "desc": "a dog"}, "7", None, None),
    (
        "vlep",
        {"example_id": 8, "vid_name": "v", "ts": [1.5, 3], "events": ["A", "B c"], "answer": 1},
        "8",
        "v",
        1,
    ),
    ("vlep", {"example_id": 8, "vid_name": "v", "ts": [0, 3], "events": ["", "B"]}, "8", "v", None),
]


@pytest.mark.parametrize(("task", "raw", "qid", "vid", "target"), LINES)
def test_fields_of_a_query(world, toker, tmp_path, task, raw, qid, vid, target):
    write_jsonl(tmp_path / "a.jsonl", [raw])
    db = prepare_queries(tmp_path / "a.jsonl", tmp_path / "db", task, toker)
    record = db[qid]
    kept = {k: v for k, v in raw.items() if k not in ("qid", "target")}
    assert record.items() >= kept.items()
    assert record["qid"] == qid and record.get("vid") == vid and record["target"] == target
    assert ("vid" in record) == (vid is not None)
    assert db.has_side("query2video.json") == (vid is not None)
    ids = record["input_ids"]
    if task in ("tvqa", "how2qa"):
        assert len(ids) == 1 + sum(f"a{k}" in raw for k in range(5))
    if task in ("tvqa", "how2qa", "vlep"):
        assert db.side("id2len.json") == {qid: [len(part) for part in ids]}
    else:
        assert db.side("id2len.json") == {qid: len(ids)}


def test_case_and_entities(world, toker, tmp_path):
    texts = ["SHOUT &amp; RUN", "shout &amp; run", "Shout &amp; run", "SHOUT & RUN", "shout & run"]
    rows = [{"desc_id": i, "desc": text} for i, text in enumerate(texts)]
    write_jsonl(tmp_path / "q.jsonl", rows)
    queries = prepare_queries(tmp_path / "q.jsonl", tmp_path / "q.db", "tvr", toker)
    ids = [queries[str(i)]["input_ids"] for i in range(len(texts))]
    assert ids[3] == ids[4] != ids[1]  # queries: case only
    assert ids[0] != ids[1] != ids[2]  # "&amp;" is not upper case

    write_json(tmp_path / "frames.json", {"v": 9})
    subtitles = [{"text": text, "start": 0, "end": 1} for text in texts]
    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": "v", "sub": subtitles}])
    arguments = ["--annotation", tmp_path / "s.jsonl", "--vid2nframe", tmp_path / "frames.json"]
    prepro_sub.main([*map(str, arguments), "--output", str(tmp_path / "s.db"), "--toker", toker])
    of_subtitles = TextDb(tmp_path / "s.db")["v"]["input_ids"]
    assert [of_subtitles[k] for k in (0, 1, 3, 4)] == [ids[4]] * 4  # unescaped, then lower-cased

    captions = [{"desc_id": i, "desc": text} for i, text in enumerate(texts)]
    clip = {"vid_name": "v", "duration": 9, "ts": [0, 1], "clip_id": 1, "descs": captions}
    write_jsonl(tmp_path / "c.jsonl", [clip])
    prepare_captions(tmp_path / "c.jsonl", tmp_path / "s.jsonl", tmp_path / "c.db", toker)
    of_captions = TextDb(tmp_path / "c.db" / "cap.db")
    assert of_captions["4"]["input_ids"] == ids[4] != of_captions["3"]["input_ids"]  # as they are


def prepare_captions(annotation: Path, subtitles: Path, output: Path, toker: str) -> None:
    """Run prepro_tvc.py."""
    arguments = ["--annotation", annotation, "--subtitles", subtitles, "--output", output]
    prepro_tvc.main([*map(str, arguments), "--toker", toker])


def test_clips_of_a_test_split(world, toker, tmp_path):
    spans = [(0, 2), (2, 4), (3, 3), (4, 9)]
    subtitles = [{"text": "a", "start": start, "end": end} for start, end in spans]
    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": "v", "sub": subtitles}])
    clips = [
        {"vid_name": "v", "duration": 9.5, "ts": [2, 4], "clip_id": 1},
        {"vid_name": "w", "duration": 9.5, "ts": [2, 4], "clip_id": 2},
    ]
    write_jsonl(tmp_path / "c.jsonl", clips)
    prepare_captions(tmp_path / "c.jsonl", tmp_path / "s.jsonl", tmp_path / "c.db", toker)
    db = TextDb(tmp_path / "c.db" / "clip.db")
    # Touching is not overlapping: only the second and the timeless third share time with 2 … 4 s.
    moment = {"ts": [2, 4], "sub_indices": [1, 2], "duration": 9.5, "captions": []}
    assert db["1"] == {"vid_name": "v", **moment}
    assert db["2"] == {"vid_name": "w", **moment, "sub_indices": []}
    assert db.side("vid2clips.json") == {"v": ["1"], "w": ["2"]}
    assert len(TextDb(tmp_path / "c.db" / "cap.db")) == 0

    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": "other", "sub": []}])
    with pytest.raises(UserError, match="has no video of"):
        prepare_captions(tmp_path / "c.jsonl", tmp_path / "s.jsonl", tmp_path / "d.db", toker)
    assert not (tmp_path / "d.db").exists()

    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": vid, "sub": []} for vid in (1, "v", "1")])
    with pytest.raises(UserError, match=r"s\.jsonl:3: the id '1' was used in line 1"):
        prepare_captions(tmp_path / "c.jsonl", tmp_path / "s.jsonl", tmp_path / "d.db", toker)


def test_video_ids_of_a_split_without_videos(world, toker, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"desc": "A man.", "desc_id": 7}])
    write_json(tmp_path / "idx.json", {"val": {"b": [1, 2]}, "test": {"z": [9, 4], "a": [1, 3]}})
    videos = ["--vid2dur_idx", str(tmp_path / "idx.json"), "--split"]
    db = prepare_queries(tmp_path / "a.jsonl", tmp_path / "db", "tvr", toker, *videos, "test")
    assert db.side("video_ids.json") == ["z", "a"]
    with pytest.raises(UserError, match="no split 'tset'; it has val, test"):
        prepare_queries(tmp_path / "a.jsonl", tmp_path / "d", "tvr", toker, *videos, "tset")
    with pytest.raises(UserError, match=r"with another video_ids\.json; choose another --output"):
        prepare_queries(tmp_path / "a.jsonl", tmp_path / "db", "tvr", toker, *videos, "val")


# --------------------------------------------------------------------------------------------------
# Mistakes
# --------------------------------------------------------------------------------------------------

GOOD = {"desc": "a", "desc_id": 1, "vid_name": "v", "ts": [0, 1]}
EVENTS = {"example_id": 0, "vid_name": "v", "ts": [1, 2], "events": ["a", "b"], "answer": 0}
ASKED = {"qid": 1, **QUESTION, "a4": "E", "vid_name": "v"}


def without(raw: dict, name: str) -> dict:
    return {key: value for key, value in raw.items() if key != name}


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("tvr", '{"desc": "a", "desc_id": 2', "truncated"),
        ("tvr", "[1]", "expected an object, got a list"),
        ("tvr", without(GOOD, "desc_id"), "desc_id must be"),
        ("tvr", {**GOOD, "desc_id": True}, "desc_id must be"),
        ("tvr", {**GOOD, "desc_id": 1.5}, "desc_id must be"),
        ("tvr", {**GOOD, "desc_id": 0, "desc": None}, "desc must be a text"),
        ("tvr", {**GOOD, "desc_id": 0, "desc": "\ud800"}, "half a character"),
        ("tvr", {**GOOD, "desc_id": 0, "note": "\ud800"}, "half a character"),
        ("tvr", {**GOOD, "desc_id": 0, "ts": [1]}, "ts must be"),
        ("tvr", {**GOOD, "desc_id": 0, "ts": [0, float("nan")]}, "malformed.*NaN"),
        ("tvr", {**GOOD, "desc_id": "x" * 600}, "desc_id must have at most 511 characters"),
        ("didemo", {**GOOD, "desc_id": 0, "ts": [[0, 1], [2]]}, "ts must be"),
        ("tvr", {**GOOD, "desc_id": 0, "ts": [-6, -3]}, r"the moment \[-6, -3\] is negative"),
        ("how2r", {**GOOD, "desc_id": 0, "ts": [20, 10]}, r"\[20, 10\] .* ends before it starts"),
        ("didemo", {**GOOD, "desc_id": 0, "ts": [[0, 5], [5, 0]]}, r"the moment \[5, 0\]"),
        (
            "didemo",
            {**GOOD, "desc_id": 0, "ts": [[0, 5], [-5, 0]], "target": [0, 5]},
            r"the moment \[-5, 0\]",
        ),
        ("tvqa", {**ASKED, "qid": 0, "ts": "5-2"}, r"the moment \[5, 2\]"),
        ("tvr", GOOD, "the id '1' was used in line 1 already"),
        ("msrvtt", {"desc": "a", "vid_name": "v"}, "sen_id or retrieval_key or desc_id must be"),
        ("tvqa", {**ASKED, "qid": 0, "a4": None}, "a4 must be a text"),
        ("tvqa", {**ASKED, "qid": 0, "answer_idx": 5}, "answer_idx must be .* 0 to 4, not 5"),
        ("tvqa", {**ASKED, "qid": 0, "answer_idx": True}, "answer_idx must be .* not True"),
        ("violin", {**GOOD, "desc_id": 0, "label": False}, "label must be .* not False"),
        ("tvqa", {**ASKED, "qid": 0, "ts": "1.5"}, "ts must be"),
        ("tvqa", {**ASKED, "qid": 0, "ts": [1, 2]}, "ts must be"),
        ("violin", {**GOOD, "desc_id": 0, "label": "yes"}, "label must be .* 0 to 1"),
        ("violin", {"example_id": 0, "statement": "a", "answer": 2}, "answer must be .* not 2"),
        ("violin", {"example_id": 0, "answer": 1}, "desc or statement must be a text"),
        ("vlep", without(EVENTS, "example_id"), "example_id must be"),
        ("vlep", {**EVENTS, "events": ["a"]}, "events must be two texts, not"),
        ("vlep", {**EVENTS, "events": ["a", 3]}, "events must be a text"),
        ("vlep", {**EVENTS, "ts": "1-2"}, "ts must be .* seconds, not '1-2'"),
        ("vlep", {**EVENTS, "ts": [2, 1]}, r"the moment \[2, 1\]"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_line_is_named(world, toker, tmp_path, monkeypatch, task, line, message, workers):
    monkeypatch.setattr("data.prepare.work.CHUNK", 1)
    good = {"tvqa": ASKED, "vlep": {**EVENTS, "example_id": 1}}.get(task, GOOD)
    line = line if isinstance(line, str) else json.dumps(line)
    annotation = tmp_path / "bad.jsonl"
    annotation.write_text(f"{json.dumps(good)}\n\n{line}\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl:3: .*{message}.*; fix or remove the line"):
        prepare_queries(annotation, tmp_path / "db", task, toker, "--workers", workers)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_subtitles_are_sorted_and_videos_without_any_are_grouped(world, toker, tmp_path, caplog):
    said = [("c", 4, 5), ("a", 0, 1), ("b", 0, 20), ("d", 20, 40)]
    unsorted = [{"text": text, "start": start, "end": end} for text, start, end in said]
    rows = [("v", unsorted), ("w", []), ("x", [])]
    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": vid, "sub": sub} for vid, sub in rows])
    write_json(tmp_path / "frames.json", {"v": 40, "w": 5})

    def made(name: str, *more: str) -> TextDb:
        words = ["--annotation", tmp_path / "s.jsonl", "--vid2nframe", tmp_path / "frames.json"]
        words += ["--output", tmp_path / name, "--frame_length", 1, "--toker", toker, *more]
        prepro_sub.main([*map(str, words)])
        return TextDb(tmp_path / name)

    record = made("three", "--nframe_group", "3")["v"]
    assert [subtitle["text"] for subtitle in record["sub"]] == ["a", "b", "c", "d"]
    assert record["sub2frames"][3] == [3, list(range(20, 31))]  # a long last one
    assert "1 of 3 videos" in caplog.text and "no features" in caplog.text
    for name, more, groups in (
        ("3", ["--nframe_group", "3"], [[0, [0, 1, 2]], [1, [3, 4]]]),
        ("5", [], [[0, [0, 1, 2, 3, 4]]]),
        ("0", ["--nframe_group", "0"], []),
    ):
        record = made(name, *more)["w"]
        assert record["unique_sub2frames"] == record["sub2frames"] == groups
        assert record["input_ids"] == [[]] * len(groups)
        assert record["unmatched_frames"] == ([] if groups else [0, 1, 2, 3, 4])
    with pytest.raises(UserError, match="-1 is negative"):
        made("below", "--nframe_group", "-1")
    with pytest.raises(UserError, match="made with --nframe_group 3, not 4"):
        made("3", "--nframe_group", "4")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"vid_name": "v"}, "sub must be a list"),
        ({"vid_name": "v", "sub": ["a"]}, "sub must be a list"),
        ({"vid_name": "v", "sub": [{"text": "a", "start": 0}]}, "must be seconds"),
        ({"vid_name": "v", "sub": [{"text": "a", "start": "0", "end": 1}]}, "must be seconds"),
        ({"vid_name": "v", "sub": [{"text": "a", "start": 0, "end": 1e9}]}, "must be seconds"),
        ({"vid_name": "v", "sub": [{"start": 0, "end": 1}]}, "text must be a text"),
    ],
)
def test_a_bad_subtitle_line_is_named(world, toker, tmp_path, raw, message):
    write_jsonl(tmp_path / "s.jsonl", [raw])
    write_json(tmp_path / "frames.json", {"v": 9})
    arguments = ["--annotation", tmp_path / "s.jsonl", "--vid2nframe", tmp_path / "frames.json"]
    with pytest.raises(UserError, match=rf"s\.jsonl:1: .*{message}"):
        prepro_sub.main([*map(str, arguments), "--output", str(tmp_path / "o"), "--toker", toker])
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": 3}, "ts must be"),
        ({"ts": [4, 3]}, r"the moment \[4, 3\] is negative or ends before it starts"),
        ({"ts": [-1, 3]}, r"the moment \[-1, 3\] is negative"),
        ({"duration": None}, "duration a time"),
        ({"descs": {}}, "descs must be a list"),
        ({"descs": [{"desc": "a"}]}, "desc_id must be"),
        ({"descs": [{"desc": "a", "desc_id": 1}, {"desc": "b", "desc_id": "1"}]}, "'1' was used"),
    ],
)
def test_a_bad_clip_line_is_named(world, toker, tmp_path, change, message):
    clip = {"vid_name": "v", "duration": 9, "ts": [0, 1], "clip_id": 1, "descs": [], **change}
    write_jsonl(tmp_path / "c.jsonl", [clip])
    write_jsonl(tmp_path / "s.jsonl", [{"vid_name": "v", "sub": []}])
    with pytest.raises(UserError, match=rf"c\.jsonl:1: .*{message}"):
        prepare_captions(tmp_path / "c.jsonl", tmp_path / "s.jsonl", tmp_path / "c.db", toker)
    assert not (tmp_path / "c.db").exists()


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (
            "didemo",
            '[{"annotation_id": 1, "description": "a", "video": "v.mov", "times": [[0, 1]]}]',
            "DiDeMo as published.*convert_annotations.py --task didemo",
        ),
        ("tvqa", '[{"qid": 1, "q": "a", "bbox": {}}]', r"TVQA\+ as published, one JSON doc"),
        ("violin", '{"clip":\n {"statement": [], "sub": []}}', "VIOLIN as published"),
        ("msrvtt", '{"info": {}, "videos": [], "sentences": []}', "MSR-VTT as published"),
        ("how2qa", "v,[0:1],a,b,c,q,d", "convert_annotations.py --task how2qa"),
        ("how2r", "v,[0:60],[3:9],q", "convert_annotations.py --task how2r"),
    ],
)
def test_published_files_are_told_their_converter(world, toker, tmp_path, task, text, said):
    (tmp_path / "published").write_text(text)
    with pytest.raises(UserError, match=rf"published is .*{said}"):
        prepare_queries(tmp_path / "published", tmp_path / "db", task, toker)


def test_suspicious_subtitles_are_counted(world, toker, tmp_path, caplog):
    write_json(tmp_path / "frames.json", {"v": 40, "w": 40})

    def said(*subtitles: dict) -> str:
        rows = [{"vid_name": vid, "sub": list(subtitles)} for vid in "vw"]
        write_jsonl(tmp_path / "s.jsonl", rows)
        caplog.clear()
        paths = {"annotation": "s.jsonl", "vid2nframe": "frames.json", "output": "s.db"}
        words = [word for name, path in paths.items() for word in (f"--{name}", tmp_path / path)]
        prepro_sub.main([*map(str, words), "--toker", toker, "--workers", "1", "--force"])
        return caplog.text

    spoken = {"text": "A.", "start": 1.5, "end": 4}
    assert not said(spoken)
    assert "0 of 2 subtitles meet a frame" in said(spoken | {"start": 1500, "end": 4000})
    assert "all 2 subtitles are empty" in said(spoken | {"text": " "})
    assert "no subtitles" in said()


def test_empty_missing_and_binary_annotations(world, toker, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe{}")
    for name, message in (
        ("empty.jsonl", "holds no annotations"),
        ("missing.jsonl", "does not exist"),
        ("binary.jsonl:1", "is no UTF-8 text"),
    ):
        with pytest.raises(UserError, match=rf"{name} {message}"):
            prepare_queries(tmp_path / name.partition(":")[0], tmp_path / "db", "tvr", toker)
    assert not (tmp_path / "db").exists()


def test_the_command_line_says_it_in_one_line(world, toker, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{\n")
    command = [sys.executable, REPOSITORY / "scripts" / "prepro_query.py", "--task", "tvr"]
    command += ["--annotation", tmp_path / "bad.jsonl", "--output", tmp_path / "db"]
    done = subprocess.run([*command, "--toker", toker], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "bad.jsonl:1:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frame_length", "0"], "--frame_length: 0 is not positive"),
        (["--frame_lenght", "1"], "unrecognized arguments: --frame_lenght"),
        (["--vid2dur", "f"], "unrecognized arguments: --vid2dur f"),  # nothing is abbreviated
    ],
)
def test_a_mistake_on_the_command_line(arguments, message):
    good = ["--annotation", "a", "--output", "o", "--vid2nframe", "v"]
    with pytest.raises(UserError, match=message):
        prepro_sub.main([*good, *arguments])
    with pytest.raises(UserError, match="required: --annotation"):
        prepro_sub.main(good[2:])


# --------------------------------------------------------------------------------------------------
# Again
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    """A thousand queries."""
    path = tmp_path / "many.jsonl"
    write_jsonl(path, ({**GOOD, "desc_id": i, "desc": f"The {i}th." * 40} for i in range(1000)))
    return path


def test_what_is_made_is_left_alone(world, toker, tmp_path, annotation, capsys):
    arguments = (annotation, tmp_path / "db", "tvr", toker)
    prepare_queries(*arguments)
    before = (tmp_path / "db" / "data.mdb").stat()
    prepare_queries(*arguments)
    assert "is made already (1000 records)" in capsys.readouterr().out
    assert (tmp_path / "db" / "data.mdb").stat() == before
    prepare_queries(*arguments, "--force")
    assert (tmp_path / "db" / "data.mdb").stat().st_ino != before.st_ino


def test_what_was_made_otherwise_is_not_taken_for_it(world, toker, tmp_path, annotation):
    arguments = (annotation, tmp_path / "db", "tvr", toker)
    prepare_queries(*arguments)
    with pytest.raises(UserError, match="made with --task tvr, not how2r; choose another --output"):
        prepare_queries(annotation, tmp_path / "db", "how2r", toker)
    future = time.time() + 10
    os.utime(annotation, (future, future))
    with pytest.raises(UserError, match=r"older than .*many\.jsonl; .*--force"):
        prepare_queries(*arguments)
    prepare_queries(*arguments, "--force")  # and that settles it, though the future lasts
    prepare_queries(*arguments)


@pytest.mark.parametrize("damage", ["data.mdb", "meta.json"])
def test_what_is_damaged_is_made_anew(world, toker, tmp_path, annotation, damage):
    arguments = (annotation, tmp_path / "db", "tvr", toker)
    prepare_queries(*arguments)
    path = tmp_path / "db" / damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(prepare_queries(*arguments)) == 1000


def test_several_workers_make_the_same(world, toker, tmp_path, annotation):
    one, three = (
        prepare_queries(annotation, tmp_path / workers, "tvr", toker, "--workers", workers)
        for workers in ("1", "3")
    )
    assert_same_database(three.path, one.path)


def test_a_killed_run_leaves_nothing_and_can_be_repeated(world, toker, tmp_path, annotation):
    output = tmp_path / "db"
    # Stops for good in the middle of the annotation, its workers under way.
    code = (
        "import sys, time, data.prepare.work as prepare\n"
        "from scripts import prepro_query\n"
        "prepare.CHUNK = 50\n"
        "claim = prepro_query.UniqueIds.claim\n"
        "def claim_or_stop(self, id_, line):\n"
        "    if line.number == 500:\n"
        "        print(flush=True) or time.sleep(600)\n"
        "    claim(self, id_, line)\n"
        "prepro_query.UniqueIds.claim = claim_or_stop\n"
        "prepro_query.main(sys.argv[1:])\n"
    )
    arguments = ["--annotation", annotation, "--output", output, "--task", "tvr"]
    command = [sys.executable, "-c", code, *arguments, "--toker", toker, "--workers", "2"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        with pytest.raises(UserError, match="another process builds the same database"):
            prepare_queries(annotation, output, "tvr", toker)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not output.exists()
    wait_until_unlocked(tmp_path / ".db.lock")
    assert len(prepare_queries(annotation, output, "tvr", toker)) == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "many.jsonl"]


def wait_until_unlocked(lock: Path) -> None:
    """Workers notice that their parent is gone within moments; the lock goes with the last."""
    command = ["flock", "--exclusive", "--timeout", "10", str(lock), "true"]
    subprocess.run(command, check=True)


# --------------------------------------------------------------------------------------------------
# Features
# --------------------------------------------------------------------------------------------------


def save_features(feature_dir: Path, kind: str, vid: str, features: np.ndarray) -> Path:
    """A file as an extractor writes it."""
    path = feature_dir / f"{kind}_features" / "sub" / f"{vid}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, features=features)
    return path


def save_pair(feature_dir: Path, vid: str, frames: tuple[int, int] = (3, 4)) -> np.ndarray:
    """SlowFast (2 values) and ResNet (3) features; returns what the database will hold."""
    rng = np.random.default_rng(len(vid))
    slowfast, resnet = rng.normal(size=(frames[0], 2)), rng.normal(size=(frames[1], 3))
    save_features(feature_dir, "slowfast", vid, slowfast.astype(np.float32))
    save_features(feature_dir, "resnet", vid, resnet.astype(np.float32))
    shorter = min(frames)
    return np.concatenate([resnet[:shorter], slowfast[:shorter]], axis=1).astype(np.float32)


def collect(feature_dir: Path, output: Path, *more: str) -> None:
    """Run collect_video_feature_paths.py."""
    arguments = ["--feature_dir", feature_dir, "--output", output, "--dataset", "tv", *more]
    collect_video_feature_paths.main(list(map(str, arguments)))


def convert(output: Path, *more: str) -> None:
    """Run convert_videodb.py."""
    arguments = ["--vfeat_info_file", output / "tv" / "video_feat_info.pkl", "--output", output]
    convert_videodb.main([*map(str, arguments), "--dataset", "tv", *more])


def test_features_are_paired_and_joined(tmp_path):
    expected = save_pair(tmp_path / "feat", "some")
    collect(tmp_path / "feat", tmp_path)
    files = {
        kind: str(tmp_path / "feat" / f"{kind}_features" / "sub" / "some.npz")
        for kind in ("slowfast", "resnet")
    }
    info = pickle.loads((tmp_path / "tv" / "video_feat_info.pkl").read_bytes())
    assert info == {"some": (3, files["slowfast"], files["resnet"], "sub")}
    assert json.loads((tmp_path / "tv" / "corrupted.json").read_text()) == {}
    convert(tmp_path)
    db = FeatureDb(tmp_path / "tv")
    assert db.id2nframe == {"some": 3}
    np.testing.assert_array_equal(db["some"], expected)


@pytest.mark.parametrize("parts", [("clip", "sound", "slowfast"), ("slowfast", "clip"), ("sound",)])
def test_parts_of_other_extractors_are_joined_in_the_order_asked_for(tmp_path, parts):
    shapes = {"clip": (4, 5), "sound": (3, 1), "slowfast": (6, 2)}
    rng = np.random.default_rng(0)
    features = {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, values in features.items():
        save_features(tmp_path / "feat", name, "some", values)
    collect(tmp_path / "feat", tmp_path, "--parts", *parts)
    shortest = min(shapes[part][0] for part in parts)
    ((frames, *files, folder),) = pickle.loads(
        (tmp_path / "tv" / "video_feat_info.pkl").read_bytes()
    ).values()
    assert (frames, folder) == (shortest, "sub")
    kinds = [Path(file).parents[1].name for file in files]
    assert kinds == [f"{part}_features" for part in reversed(parts)]

    convert(tmp_path, "--feat_version", "mine")
    db = FeatureDb(tmp_path / "tv", "mine")
    joined = np.concatenate([features[part][:shortest] for part in parts], axis=1)
    np.testing.assert_array_equal(db["some"], joined)
    again = ["--vfeat_db", str(tmp_path / "tv"), "--output", str(tmp_path / "half")]
    options = ["--dataset", "tv", "--feat_version", "mine", "--format", "safetensors", "--half"]
    convert_videodb.main([*again, *options])
    half = FeatureDb(tmp_path / "half" / "tv", "mine")
    for path in (db.path, half.path):
        meta = json.loads((path / "meta.json").read_text())
        assert list(meta["parts"].items()) == [(part, shapes[part][1]) for part in parts]
        assert meta["width"] == joined.shape[1]


def test_parts_that_are_not_there_or_named_twice(tmp_path):
    save_pair(tmp_path / "feat", "some")
    with pytest.raises(UserError, match=r"clip_features does not exist; .*--parts resnet clip"):
        collect(tmp_path / "feat", tmp_path, "--parts", "resnet", "clip")
    with pytest.raises(UserError, match=r"--parts resnet resnet names a part twice"):
        collect(tmp_path / "feat", tmp_path, "--parts", "resnet", "resnet")


@pytest.mark.parametrize("entry", [(3, "sub"), (3,), (3, 4, "sub"), 3, ("x", "a.npz", "sub")])
def test_what_are_no_feature_paths(tmp_path, entry):
    path = tmp_path / "video_feat_info.pkl"
    path.write_bytes(pickle.dumps({"some": entry}))
    with pytest.raises(UserError, match=r"video_feat_info\.pkl (holds no|cannot be read)"):
        read_paths(path)


def test_unpaired_and_corrupt_files_are_listed(tmp_path):
    feat = tmp_path / "feat"
    save_pair(feat, "good")
    save_features(feat, "resnet", "alone", np.ones((2, 3), np.float32))
    for vid in ("cut", "empty", "flat", "nan", "objects", "twice"):
        save_pair(feat, vid)
    path = feat / "resnet_features" / "sub" / "cut.npz"
    path.write_bytes(path.read_bytes()[:100])
    save_features(feat, "slowfast", "empty", np.ones((0, 2), np.float32))
    save_features(feat, "slowfast", "flat", np.ones(5, np.float32))
    save_features(feat, "resnet", "nan", np.full((2, 3), np.nan, np.float32))
    save_features(feat, "resnet", "objects", np.array([{"a": 1}], dtype=object))
    (feat / "resnet_features" / "other").mkdir()
    shutil.copy(feat / "resnet_features" / "sub" / "twice.npz", feat / "resnet_features" / "other")
    collect(feat, tmp_path)
    problems = json.loads((tmp_path / "tv" / "corrupted.json").read_text())
    expected = {
        "alone": "no slowfast file",
        "cut": "cannot be read",
        "empty": "has no frames",
        "flat": "no frames × values",
        "nan": "not finite",
        "objects": "cannot be read",
        "twice": "several resnet files",
    }
    assert problems.keys() == expected.keys()
    for vid, message in expected.items():
        assert message in problems[vid] and vid in problems[vid]
    assert list(read_paths(tmp_path / "tv" / "video_feat_info.pkl")) == ["good"]


def test_files_that_changed_since_are_listed(tmp_path):
    for vid in ("good", "gone", "short"):
        save_pair(tmp_path / "feat", vid)
    collect(tmp_path / "feat", tmp_path)
    (tmp_path / "feat" / "resnet_features" / "sub" / "gone.npz").unlink()
    save_features(tmp_path / "feat", "resnet", "short", np.ones((2, 3), np.float32))
    convert(tmp_path)
    failed = pickle.loads((tmp_path / "tv" / "failed_resnet_slowfast_1.5.pkl").read_bytes())
    assert failed.keys() == {"gone", "short"} and "fewer than the 3 frames" in failed["short"]
    assert FeatureDb(tmp_path / "tv").id2nframe == {"good": 3}
    convert(tmp_path)  # is made already: those that failed are known


def test_nothing_to_convert(tmp_path):
    save_features(tmp_path / "feat", "resnet", "alone", np.ones((2, 3), np.float32))
    with pytest.raises(UserError, match=r"slowfast_features does not exist"):
        collect(tmp_path / "feat", tmp_path)
    (tmp_path / "feat" / "slowfast_features").mkdir()
    with pytest.raises(UserError, match="no video with features of all kinds"):
        collect(tmp_path / "feat", tmp_path)
    with pytest.raises(UserError, match=r"video_feat_info\.pkl does not exist"):
        convert(tmp_path)
    path = save_features(tmp_path / "feat", "slowfast", "alone", np.ones((2, 3), np.float32))
    collect(tmp_path / "feat", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"no video of .* can be used"):
        convert(tmp_path)
    assert not (tmp_path / "tv" / "resnet_slowfast_1.5").exists()


def test_a_pickle_with_code_is_not_executed(tmp_path):
    (tmp_path / "tv").mkdir()
    harmful = b"cos\nsystem\n(S'touch " + str(tmp_path / "harm").encode() + b"'\ntR."
    (tmp_path / "tv" / "video_feat_info.pkl").write_bytes(harmful)
    with pytest.raises(UserError, match="GLOBAL 'os system' is not allowed"):
        convert(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # room for 2**31 places
        pickle.dumps({"v": (np.int64(3), "a", "b", "c")}),
        pickle.dumps({"v": (10**9, "a", "b", "c")}),
        b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.",
    ],
)
def test_a_pickle_of_anything_but_paths(tmp_path, pickled):
    path = tmp_path / "video_feat_info.pkl"
    path.write_bytes(pickled)
    with pytest.raises(UserError, match=r"video_feat_info\.pkl cannot be read"):
        read_paths(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_published_paths_load(tmp_path, protocol):
    path = tmp_path / "video_feat_info.pkl"
    entry = (3, "/f/slowfast_features/s/v.npz", "/f/resnet_features/s/v.npz", "s")
    path.write_bytes(pickle.dumps({"v": entry}, protocol))
    assert read_paths(path) == {"v": FeaturePaths(3, (entry[2], entry[1]), "s")}


def test_clips_of_a_minute(tmp_path):
    expected = save_pair(tmp_path / "feat", "long", frames=(70, 71))
    collect(tmp_path / "feat", tmp_path)
    convert(tmp_path, "--frame_length", "2.0", "--clip_interval", "60")
    db = FeatureDb(tmp_path / "tv", interval=2)
    assert db.id2nframe == {"long.0": 30, "long.1": 30, "long.2": 10}
    np.testing.assert_array_equal(np.concatenate([db[f"long.{n}"] for n in range(3)]), expected)
    convert(tmp_path, "--frame_length", "2.0", "--clip_interval", "60")
    with pytest.raises(UserError, match=r"60 is no multiple of --frame_length 1\.6"):
        convert(tmp_path, "--frame_length", "1.6", "--clip_interval", "60")


def test_half_precision(tmp_path, capsys):
    expected = save_pair(tmp_path / "feat", "some")
    collect(tmp_path / "feat", tmp_path)
    convert(tmp_path, "--half")
    db = FeatureDb(tmp_path / "tv")
    assert db.stored_dtype == np.float16
    np.testing.assert_array_equal(db["some"], expected.astype(np.float16).astype(np.float32))
    convert(tmp_path, "--half")
    assert "is made already (1 records)" in capsys.readouterr().out
    with pytest.raises(UserError, match="with other options; pass --force"):
        convert(tmp_path)
    convert(tmp_path, "--force")
    assert FeatureDb(tmp_path / "tv").stored_dtype == np.float32
    save_features(tmp_path / "feat", "resnet", "some", np.full((4, 3), 1e5, np.float32))
    with pytest.raises(UserError, match="too large for --half"):
        convert(tmp_path, "--half", "--force")
    np.testing.assert_array_equal(FeatureDb(tmp_path / "tv")["some"], expected)


def test_features_in_several_processes(tmp_path):
    for vid in map(str, range(12)):
        save_pair(tmp_path / "feat", vid, frames=(int(vid) + 1, 20))
    collect(tmp_path / "feat", tmp_path)
    convert(tmp_path, "--workers", "3")
    assert FeatureDb(tmp_path / "tv").id2nframe == {str(n): n + 1 for n in range(12)}


# --------------------------------------------------------------------------------------------------
# Real annotations, where they are at hand
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="HERO_REAL is not set")
def test_real_annotations(world, toker, tmp_path):
    real = Path(REAL)
    for name, task, count in (
        ("tvr_val_release", "tvr", 10895),
        ("tvqa_test_public", "tvqa", 7623),
    ):
        db = prepare_queries(real / f"{name}.jsonl", tmp_path / name, task, toker)
        assert len(db) == len(db.side("query2video.json")) == count
        lines = (real / f"{name}.jsonl").read_text().splitlines()
        for qid, line in zip(db.side("id2len.json"), lines, strict=True):
            raw = {**json.loads(line), "qid": qid}
            assert db[qid].items() >= raw.items()
    videos = ["--vid2dur_idx", str(real / "tvr_video2dur_idx.json"), "--split", "test_public"]
    annotation = real / "tvr_test_public_release.jsonl"
    test = prepare_queries(annotation, tmp_path / "test", "tvr", toker, *videos)
    assert len(test.side("video_ids.json")) == 1089 and not test.has_side("query2video.json")
    for name, task in (("how2R", "how2r"), ("how2QA", "how2qa")):
        lines = tmp_path / f"{task}.jsonl"
        source = str(real / f"{name}_val_release.csv")
        convert_annotations.main(["--task", task, "--annotation", source, "--output", str(lines)])
        db = prepare_queries(lines, tmp_path / task, task, toker)
        assert len(db) == len(lines.read_text().splitlines()) > 2000


def test_feature_paths_that_are_the_same_are_left_alone(world, tmp_path):
    arguments = ["--feature_dir", str(world / "feat"), "--output", str(tmp_path), "--dataset", "tv"]
    collect_video_feature_paths.main(arguments)
    before = (tmp_path / "tv" / "video_feat_info.pkl").stat().st_mtime_ns
    collect_video_feature_paths.main(arguments)
    assert (tmp_path / "tv" / "video_feat_info.pkl").stat().st_mtime_ns == before
