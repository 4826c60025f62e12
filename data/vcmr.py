"""Retrieval of moments and videos: TVR, How2R, DiDeMo, MSR-VTT.

One data set serves them all, with a :class:`data.video.VideoSource` (with or without subtitles) and
a query database.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import MomentBatch, QueryBatch
from data.coverage import available_items
from data.loader import ItemKey
from data.moments import training_moment, warn_of_clamped, warn_of_units
from data.stores.lmdb_io import TextDb
from data.stores.records import QueryRecord
from data.video import VideoItem, VideoSource, collate_texts, collate_videos
from data.video_pool import query_videos
from utils.errors import UserError, brief

QUERIES_PER_VIDEO = 5  # where a training item is a video


def moment_frames(start: float, end: float, interval: float, num_frames: int) -> tuple[int, int]:
    """Return the first and last frame of a moment in seconds, clamped to the video's frames."""
    last = num_frames - 1
    first = min(max(math.floor(start / interval), 0), last)
    return first, min(max(math.ceil(end / interval) - 1, first + 1), last)


def query_tokens(input_ids: Sequence[int], meta: dict) -> list[int]:
    """Return ``<s>`` and the query, without ``</s>``."""
    return [meta["CLS"], *input_ids]


def usable_query_ids(db: TextDb, max_txt_len: int = -1, shared: int | None = None) -> list[str]:
    """Return ids in database order, without those of texts longer than ``max_txt_len`` (−1: all).

    A question's length is that of the question plus its longest answer.

    Args:
        db: of the queries.
        max_txt_len: tokens.
        shared: how many of an id's texts (the question, if any) are read with each of the others;
            None: an id has one text.

    Raises:
        UserError: none is left, one has no record, or they are of another kind.
    """
    lengths = db.side("id2len.json")
    parts = shared is not None
    wrong = next((i for i, value in lengths.items() if isinstance(value, list) != parts), None)
    if wrong is not None:
        wanted = "of a question and its answers" if parts else "of one text"
        raise UserError(
            f"{db.path / 'id2len.json'}: {brief(wrong)} has {brief(lengths[wrong])}, no length "
            f"{wanted}; give a database of this task"
        )
    lost = lengths.keys() - set(db.keys())
    if lost:
        raise UserError(
            f"{db.path} lacks {len(lost)} of the {len(lengths)} records that its id2len.json names "
            f"(first: {min(lost)}); make the database again"
        )

    def length(value: int | list[int]) -> int:
        return sum(value[:shared]) + max(value[shared:]) if isinstance(value, list) else value

    ids = [i for i, value in lengths.items() if max_txt_len < 0 or length(value) <= max_txt_len]
    if not ids:
        raise UserError(
            f"{db.path} has no query of at most {max_txt_len} tokens; raise max_txt_len"
        )
    return ids


def learnable_queries(db: TextDb, videos: VideoSource, max_txt_len: int = -1) -> dict[str, str]:
    """Return {query: video} to train on or to compute losses of, in database order.

    Raises:
        UserError: none of at most ``max_txt_len`` tokens (−1: any) is left, or one has no video.
    """
    ids, video_of = usable_query_ids(db, max_txt_len), query_videos(db, videos.features.id2nframe)
    without = [i for i in ids if i not in video_of]
    if without:
        raise UserError(
            f"query {without[0]} of {db.path} has no video ({len(without)} such queries): this "
            "split cannot train or validate a loss; use one whose annotation names vid_name"
        )
    ids, _ = available_items(ids, video_of, videos, db.path, "queries")
    return {i: video_of[i] for i in ids}


@dataclass
class MomentItem:
    """A video and one or more queries about it."""

    video: VideoItem
    queries: list[list[int]]
    targets: list[tuple[int, int]]  # frames; (−1, −1) = none
    ids: list[str]


