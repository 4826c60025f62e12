"""Clips and captions without PyTorch: see :mod:`data.tvc`."""

import math
from collections.abc import Container, Sequence
from pathlib import Path

from data.annotations import UniqueIds, read_lines
from data.stores.lmdb_io import TextDb
from data.stores.records import ClipLine, VideoLine
from data.video_pool import feature_name
from utils.decoding import check
from utils.names import CLIP_NAMES, get_name


def clip_frames(span: Sequence[float], interval: float, num_frames: int) -> tuple[int, int]:
    """Return the first frame of a clip in seconds and the one after its last, clamped to the
    video's frames (one at least)."""
    start, end = span
    first = min(max(math.floor(start / interval), 0), num_frames - 1)
    return first, min(max(round(end / interval), first + 1), num_frames)


def starts_beyond(start: float, interval: float, num_frames: int) -> bool:
    """Return whether a clip starts after the last of ``num_frames``."""
    return math.floor(start / interval) >= num_frames


def captions_by_video(captions: TextDb, known: Container[str] = ()) -> dict[str, list[str]]:
    """Return the ids of every video's captions, in database order.

    Args:
        captions: ``cap.db``.
        known: names of the feature database (see :func:`data.video_pool.feature_name`).

    Raises:
        UserError: ``vid2caps.json`` is missing, or holds something else.
    """
    groups: dict[str, list[str]] = {}
    for vid, ids in captions.side("vid2caps.json").items():
        groups.setdefault(feature_name(vid, known), []).extend(map(str, ids))
    return groups


def read_clip_lines(path: str | Path, whole_videos: bool = False) -> list[dict]:
    """Return the raw lines of an annotation or submission file, checked.

    Args:
        path: the file.
        whole_videos: a clip is a whole video; its line needs no ``ts``.

    Raises:
        UserError: a field is missing or malformed, or an id not unique; names file and line.
    """
    kind = VideoLine if whole_videos else ClipLine

    def checked(raw: dict) -> dict:
        check(raw, kind)
        return raw

    lines, ids = [], UniqueIds()
    for line in read_lines(path):
        raw = line.read(checked)
        ids.claim(get_name(raw, *CLIP_NAMES.ids), line)
        lines.append(raw)
    return lines
