"""Databases byte by byte, and comparing databases with recorded ones."""

import json
from collections.abc import Container, Mapping
from pathlib import Path

import lmdb
import msgpack
import msgpack_numpy
import numpy as np

from data.stores.lmdb_io import TextDb
from data.tokenize import FINGERPRINT


def write_values(folder: Path, values: dict[str, bytes], map_size: int = 1 << 24) -> None:
    """An LMDB environment with just these bytes, written without the code under test."""
    folder.mkdir(parents=True)
    environment = lmdb.open(str(folder), map_size=map_size, lock=False)
    with environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)


def feature_db(folder: Path, values: dict[str, bytes], name: str = "resnet_slowfast_1.5") -> Path:
    """A data set whose database holds these bytes."""
    write_values(folder / name, values)
    (folder / "id2nframe.json").write_text("{}")
    return folder


def plain(features: np.ndarray) -> bytes:
    """A feature record as published."""
    return msgpack.packb({"features": features}, default=msgpack_numpy.encode, use_bin_type=True)


# How a database was made: paths and the task's name, which say nothing about its contents.
ORIGIN = ("annotation", "output", "toker", "tokenizer", "task", "vid2nframe", "subtitles")


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


def assert_same_records(made: Path, recorded: Path, token_ids: dict) -> None:
    new, old = TextDb(made), TextDb(recorded)
    assert list(new.keys()) == list(old.keys())
    for key in old.keys():  # noqa: SIM118
        assert json.dumps(new[key]) == json.dumps(retokenized(key, old[key], token_ids))
