"""Copies of databases and lists without some videos, queries or captions."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
from tqdm import tqdm

from data.annotations import read_lines
from data.stores.build_folder import build_folder, check_folder
from data.stores.lmdb_environment import RESTORE
from data.stores.lmdb_io import TextDb, TextDbWriter, read_side
from data.stores.records import ClipRecord, Name
from data.video_indices import VIDEO_INDICES
from data.video_pool import feature_name
from utils.decoding import check
from utils.errors import RecordError, UserError
from utils.files import check_output, read_json, write_json, write_jsonl
from utils.names import (
    EXAMPLE_NAMES,
    QUESTION_NAMES,
    VIDEO_QUERY_NAMES,
    NameFields,
    find_name,
    names_of_task,
    text_names,
)

# Side files that list videos to search, and how to count them.
POOLS: dict[str, Callable[[Any], int]] = {
    "video_ids.json": len,
    VIDEO_INDICES: lambda table: sum(len(of) for of in table.values() if isinstance(of, dict)),
}


class _DropFile(msgspec.Struct):
    """The output of scripts/check_data.py --fix-list."""

    videos: list[Name]
    records: dict[str, list[Name]] = {}


@dataclass
class BrokenRecords:
    """Videos and records to leave out; names and ids are text."""

    videos: set[str] = field(default_factory=set)  # everywhere
    records: dict[str, set[str]] = field(default_factory=dict)  # by their database's folder name

    def of(self, database: str | Path) -> set[str]:
        """Return the set of records to leave out of a database; it may be added to."""
        return self.records.setdefault(Path(database).name, set())

    def has_video(self, name: object) -> bool:
        """Return whether to leave out a video by its name in a file: text, a number or None."""
        return name is not None and feature_name(str(name), self.videos) in self.videos

    def save(self, path: str | Path) -> None:
        """Write a JSON file ``{"videos": [...], "records": {database: [...]}}``."""
        records = {name: sorted(ids) for name, ids in self.records.items()}
        write_json(path, {"videos": sorted(self.videos), "records": records}, indent=1)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the file of :meth:`save`; UserError if it is malformed."""
        listed = read_json(path, _DropFile)
        records = {name: set(map(str, ids)) for name, ids in listed.records.items()}
        return cls(set(map(str, listed.videos)), records)


