"""Captions of clips (TVC) and of whole videos (YC2C, VATEX-EN-C).

An item of TVC is a video with all of its clips, so that it is encoded once; an item of the others
is a caption with its video.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data.batch import CaptionBatch, ClipBatch, ClipsToCaption
from data.clips import captions_by_video, clip_frames, read_clip_lines, starts_beyond
from data.coverage import available_items
from data.loader import ItemKey
from data.moments import warn_of_clamped
from data.stores.lmdb_io import TextDb
from data.stores.records import CaptionRecord, QueryRecord
from data.tokenize import other_tokenizer
from data.vcmr import learnable_queries
from data.video import (
    VideoDataset,
    VideoItem,
    VideoSource,
    collate_texts,
    collate_videos,
    cut_texts,
)
from data.video_pool import feature_name
from utils.errors import UserError
from utils.logger import LOGGER
from utils.names import CLIP_NAMES, get_name
from utils.packing import PackedLayout


def warn_of_clips_beyond(clip_ids: Iterable[str | int], consequence: str) -> None:
    """Warn of clips that start after the last kept frame, if any do."""
    ids = [*map(str, clip_ids)]
    if ids:
        LOGGER.warning(
            "%d clip(s) start after the last kept frame (%s) and %s; a longer max_clip_len may "
            "reach them",
            *(len(ids), ", ".join(ids[:5]) + ", …" * (len(ids) > 5), consequence),
        )


@dataclass
class CaptionItem:
    """A video, clips of it, and captions."""

    video: VideoItem
    ids: list[str]  # of the captions
    clips: list[tuple[int, int]]  # first frame, frame after the last
    captions: list[list[list[int]]]  # token ids; of every clip, one or more


class CaptionDataset(VideoDataset[CaptionItem]):
    """Videos with captions of their clips to train on.

    Captions of clips that start after the last kept frame are left out, with a warning. Longer
    captions are cut: ``<s>`` and tokens, and tokens and ``</s>``, to ``max_txt_len`` each.

    Args:
        db: the captions, ``cap.db`` of a caption database.
        source, seed: see :class:`data.video.VideoDataset`.
        max_cap_per_vid: captions drawn of each video; −1: all.
        max_txt_len: tokens that are kept of a caption; −1 keeps all.

    Raises:
        UserError: no caption is left, or a database lacks a video.
    """

    def __init__(
        self,
        db: TextDb,
        source: VideoSource,
        max_cap_per_vid: int = -1,
        max_txt_len: int = -1,
        seed: int = 0,
    ) -> None:
        self.db = db
        self.max_cap_per_vid = max_cap_per_vid
        self.max_txt_len = max_txt_len
        self._shortened: set[str] = set()  # videos of which it was said
        self.groups = self._usable(source)
        super().__init__(list(self.groups), source, seed)
        if not self.groups:
            raise UserError(
                f"{db.path.parent} has no caption to learn from (of clips within max_clip_len); "
                "take a split with captions, or raise max_clip_len"
            )

    def _usable(self, source: VideoSource) -> dict[str, list[str]]:
        """Return the ids of the usable captions by video, in database order."""
        groups: dict[str, list[str]] = {}
        beyond: dict[str, None] = {}
        spans: dict[str, tuple[float, float]] = {}
        of_video = captions_by_video(self.db, source.features.id2nframe)
        video_of = {id_: vid for vid, ids in of_video.items() for id_ in ids}
        where = str(self.db.path.parent)
        available, _ = available_items(list(video_of), video_of, source, where, "captions")
        for id_ in available:
            vid, record = video_of[id_], self.db.read(id_, CaptionRecord)
            clip_id, (start, end) = str(record.clip_id), record.ts
            spans[clip_id] = start, end
            if starts_beyond(start, source.interval, source.num_frames(vid)):
                beyond[clip_id] = None
            else:
                groups.setdefault(vid, []).append(id_)
        warn_of_clips_beyond(beyond, "are skipped")
        warn_of_clamped(spans.items(), where)
        return groups

    def positions(self) -> np.ndarray:
        """Return (items,) how many positions of each video the cross-modal transformer sees."""
        return self.source.count_positions(self.vids)

    def item(self, vid: str, rng: np.random.Generator) -> CaptionItem | None:
        """See :class:`data.video.VideoDataset`; None if all clips start after the features."""
        video, interval = self.source(vid), self.source.interval
        records = {id_: self.db.read(id_, CaptionRecord) for id_ in self.groups[vid]}
        ids = [
            id_
            for id_, record in records.items()
            if not starts_beyond(record.ts[0], interval, video.num_frames)
        ]
        lost = {str(records[id_].clip_id): None for id_ in records.keys() - set(ids)}
        if lost and vid not in self._shortened:
            self._shortened.add(vid)
            warn_of_clips_beyond(lost, f"are skipped: the features of {vid} are shorter")
        if not ids:
            return None
        if 0 <= self.max_cap_per_vid < len(ids):
            ids = [ids[i] for i in sorted(rng.permutation(len(ids))[: self.max_cap_per_vid])]
        by_clip: dict[str, list[CaptionRecord]] = {}
        for id_ in ids:
            by_clip.setdefault(str(records[id_].clip_id), []).append(records[id_])
        clips = by_clip.values()
        frames = [clip_frames(of_clip[0].ts, interval, video.num_frames) for of_clip in clips]
        texts = [[record.input_ids for record in of_clip] for of_clip in clips]
        return CaptionItem(video, ids, frames, texts)

    def collate(self, items: Sequence[CaptionItem]) -> CaptionBatch:
        """Pack items."""
        return pack_captions(items, self.db.meta, self.max_txt_len)


class WholeVideoCaptions:
    """Captions of whole videos to train on: the queries of one or several databases.

    Args:
        dbs: query databases of one tokenizer, with videos.
        videos: reads videos.
        max_txt_len: longer captions are left out; −1 keeps all.

    Raises:
        UserError: no caption is left in a database, one has no video, a database lacks a video, or
            the databases are of different tokenizers.
    """

    def __init__(self, dbs: Sequence[TextDb], videos: VideoSource, max_txt_len: int = -1) -> None:
        self.videos = videos
        self.db = dbs[0]
        self.items: list[tuple[TextDb, str, str]] = []  # database, id, video
        for db in dbs:
            difference = other_tokenizer(self.db.meta, db.meta)
            if difference:
                raise UserError(
                    f"{self.db.path} and {db.path} were made with different tokenizers "
                    f"({difference}); make one of them again with the other's --toker"
                )
            of_db = learnable_queries(db, videos, max_txt_len)
            self.items += [(db, id_, vid) for id_, vid in of_db.items()]
            LOGGER.info("captions to learn from: %d of %s", len(of_db), db.path)

    def __len__(self) -> int:
        return len(self.items)

    def positions(self) -> np.ndarray:
        """Return (items,) how many positions of each video the cross-modal transformer sees."""
        return self.videos.count_positions(vid for _, _, vid in self.items)

    def __getitem__(self, key: ItemKey | int) -> CaptionItem:
        db, id_, vid = self.items[ItemKey.of(key).index]
        video = self.videos(vid)
        caption = db.read(id_, QueryRecord).input_ids
        return CaptionItem(video, [id_], [(0, video.num_frames)], [[caption]])

    def collate(self, items: Sequence[CaptionItem]) -> CaptionBatch:
        """Pack items."""
        return pack_captions(items, self.db.meta)


def caption_texts(path: str | Path, vocab_size: int | None = None) -> TextDb:
    """Open the captions of a caption database (``cap.db``), or a query database of whole videos."""
    return TextDb(Path(path, "cap.db") if _has_clips(path) else path, vocab_size)


def _has_clips(path: str | Path) -> bool:
    return Path(path, "cap.db").is_dir()


def open_captions(
    paths: Sequence[str | Path],
    videos: VideoSource,
    vocab_size: int | None = None,
    max_txt_len: int = -1,
) -> CaptionDataset | WholeVideoCaptions:
    """Open captions to train on: one caption database, or query databases of whole videos.

    Args:
        paths: of the databases.
        videos: reads videos.
        vocab_size: of the model.
        max_txt_len: tokens that are kept of a caption, or that one may have; −1: all.

    Raises:
        UserError: see the two classes; or there are several caption databases.
    """
    of_clips = [path for path in paths if _has_clips(path)]
    if not of_clips:
        return WholeVideoCaptions([TextDb(path, vocab_size) for path in paths], videos, max_txt_len)
    if len(paths) > 1:
        raise UserError(
            f"{of_clips[0]} is a caption database: captions of clips are read from one alone; give "
            "one database (cap_txt_db)"
        )
    return CaptionDataset(caption_texts(paths[0], vocab_size), videos, max_txt_len=max_txt_len)


def pack_captions(
    items: Sequence[CaptionItem], meta: Mapping[str, int], max_txt_len: int = -1
) -> CaptionBatch:
    """Pack items; captions are packed clip by clip, clips video by video, inputs and targets of at
    most ``max_txt_len`` tokens (−1: all)."""
    begin, end = meta["BOS"], meta["EOS"]
    clips = [captions for item in items for captions in item.captions]
    captions = [caption for clip in clips for caption in clip]
    read = cut_texts([[begin, *caption] for caption in captions], max_txt_len)
    wanted = cut_texts([[*caption, end] for caption in captions], max_txt_len)
    lengths = iter(map(len, read))
    return CaptionBatch(
        ids=[item.video.vid for item in items],
        video=collate_videos([item.video for item in items]),
        clips=collate_clips([(item.video, item.clips) for item in items]),
        text=collate_texts(read),
        targets=torch.tensor([token for target in wanted for token in target]),
        by_clip=PackedLayout.from_lengths(
            [sum(islice(lengths, len(clip))) for clip in clips], attended=False
        ),
    )


def collate_clips(videos: Iterable[tuple[VideoItem, Sequence[tuple[int, int]]]]) -> ClipBatch:
    """Pack clips, given in frames of their video, as rows of the frames of all videos."""
    first, lengths, offset = [], [], 0
    for video, clips in videos:
        first += [offset + start for start, _ in clips]
        lengths += [end - start for start, end in clips]
        offset += video.num_frames
    return ClipBatch(torch.tensor(first), torch.tensor(lengths), max(lengths))


@dataclass
class TargetItem:
    """A video and its clips to caption."""

    video: VideoItem
    clips: list[tuple[int, int]]  # first frame, frame after the last
    indices: list[int]  # of the clips in the list of all


class TargetClips:
    """Clips to caption, from JSON lines with ``vid_name, clip_id, ts`` (``descs`` or not).

    Args:
        path: the file.
        videos: reads videos.
        whole_videos: a clip is a whole video, whatever its ``ts``.

    Raises:
        UserError: a line lacks a field, a clip is there twice, or a database lacks a video.
    """

    def __init__(self, path: str | Path, videos: VideoSource, whole_videos: bool = False) -> None:
        self.videos, self.whole_videos = videos, whole_videos
        read = read_clip_lines(path, whole_videos)
        lines = {get_name(line, *CLIP_NAMES.ids): line for line in read}
        known = videos.features.id2nframe
        video_of = {
            id_: feature_name(get_name(line, *CLIP_NAMES.videos), known)
            for id_, line in lines.items()
        }
        ids, self.coverage = available_items(list(lines), video_of, videos, path, "clips")
        self.lines = [lines[id_] for id_ in ids]
        by_video: dict[str, list[int]] = {}
        for index, id_ in enumerate(ids):
            by_video.setdefault(video_of[id_], []).append(index)
        self.by_video = list(by_video.items())
        if whole_videos:
            return
        beyond = [
            line["clip_id"]
            for id_, line in zip(ids, self.lines, strict=True)
            if starts_beyond(line["ts"][0], videos.interval, videos.num_frames(video_of[id_]))
        ]
        warn_of_clips_beyond(beyond, "are captioned from that frame")
        warn_of_clamped(((line["clip_id"], line["ts"]) for line in self.lines), path)

    def __len__(self) -> int:
        return len(self.by_video)

    def __getitem__(self, key: ItemKey | int) -> TargetItem:
        vid, indices = self.by_video[ItemKey.of(key).index]
        video = self.videos(vid)
        if self.whole_videos:
            return TargetItem(video, [(0, video.num_frames)] * len(indices), indices)
        interval = self.videos.interval
        spans = (self.lines[index]["ts"] for index in indices)
        clips = [clip_frames(span, interval, video.num_frames) for span in spans]
        return TargetItem(video, clips, indices)

    @staticmethod
    def collate(items: Sequence[TargetItem]) -> ClipsToCaption:
        """Pack items."""
        return ClipsToCaption(
            indices=[index for item in items for index in item.indices],
            video=collate_videos([item.video for item in items]),
            clips=collate_clips([(item.video, item.clips) for item in items]),
        )
