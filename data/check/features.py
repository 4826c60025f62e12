"""Checks of frame features: their number, width, precision and values."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data.check.databases import Corpus
from data.check.findings import Case, Check, Drops, Finding, examine, warning
from data.prepare.extraction import read_feature_meta
from data.prepare.work import map_in_chunks
from data.stores.lmdb_environment import RESTORE
from data.stores.lmdb_io import FeatureDb
from utils.errors import UserError

CHUNK = 8  # videos that a worker reads at once, a few megabytes each

AGAIN = "convert the features again (scripts/convert_videodb.py)"
FORMAT = Check(
    "compression",
    "records are npz files or not, against compressed_db",
    "change --compressed_db, or name the folder rightly (…_compressed holds npz)",
)
DAMAGED = Check("records", "features are damaged", RESTORE, drops=Drops.VIDEO)
# id2nframe*.json: id2nframe_<interval>.json, or else id2nframe.json.
LOST = Check("records", "in id2nframe*.json, not in the database", AGAIN, drops=Drops.VIDEO)
UNCOUNTED = warning("records", "in the database, not in id2nframe*.json", AGAIN)
BAD_COUNT = Check(
    "frame counts", "id2nframe*.json gives no number of frames above 0", AGAIN, drops=Drops.VIDEO
)
ROWS = warning(
    "frame counts",
    "rows of features are not id2nframe*.json's frames",
    "nothing: the first frames that both have are read",
)
WIDTH = Check("width", "feature width differs from the other videos'", AGAIN, drops=Drops.VIDEO)
INFINITE = Check(
    "finite values", "features that are not finite", "extract them again", drops=Drops.VIDEO
)
PRECISION = warning(
    "number format",
    "number format differs from the other videos', or is no float32 or float16",
    AGAIN,
)
META = warning("meta.json", "meta.json contradicts the options or the features", AGAIN)
OTHER_WIDTH = Check("width", "feature width differs from the other databases'", AGAIN)
TWO_SHARDS = warning("shards", "video is in two shards", "leave it in one: the first is read")
UNUSED = warning("spare videos", "no database or list names these videos", "nothing")

SIDE_CHECKS = (FORMAT, DAMAGED, BAD_COUNT, META)
RECORD_CHECKS = (FORMAT, DAMAGED, LOST, UNCOUNTED, ROWS, WIDTH, INFINITE, PRECISION)


class FeatureFacts(NamedTuple):
    """Properties of a video's record; no shape if it cannot be read."""

    vid: str
    shape: tuple[int, int] | None = None  # T, D
    dtype: str = ""
    finite: bool = True
    damage: str = ""
    is_npz: bool = False


