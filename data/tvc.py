"""Clips and their captions: TVC.

An item is one video with its clips, so that a video is encoded once however many clips it has.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.batch import CaptionBatch, ClipBatch, ClipsToCaption, TokenGrid
from data.lmdb_io import TextDb
from data.loader import ItemKey
from data.video import SubtitleSource, VideoItem, collate_texts, collate_videos
from utils.errors import UserError
from utils.files import read_jsonl
from utils.logger import LOGGER
from utils.packing import segment_positions


def clip_frames(start: float, end: float, interval: float, num_frames: int) -> tuple[int, int]:
    """First frame of a clip in seconds, and the one after its last; at least one frame.

    A clip that starts after the last of ``num_frames`` collapses onto it.
    """
    first = min(math.floor(start / interval), num_frames - 1)
    return first, min(max(round(end / interval), first + 1), num_frames)


def starts_beyond(start: float, interval: float, num_frames: int) -> bool:
    """Whether a clip starts after the last of ``num_frames``."""
    return math.floor(start / interval) >= num_frames


def warn_of_clips_beyond(clip_ids: Sequence[str | int], consequence: str) -> None:
    """Say which clips start after the last kept frame, if any do."""
    if clip_ids:
        named = ", ".join(map(str, clip_ids[:5])) + (", …" if len(clip_ids) > 5 else "")
        LOGGER.warning(
            "%d clip(s) start after the last kept frame (%s) and %s; a longer max_clip_len may "
            "reach them",
            len(clip_ids),
            named,
            consequence,
        )


class CaptionDb:
    """A caption database: captions in ``cap.db``, ``meta.json`` above it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.captions = TextDb(self.path / "cap.db")

    @property
    def meta(self) -> dict:
        """Ids of the special tokens."""
        return self.captions.meta


@dataclass
class CaptionItem:
    """A video, clips of it, and captions."""

    video: VideoItem
    ids: list[str]  # of the captions
    clips: list[tuple[int, int]]  # first frame, frame after the last
    captions: list[list[list[int]]]  # token ids; of every clip, one or more


class CaptionDataset:
    """Videos with captions to learn from.

    Captions of clips that start after the last kept frame are left out, and it is said.

    Args:
        db: caption database.
        videos: where videos come from.
        max_cap_per_vid: captions drawn of each video, −1: all.
        max_txt_len: longer captions are left out; −1 keeps all.
        seed: of the draws.

    Raises:
        UserError: no caption is left, or a database lacks a video.
    """

    def __init__(
        self,
        db: CaptionDb,
        videos: SubtitleSource,
        max_cap_per_vid: int = -1,
        max_txt_len: int = -1,
        seed: int = 0,
    ) -> None:
        self.db = db.captions
        self.videos = videos
        self.max_cap_per_vid = max_cap_per_vid
        self.seed = seed
        self.groups = self._usable(max_txt_len)
        self.vids = list(self.groups)  # item by item
        if not self.groups:
            raise UserError(
                f"{db.path} has no caption to learn from (at most {max_txt_len} tokens, of clips "
                "within max_clip_len); take a split with captions, or raise these options"
            )

    def _usable(self, max_txt_len: int) -> dict[str, list[str]]:
        """Ids of the usable captions by video, in database order."""
        groups: dict[str, list[str]] = {}
        beyond: dict[str, None] = {}
        interval = self.videos.interval
        of_video = self.db.side("vid2caps.json")
        self.videos.require(of_video, str(self.db.path.parent))
        for vid, caption_ids in of_video.items():
            frames = self.videos.num_frames(vid)
            for caption_id in caption_ids:
                record = self.db[caption_id]
                if starts_beyond(record["ts"][0], interval, frames):
                    beyond[record["clip_id"]] = None
                elif max_txt_len < 0 or len(record["input_ids"]) <= max_txt_len:
                    groups.setdefault(vid, []).append(caption_id)
        warn_of_clips_beyond(list(beyond), "are skipped")
        return groups

    def __len__(self) -> int:
        return len(self.groups)

    def positions(self) -> np.ndarray:
        """(items,) positions that the cross-modal transformer sees of each video."""
        return np.array([self.videos.positions(vid) for vid in self.vids])

    def __getitem__(self, key: ItemKey | int) -> CaptionItem:
        key = ItemKey.of(key)
        vid = self.vids[key.index]
        ids = self.groups[vid]
        if 0 <= self.max_cap_per_vid < len(ids):
            drawn = key.generator(self.seed).permutation(len(ids))[: self.max_cap_per_vid]
            ids = [ids[i] for i in sorted(drawn)]
        video = self.videos(vid)
        by_clip: dict[str, list[dict]] = {}
        for record in map(self.db.__getitem__, ids):
            by_clip.setdefault(record["clip_id"], []).append(record)
        interval = self.videos.interval
        return CaptionItem(
            video,
            list(ids),
            [
                clip_frames(*records[0]["ts"], interval, video.num_frames)
                for records in by_clip.values()
            ],
            [[record["input_ids"] for record in records] for records in by_clip.values()],
        )

    def collate(self, items: Sequence[CaptionItem]) -> CaptionBatch:
        """Pack items; captions stand clip by clip, clips video by video."""
        begin, end = self.db.meta["BOS"], self.db.meta["EOS"]
        clips = [captions for item in items for captions in item.captions]
        captions = [caption for clip in clips for caption in clip]
        targets = [token for caption in captions for token in (*caption, end)]
        return CaptionBatch(
            ids=[item.video.vid for item in items],
            video=collate_videos([item.video for item in items]),
            clips=collate_clips([(item.video, item.clips) for item in items]),
            text=collate_texts([[begin, *caption] for caption in captions]),
            targets=torch.tensor(targets),
            grid=token_grid([sum(len(caption) + 1 for caption in clip) for clip in clips]),
        )


