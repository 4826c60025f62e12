"""``vid2dur_idx.json``: {split: {video: [seconds, index]}}.

The index is the id of a video of the split in results files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data.annotations import is_seconds
from utils.errors import UserError, brief, shorten

VIDEO_INDICES = "vid2dur_idx.json"
# Splits that TVR's file has in parts only.
PARTS = {"test": ("test_public", "test_challenge")}
_END = 2**53  # predictions are float64 rows: larger whole numbers would be rounded


@dataclass(frozen=True, slots=True)
class IndexFault:
    """An error in a split's indices."""

    split: str
    text: str

    def __str__(self) -> str:
        return f"split {self.split}: {self.text}"


def split_faults(split: str, entries: Any) -> Iterator[IndexFault]:
    """Yield what is wrong with a split: malformed entries, and videos that share an index."""
    if not isinstance(entries, dict):
        text = f"it must hold {{video: [seconds, index]}}, not {brief(entries)}"
        yield IndexFault(split, text)
        return
    for vid, entry in entries.items():
        if not _is_entry(entry):
            text = f"the entry of {vid} must be [seconds, index], not {brief(entry)}"
            yield IndexFault(split, text)
    for index, vids in _by_index(entries).items():
        if len(vids) > 1:
            more = f" and {len(vids) - 2} more" * (len(vids) > 2)
            text = f"videos {vids[0]} and {vids[1]}{more} share the index {index}"
            yield IndexFault(split, text)


def table_faults(table: Any, where: object) -> Iterator[IndexFault]:
    """Yield what is wrong with any split; UserError if it is no table."""
    for split, entries in _splits(table, where).items():
        yield from split_faults(split, entries)


def split_indices(table: Any, split: str, where: object, required: bool = False) -> dict[str, int]:
    """Return the index of every video of a split; empty where the table lacks it.

    Args:
        table: the parsed file.
        split: its name.
        where: the file, for messages.
        required: the table must have the split, as a whole or in :data:`PARTS`.

    Raises:
        UserError: an entry is malformed, two videos share an index, or a ``required`` split is
            missing (names those that the table has).
    """
    splits = _splits(table, where)
    parts = split_parts(splits, split) if required or split in splits else []
    if required and not parts:
        named = shorten(", ".join(splits)) or "none"
        raise UserError(
            f"{where} has no split {split!r}; it has {named}: name one of these, or give the file "
            "of this data set"
        )
    for part in parts:
        _require_none(split_faults(part, splits[part]), where)
    entries = {vid: entry for part in parts for vid, entry in splits[part].items()}
    _require_none(split_faults(split, entries), where)
    return {vid: int(index) for vid, (_, index) in entries.items()}


def has_split(table: Any, split: str, where: object) -> bool:
    """Return whether a table has a split, maybe in parts; UserError if it is no table."""
    return bool(split_parts(_splits(table, where), split))


def split_parts(splits: Mapping[str, Any], split: str) -> list[str]:
    """Return the names under which a table has a split; empty where it lacks it."""
    parts = [split] if split in splits else PARTS.get(split, [])
    return list(parts) if all(part in splits for part in parts) else []


def require_indices(table: Any, where: object) -> None:
    """Check all splits; UserError as for :func:`split_indices`."""
    _require_none(table_faults(table, where), where)


def shared_between_splits(table: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Yield indices that different videos have in different splits, with the videos."""
    owners: dict[int, dict[str, None]] = {}
    for entries in table.values():
        alone = {i: vids[0] for i, vids in _by_index(entries).items() if len(vids) == 1}
        for index, vid in alone.items():
            owners.setdefault(index, {})[vid] = None
    yield from ((index, list(vids)) for index, vids in owners.items() if len(vids) > 1)


def _splits(table: Any, where: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UserError(f"{where} must hold {{split: {{video: [seconds, index]}}}}; fix the file")
    return table


def _require_none(faults: Iterator[IndexFault], where: object) -> None:
    for fault in faults:
        raise UserError(f"{where}: {fault}; an index is the id of one video: fix the file")


def _by_index(entries: Any) -> dict[int, list[str]]:
    """Return the videos of every index, of well-formed entries."""
    videos: dict[int, list[str]] = {}
    for vid, entry in entries.items() if isinstance(entries, dict) else ():
        if _is_entry(entry):
            videos.setdefault(int(entry[1]), []).append(vid)
    return videos


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    seconds, index = entry
    if not is_seconds(seconds) or seconds < 0:
        return False
    is_number = isinstance(index, int | float) and not isinstance(index, bool)
    return is_number and 0 <= index < _END and index == int(index)