def check_copy(source: Path, target: Path, force: bool) -> None:
    """Check, before the work, that :func:`drop_from` can write ``target``.

    Raises:
        OSError: it cannot.
        UserError: it is the source, or exists and ``force`` is not given.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"{source} would be replaced by its own copy; choose another --output")
    if source.is_dir():
        check_folder(target, force)
        return
    check_output(target)
    if target.exists() and not force:
        raise UserError(f"{target} exists already; pass --force to write it again")


@dataclass(frozen=True, slots=True)
class Dropped:
    """What :func:`drop_from` left out."""

    total: int  # records, names or lines of the source
    dropped: int  # of them
    # Side files that lost videos to search: how many they listed, and how many were left out.
    pools: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        lists = [f"; {name}: {n - out} of {n} videos left" for name, (n, out) in self.pools.items()]
        return f"{self.total - self.dropped} of {self.total} left{''.join(lists)}"

    @property
    def any(self) -> bool:
        """Whether anything was left out."""
        return self.dropped > 0 or bool(self.pools)


def drop_from(source: Path, target: Path, drops: BrokenRecords, force: bool = False) -> Dropped:
    """Write ``source`` without what ``drops`` names to ``target``.

    Args:
        source: a query, subtitle or caption database, a JSON list of videos, or JSON lines that
            name a video.
        target: the copy; the source is not changed.
        drops: what to leave out.
        force: replace an existing target.

    Raises:
        UserError: it is none of these, or :func:`check_copy` refuses.
    """
    check_copy(source, target, force)
    if (source / "cap.db").is_dir():
        return _copy_captions(source, target, drops, force)
    if source.is_dir():
        return _copy_texts(source, target, drops, drops.of(source), force)
    if source.suffix == ".json":
        entries = read_json(source)
        text_names(entries, source)  # raises for anything but names
        left = [name for name in entries if not drops.has_video(name)]
        write_json(target, left)
    elif source.suffix == ".jsonl":
        entries = [
            line.read(lambda raw: (find_name(raw, *VIDEO_QUERY_NAMES.videos), raw))
            for line in read_lines(source)
        ]
        left = [raw for vid, raw in entries if not drops.has_video(vid)]
        write_jsonl(target, left)
    else:
        raise UserError(f"{source} is neither a database nor a .json list nor .jsonl annotations")
    return Dropped(len(entries), len(entries) - len(left))


def _copy_texts(
    source: Path,
    target: Path,
    drops: BrokenRecords,
    ids: Collection[str],
    force: bool,
    change: Callable[[dict], dict] = lambda record: record,
) -> Dropped:
    """Copy a text database without records of videos of ``drops`` and without ``ids``; ``change``
    is applied to those that are left."""
    db = TextDb(source)
    gone, pools = set(), {}
    with TextDbWriter(target, force) as writer:
        for id_ in tqdm(list(db.keys()), desc=source.name, disable=None):
            record = db[id_]
            vid = record.get("vid", record.get("vid_name", record.get("v_id")))
            if id_ in ids or drops.has_video(vid):
                gone.add(id_)
            else:
                writer.put(id_, change(record))
        for path in sorted(source.glob("*.json")):
            full = read_side(path)
            value = without(path.name, full, gone, drops)
            if count := POOLS.get(path.name):
                pools[path.name] = count(full), count(full) - count(value)
            writer.write_side(path.name, value, indent=4 if path.name == "meta.json" else None)
        if db.has_side("query_data.jsonl"):
            names = names_of_task(db.meta.get("task"))
            text = _query_lines(source / "query_data.jsonl", names, gone)
            (writer.folder / "query_data.jsonl").write_text(text, encoding="utf-8")
    return Dropped(len(db), len(gone), {name: of for name, of in pools.items() if of[1]})


def without(name: str, value: Any, gone: Collection[str], drops: BrokenRecords) -> Any:
    """Return the content of the side file ``name`` without the records ``gone`` and the videos of
    ``drops``."""
    if name in ("meta.json", "sub_info.json"):
        return value
    if name == "video_ids.json":
        return [vid for vid in value if not drops.has_video(vid)]
    if name == "vid2dur_idx.json":
        return {
            split: {vid: entry for vid, entry in members.items() if not drops.has_video(vid)}
            for split, members in value.items()
            if isinstance(members, dict)
        }
    if name in ("vid2caps.json", "vid2clips.json"):
        left = {
            vid: [id_ for id_ in ids if str(id_) not in gone]
            for vid, ids in value.items()
            if not drops.has_video(vid)
        }
        return {vid: ids for vid, ids in left.items() if ids}
    if not isinstance(value, dict):  # not a file of this format
        return value
    return {id_: of_id for id_, of_id in value.items() if id_ not in gone}


def _query_lines(path: Path, names: NameFields, gone: Collection[str]) -> str:
    """Return the raw lines that are left."""
    # meta.json may name no task, or (published video retrieval) one of moment retrieval.
    others = (QUESTION_NAMES, VIDEO_QUERY_NAMES, EXAMPLE_NAMES)
    fields = (*names.ids, *(field for each in others for field in each.ids))
    lines = (
        (line.text, line.read(lambda raw: find_name(raw, *fields))) for line in read_lines(path)
    )
    return "\n".join(text for text, id_ in lines if id_ not in gone)


def _copy_captions(source: Path, target: Path, drops: BrokenRecords, force: bool) -> Dropped:
    gone = drops.of(source)

    def with_fewer_captions(clip: dict) -> dict:
        try:
            check(clip, ClipRecord)
        except RecordError as error:
            raise UserError(
                f"{source / 'clip.db'}: {error} in a clip's record; {RESTORE}"
            ) from None
        captions = [one for one in clip.get("captions", []) if str(one["id"]) not in gone]
        return {**clip, "captions": captions}

    with build_folder(target, force) as folder:
        counts = _copy_texts(source / "cap.db", folder / "cap.db", drops, gone, False)
        _copy_texts(source / "clip.db", folder / "clip.db", drops, (), False, with_fewer_captions)
        write_json(folder / "meta.json", read_side(source / "meta.json"), indent=4)
    return counts