def collate_clips(videos: Iterable[tuple[VideoItem, Sequence[tuple[int, int]]]]) -> ClipBatch:
    """Place clips, given in frames of their video, among the frames of all videos."""
    first, lengths, offset = [], [], 0
    for video, clips in videos:
        first += [offset + start for start, _ in clips]
        lengths += [end - start for start, end in clips]
        offset += video.num_frames
    return ClipBatch(torch.tensor(first), torch.tensor(lengths), max(lengths))


def token_grid(lengths: Sequence[int]) -> TokenGrid:
    """Lay out packed tokens, ``lengths[c]`` of clip c."""
    count, longest = len(lengths), max(lengths)
    cells = np.repeat(np.arange(count) * longest, lengths) + segment_positions(lengths)
    if len(cells) == count * longest:
        return TokenGrid(count, longest, None, None)
    rows = np.zeros(count * longest, dtype=np.int64)
    rows[cells] = np.arange(len(cells))
    return TokenGrid(count, longest, torch.from_numpy(rows), torch.from_numpy(cells))


@dataclass
class TargetItem:
    """A video and the clips of it to caption."""

    video: VideoItem
    clips: list[tuple[int, int]]  # first frame, frame after the last
    places: list[int]  # of the clips in the list of all


class TargetClips:
    """Clips to caption, from JSON lines with ``vid_name, clip_id, ts`` (``descs`` or not).

    Args:
        path: the file.
        videos: where videos come from.

    Raises:
        UserError: a line lacks one of them, a clip stands there twice, or a database lacks a video.
    """

    def __init__(self, path: str | Path, videos: SubtitleSource) -> None:
        self.videos = videos
        self.lines = read_clip_lines(path)
        by_video: dict[str, list[int]] = {}
        beyond = []
        for place, line in enumerate(self.lines):
            by_video.setdefault(line["vid_name"], []).append(place)
        videos.require(by_video, str(path))
        for line in self.lines:
            frames = videos.num_frames(line["vid_name"])
            if starts_beyond(line["ts"][0], videos.interval, frames):
                beyond.append(line["clip_id"])
        self.by_video = list(by_video.items())
        warn_of_clips_beyond(beyond, "are captioned from that frame")

    def __len__(self) -> int:
        return len(self.by_video)

    def __getitem__(self, key: ItemKey | int) -> TargetItem:
        vid, places = self.by_video[ItemKey.of(key).index]
        video = self.videos(vid)
        interval = self.videos.interval
        spans = (self.lines[place]["ts"] for place in places)
        clips = [clip_frames(*span, interval, video.num_frames) for span in spans]
        return TargetItem(video, clips, places)

    @staticmethod
    def collate(items: Sequence[TargetItem]) -> ClipsToCaption:
        """Pack items."""
        return ClipsToCaption(
            places=[place for item in items for place in item.places],
            video=collate_videos([item.video for item in items]),
            clips=collate_clips([(item.video, item.clips) for item in items]),
        )


def read_clip_lines(path: str | Path) -> list[dict]:
    """Lines of an annotation or submission file, checked.

    Raises:
        UserError: names file and line of what is missing, malformed or there twice.
    """
    lines, seen = [], {}
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        for key in ("vid_name", "clip_id", "ts"):
            if key not in line:
                raise UserError(f"{where} has no {key}; a clip needs vid_name, clip_id and ts")
        span = line["ts"]
        if not (isinstance(span, list) and len(span) == 2 and all(map(_is_time, span))):
            raise UserError(f"{where}: ts must be [start, end] in seconds, it is {span}")
        before = seen.setdefault(str(line["clip_id"]), number)
        if before != number:
            raise UserError(f"{where}: clip {line['clip_id']} stands in line {before} already")
        lines.append(line)
    if not lines:
        raise UserError(f"{path} names no clip")
    return lines


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