def feature_facts(db: FeatureDb, vid: str) -> FeatureFacts:
    """Read one record, which exists."""
    is_npz = db.is_npz(vid)
    if is_npz != db.compressed:
        return FeatureFacts(vid, damage="npz" if is_npz else "no npz", is_npz=is_npz)

    def facts(stored: np.ndarray) -> FeatureFacts:
        finite = bool(np.isfinite(stored).all())
        return FeatureFacts(vid, stored.shape, str(stored.dtype), finite, "", is_npz)

    try:
        return db.read_stored(vid, facts)
    except UserError as error:
        return FeatureFacts(vid, damage=str(error), is_npz=is_npz)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check side files, and one record of each database."""
    for db in corpus.features:
        yield from examine(db.path, SIDE_CHECKS, _side_cases(db, corpus))
    if len(corpus.features) > 1:
        shards = Counter(vid for db in corpus.features for vid in db.id2nframe)
        twice = [TWO_SHARDS(vid) for vid, count in shards.items() if count > 1]
        where = ", ".join(str(db.path) for db in corpus.features)
        yield from examine(where, [TWO_SHARDS], twice, of=len(shards))


def _side_cases(db: FeatureDb, corpus: Corpus) -> Iterator[Case]:
    used = corpus.used
    for vid, frames in db.id2nframe.items():
        if frames <= 0 and (used is None or vid in used):
            yield BAD_COUNT(vid, f"{frames}")
    first = first_facts(db, used)
    if first is None:
        yield DAMAGED("", "it holds none of the videos that the run reads")
    elif first.shape is None:
        yield _unreadable(first, db)
    elif (db.path / "meta.json").is_file():
        yield from _meta_cases(db, first.shape[1], first.dtype)


def first_facts(db: FeatureDb, used: Collection[str] | None = None) -> FeatureFacts | None:
    """Return the facts of the first (used) video of the frame counts that is in the database."""
    counted = (vid for vid in db.id2nframe if used is None or vid in used)
    first = next((vid for vid in counted if vid in db), None)
    return None if first is None else feature_facts(db, first)


def _unreadable(facts: FeatureFacts, db: FeatureDb) -> Case:
    if facts.is_npz != db.compressed:
        return FORMAT(facts.vid, f"{facts.damage}, compressed_db is {db.compressed}".lower())
    return DAMAGED(facts.vid, facts.damage)


def _meta_cases(db: FeatureDb, width: int, dtype: str) -> Iterator[Case]:
    """Compare ``meta.json`` with the features."""
    try:
        meta = read_feature_meta(db.path)
    except UserError as error:
        yield META("", f"it cannot be read: {error}")
        return
    recorded = {"interval": meta.interval, "width": meta.width, "dtype": meta.dtype}
    recorded["width of all parts"] = sum(meta.parts.values()) if meta.parts else None
    for part, extraction in (meta.extraction or {}).items():
        recorded[f"interval of {part}"] = extraction.get("interval")
    facts = {"width": width, "width of all parts": width, "dtype": dtype}
    for name, value in recorded.items():
        actual: Any = facts.get(name, db.interval)
        if value is not None and value != actual:
            yield META(name, f"{value}, not {actual}")


def width_findings(databases: Iterable[FeatureDb]) -> Iterator[Finding]:
    """Compare the widths of all databases of a run."""
    widths = {}
    for db in databases:
        first = first_facts(db)
        if first is not None and first.shape is not None:
            widths[str(db.path)] = first.shape[1]
    if len(widths) > 1:
        usual = most_common(widths.values())
        for path, width in widths.items():
            cases = [OTHER_WIDTH("", f"{width}, not {usual}")] if width != usual else []
            yield from examine(path, [OTHER_WIDTH], cases)


def most_common(values: Iterable[Any]) -> Any:
    """Return the most frequent value, the first of equals; None of no values."""
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else None


def full_findings(corpus: Corpus, workers: int) -> Iterator[Finding]:
    """Check every record of every feature database."""
    for db in corpus.features:
        vids = list(db.keys())
        read = partial(_facts_of, db)
        facts = list(map_in_chunks(read, vids, workers, len(vids), CHUNK))
        cases = _record_cases(db, facts)
        yield from examine(db.path, RECORD_CHECKS, cases, of=len(vids), read=corpus.used)
        if corpus.used is not None:
            unused = [UNUSED(vid) for vid in db.id2nframe if vid not in corpus.used]
            yield from examine(db.path, [UNUSED], unused, of=len(db.id2nframe))


def _facts_of(db: FeatureDb, vids: list[str]) -> list[FeatureFacts]:
    return [feature_facts(db, vid) for vid in vids]


def _record_cases(db: FeatureDb, facts: list[FeatureFacts]) -> Iterator[Case]:
    stored = {fact.vid for fact in facts}
    yield from (LOST(vid) for vid in db.id2nframe if vid not in stored)
    width = most_common(fact.shape[1] for fact in facts if fact.shape is not None)
    dtype = most_common(fact.dtype for fact in facts if fact.shape is not None)
    for fact in facts:
        if fact.vid not in db.id2nframe:
            yield UNCOUNTED(fact.vid)
        if fact.shape is None:
            yield _unreadable(fact, db)
            continue
        frames = db.id2nframe.get(fact.vid, fact.shape[0])
        if fact.shape[0] != frames:
            yield ROWS(fact.vid, f"{fact.shape[0]} rows, {frames} frames")
        if fact.shape[1] != width:
            yield WIDTH(fact.vid, f"{fact.shape[1]}, not {width}")
        if not fact.finite:
            yield INFINITE(fact.vid)
        if fact.dtype != dtype or fact.dtype not in ("float32", "float16"):
            yield PRECISION(fact.vid, fact.dtype)
