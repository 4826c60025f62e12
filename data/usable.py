"""Checks whether databases are of use to a run, without PyTorch."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from data.stores.lmdb_io import TextDb
from data.stores.records import SubtitleRecord
from utils.errors import UserError


class Features(Protocol):
    """Frame features by video: a :class:`data.stores.lmdb_io.FeatureDb`, or several read as one."""

    interval: float
    max_clip_len: int
    id2nframe: dict[str, int]

    @property
    def path(self) -> object: ...
    @property
    def width(self) -> int: ...
    def __getitem__(self, vid: str, /) -> np.ndarray: ...
    def __contains__(self, vid: str, /) -> bool: ...


def require_videos(db: Features, vids: Iterable[str], wanted_by: str) -> None:
    """Raise UserError, which names the first, if the database lacks any of ``vids``."""
    vids = list(vids)
    missing = [vid for vid in vids if vid not in db.id2nframe]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(vids)} videos of {wanted_by} (first: {missing[0]}) are not "
            f"in the feature database {db.path}; convert their features too "
            "(scripts/convert_videodb.py), or leave what is missing out (--only_available)"
        )


def subtitle_fault(db: TextDb) -> str | None:
    """Return what makes every subtitle of a database useless; None if one is of use."""
    texts = videos = 0
    for vid in db.keys():  # noqa: SIM118 (a database, not a dictionary)
        try:
            record = db.read(vid, SubtitleRecord)
        except UserError:
            continue  # raised when the record is needed
        shown = (number for number, frames in record.unique_sub2frames if frames)
        if any(record.input_ids[number] for number in shown):
            return None
        texts += sum(map(bool, record.input_ids))
        videos += 1
    if texts:
        return (
            f"only 0 of {texts} subtitles of {videos} videos meet a frame: their times, which must "
            "be seconds, may be milliseconds, or those of other videos"
        )
    return f"all subtitles of its {videos} videos are empty"