class MomentDataset:
    """Training and validation items of moment and video retrieval.

    Args:
        db: query database with videos.
        videos: reads videos.
        max_txt_len: longer queries are left out; −1 keeps all.
        sampled_by_q: an item is a query with its video; otherwise a video with five of its queries
            (of fewer, some are repeated at random).
        seed: of the draws.
    """

    def __init__(
        self,
        db: TextDb,
        videos: VideoSource,
        max_txt_len: int = -1,
        sampled_by_q: bool = True,
        seed: int = 0,
    ) -> None:
        self.db = db
        self.videos = videos
        self.seed = seed
        self.video_of = video_of = learnable_queries(db, videos, max_txt_len)
        ids = list(video_of)
        read = ((i, training_moment(db.read(i, QueryRecord))) for i in ids)
        moments = [(i, moment) for i, moment in read if moment is not None]
        warn_of_clamped(moments, db.path)
        warn_of_units(((moment, videos.seconds(video_of[i])) for i, moment in moments), db.path)
        self.groups: list[list[str]] = [[i] for i in ids]
        if not sampled_by_q:
            by_video: dict[str, list[str]] = {}
            for i in ids:
                by_video.setdefault(video_of[i], []).append(i)
            self.groups = list(by_video.values())
        self.sampled_by_q = sampled_by_q

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, key: ItemKey | int) -> MomentItem:
        key = ItemKey.of(key)
        ids = self.groups[key.index]
        if not self.sampled_by_q:
            ids = self._draw(ids, key.generator(self.seed))
        records = [self.db.read(i, QueryRecord) for i in ids]
        video = self.videos(self.video_of[ids[0]])
        return MomentItem(
            video,
            [query_tokens(record.input_ids, self.db.meta) for record in records],
            [self._target(record, video) for record in records],
            list(ids),
        )

    def positions(self) -> np.ndarray:
        """Return (items,) how many positions of each video the cross-modal transformer sees."""
        return self.videos.count_positions(self.video_of[ids[0]] for ids in self.groups)

    def _draw(self, ids: list[str], rng: np.random.Generator) -> list[str]:
        if len(ids) >= QUERIES_PER_VIDEO:
            return [ids[i] for i in rng.permutation(len(ids))[:QUERIES_PER_VIDEO]]
        repeated = rng.integers(len(ids), size=QUERIES_PER_VIDEO - len(ids))
        return ids + [ids[i] for i in repeated]

    def _target(self, record: QueryRecord, video: VideoItem) -> tuple[int, int]:
        moment = training_moment(record)
        if moment is None:
            return -1, -1
        return moment_frames(*moment, self.videos.interval, video.num_frames)


def collate_moments(items: Sequence[MomentItem]) -> MomentBatch:
    """Pack items; queries are packed video by video."""
    counts = torch.tensor([len(item.queries) for item in items])
    queries = [query for item in items for query in item.queries]
    text = collate_texts(queries)
    video = collate_videos([item.video for item in items], texts=queries)
    firsts = video.subtitles.layout.offsets[-len(queries) :]
    return MomentBatch(
        ids=[i for item in items for i in item.ids],
        video=video,
        text=text,
        targets=torch.tensor([target for item in items for target in item.targets]),
        query_video=torch.repeat_interleave(torch.arange(len(items)), counts),
        text_rows=firsts.repeat_interleave(text.layout.lengths) + text.positions,
    )


class CorpusVideos:
    """The videos of a corpus to search, one at a time."""

    def __init__(self, vids: Sequence[str], videos: VideoSource) -> None:
        self.vids = list(vids)
        self.videos = videos

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> VideoItem:
        return self.videos(self.vids[ItemKey.of(key).index])


class CorpusQueries:
    """All queries of a split, in database order.

    Args:
        db: query database, with or without videos.
        raw_ids: results name a query by its raw ``desc_id`` (a number in TVR), not by a string.
        video_of: the queries' videos; None: those that the database names.
    """

    def __init__(
        self, db: TextDb, raw_ids: bool = True, video_of: Mapping[str, str] | None = None
    ) -> None:
        self.db = db
        self.raw_ids = raw_ids
        self.ids = usable_query_ids(db)
        self.video_of = query_videos(db) if video_of is None else video_of

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: ItemKey | int) -> tuple[str, QueryRecord]:
        id_ = self.ids[ItemKey.of(key).index]
        return id_, self.db.read(id_, QueryRecord)

    def collate(self, items: Sequence[tuple[str, QueryRecord]]) -> QueryBatch:
        """Pack ids and records of the database."""
        return QueryBatch(
            qids=[id_ for id_, _ in items],
            desc_ids=[
                record.desc_id if self.raw_ids and record.desc_id is not None else id_
                for id_, record in items
            ],
            vids=[self.video_of.get(id_) for id_, _ in items],
            text=collate_texts([query_tokens(r.input_ids, self.db.meta) for _, r in items]),
        )
