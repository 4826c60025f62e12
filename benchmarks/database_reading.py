"""Records decoded as typed, checked values against the same bytes decoded without any check.

python benchmarks/database_reading.py [--videos 300] [--repeats 15]

Without checks: lz4 and msgpack to dictionaries, msgpack-numpy or npz to float32. With checks:
``TextDb.read`` (types, ranges, lengths, vocabulary) and ``FeatureDb[…]`` (shape, finite values).
Both run in turns, on records in the page cache.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import VOCABULARY, make_parser, median_times
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter, own_copy
from data.stores.records import QueryRecord, SubtitleRecord

WIDTH, FRAMES, SUBTITLES = 4352, 60, 30

Read = Callable[[str], Any]  # a record of any kind, by its id


def subtitle_record(rng: np.random.Generator) -> dict:
    """Return a video's subtitles: eight tokens and two frames each."""
    matched = [[number, [2 * number, 2 * number + 1]] for number in range(SUBTITLES)]
    lines = [
        {"text": "what somebody says", "start": 3.0 * n, "end": 3.0 * n + 3} for n in range(30)
    ]
    return {
        "vid_name": "v",
        "sub": lines,
        "input_ids": rng.integers(VOCABULARY, size=(SUBTITLES, 8)).tolist(),
        "sub2frames": matched,
        "unique_sub2frames": matched,
        "unmatched_frames": [],
        "duration": FRAMES,
    }


def query_record(rng: np.random.Generator) -> dict:
    """Return a query about a moment."""
    tokens = rng.integers(VOCABULARY, size=15).tolist()
    line = {"vid_name": "v", "duration": 90.0, "ts": [3.0, 9.5], "desc": "what happens in it"}
    return {**line, "desc_id": 1, "vid": "v", "input_ids": tokens, "target": [3.0, 9.5], "qid": "1"}


def make_texts(folder: Path, make: Callable, ids: list[str]) -> TextDb:
    """Write a text database and open it."""
    rng = np.random.default_rng(0)
    with TextDbWriter(folder) as writer:
        for id_ in ids:
            writer.put(id_, make(rng))
        writer.write_side("meta.json", {})
    return TextDb(folder, VOCABULARY)


def make_features(folder: Path, compressed: bool, dtype: type, ids: list[str]) -> FeatureDb:
    """Write a feature database and open it."""
    rng = np.random.default_rng(0)
    with FeatureDbWriter(folder, compressed=compressed) as writer:
        for vid in ids:
            writer.put(vid, rng.random((FRAMES, WIDTH), np.float32).astype(dtype))
    return FeatureDb(folder, compressed=compressed)


def unchecked_text(db: TextDb, id_: str) -> dict:
    """Return a record as a dictionary, without any check."""
    with db.value(id_) as value:
        return msgpack.unpackb(lz4.frame.decompress(value), raw=False, strict_map_key=False)


def unchecked_features(db: FeatureDb, vid: str) -> np.ndarray:
    """Return features, without any check."""
    with db._value(vid) as value:
        if db.compressed:
            with np.load(io.BytesIO(value), allow_pickle=False) as entries:
                return own_copy(entries["features"][:FRAMES])
        record = msgpack.unpackb(value, object_hook=msgpack_numpy.decode, raw=False)
        return own_copy(record["features"][:FRAMES])


def make_kinds(root: Path, ids: list[str]) -> dict[str, tuple[Read, Read]]:
    """Write databases of every kind; return how to read a record checked and unchecked."""
    subtitles = make_texts(root / "subtitles", subtitle_record, ids)
    queries = make_texts(root / "queries", query_record, ids)
    kinds: dict[str, tuple[Read, Read]] = {
        "subtitles": (
            lambda i: subtitles.read(i, SubtitleRecord),
            partial(unchecked_text, subtitles),
        ),
        "queries": (lambda i: queries.read(i, QueryRecord), partial(unchecked_text, queries)),
    }
    for name, compressed, dtype in (
        ("features float32", False, np.float32),
        ("features float16", False, np.float16),
        ("features npz", True, np.float32),
    ):
        db = make_features(root / name.replace(" ", "_"), compressed, dtype, ids)
        kinds[name] = (db.__getitem__, partial(unchecked_features, db))
    return kinds


def values_of(record: Any) -> np.ndarray:
    """Return features, or token ids of a text's record."""
    if isinstance(record, dict):
        record = record["input_ids"]
    return np.asarray(getattr(record, "input_ids", record))


def read_all(read: Read, ids: list[str]) -> None:
    for id_ in ids:
        read(id_)


def main() -> None:
    options = make_parser(__doc__, videos=300, repeats=15).parse_args()
    ids, rows = [str(number) for number in range(options.videos)], []
    with tempfile.TemporaryDirectory() as folder:
        for name, (checked, unchecked) in make_kinds(Path(folder), ids).items():
            if not np.array_equal(values_of(checked(ids[0])), values_of(unchecked(ids[0]))):
                raise RuntimeError(f"{name}: the two disagree")
            runs = {
                "checked": partial(read_all, checked, ids),
                "unchecked": partial(read_all, unchecked, ids),
            }
            seconds = median_times(runs, options.repeats, time.process_time)
            times = [1e6 * value / len(ids) for value in seconds.values()]
            rows.append([name, *times, times[0] / times[1]])
    print(tabulate(rows, ["CPU µs a record", "checked", "unchecked", "ratio"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
