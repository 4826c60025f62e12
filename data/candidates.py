"""Candidate texts about a video: answers to a question, statements.

Every candidate is run with the video once: it follows each subtitle's text, and the frames in the
temporal transformer (paper, section 4.3).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from data.batch import CandidateBatch, JudgedBatch
from data.coverage import available_items
from data.loader import ItemKey
from data.stores.lmdb_io import TextDb
from data.stores.records import QuestionRecord, StatementRecord
from data.vcmr import usable_query_ids
from data.video import Subtitle, VideoItem, VideoSource, collate_videos, pack_sequences
from data.video_pool import query_videos
from utils.errors import UserError
from utils.packing import PackedLayout

UNKNOWN = -1


@dataclass
class CandidateItem:
    """A video and its candidate texts."""

    ids: list[str]
    video: VideoItem
    texts: list[list[int]]  # tokens of each candidate, ``</s>`` first
    targets: list[int]  # label of each id, or UNKNOWN


RecordT = TypeVar("RecordT", StatementRecord, QuestionRecord)
ItemT = TypeVar("ItemT", bound=CandidateItem)


class CandidateDataset(ABC, Generic[RecordT, ItemT]):
    """The questions or statements of a database.

    Args:
        db: their database.
        videos: reads videos.
        max_txt_len: longer texts are left out; −1 keeps all.
        training: every item must have a label.

    Raises:
        UserError: no text is short enough, or one has no video.
    """

    kind: str  # of items, for messages
    label: str  # of an item, for messages
    record_type: type[RecordT]

    def __init__(
        self, db: TextDb, videos: VideoSource, max_txt_len: int = -1, training: bool = False
    ) -> None:
        self.db = db
        self.videos = videos
        self.training = training
        self.ids = usable_query_ids(db, max_txt_len, self.record_type.shared)
        self.video_of = video_of = query_videos(db, videos.features.id2nframe)
        without = [id_ for id_ in self.ids if id_ not in video_of]
        if without:
            raise UserError(
                f"{self.kind} {without[0]} of {db.path} has no video ({len(without)} such); make "
                "the database again from an annotation that names vid_name"
            )
        self.ids, self.coverage = available_items(
            self.ids, video_of, videos, db.path, f"{self.kind}s"
        )
        self.inspect((id_, db.read(id_, self.record_type)) for id_ in self.ids)

    def inspect(self, records: Iterable[tuple[str, RecordT]]) -> None:
        """Check all records, before the first is needed; UserError if one is malformed."""
        for id_, record in records:
            self.target(id_, record)

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, key: ItemKey | int, /) -> ItemT: ...

    @staticmethod
    @abstractmethod
    def collate(items: Sequence[ItemT]) -> JudgedBatch:
        """Pack items."""

    def positions(self) -> np.ndarray:
        """Return (items,) how many positions of each item's video the cross-modal transformer sees;
        every candidate runs as many and its own tokens."""
        return self.videos.count_positions(self.video_of[id_] for id_ in self.ids)

    def target(self, id_: str, record: RecordT) -> int:
        """Return the index of a record's right choice, or UNKNOWN; UserError if it is out of range,
        or missing in training."""
        target = record.target
        if target is None and not self.training:
            return UNKNOWN
        if target is None or not 0 <= target < record.choices:
            given = "none" if target is None else target
            raise UserError(
                f"{self.kind} {id_} of {self.db.path} needs a {self.label} (target) from 0 to "
                f"{record.choices - 1}, it has {given}; fix the annotation and make the database "
                "again"
            )
        return target


def pack_candidates(items: Sequence[CandidateItem]) -> CandidateBatch:
    """Pack videos and their candidate texts, item by item."""
    videos = [item.video for item in items]
    lengths = [video.num_frames for video in videos]
    firsts = np.cumsum(lengths) - lengths
    total = sum(lengths)
    subtitles, targets_from, temporal, runs = [], [], [], []
    for item, first in zip(items, firsts, strict=True):
        shown = [subtitle for subtitle in item.video.subtitles if subtitle.frames]
        every = list(range(item.video.num_frames))
        for copy, text in enumerate(item.texts):
            own = int(first) + copy * total
            subtitles += [(first, replace(sub, tokens=sub.tokens + text)) for sub in shown]
            targets_from += [own] * len(shown)
            temporal.append((own, Subtitle(text, every)))
            runs.append(item.video.num_frames)
    batch = collate_videos([VideoItem(video.vid, video.features) for video in videos])
    return CandidateBatch(
        video=replace(batch, subtitles=pack_sequences(subtitles, targets_from)),
        copies=max(len(item.texts) for item in items),
        temporal=pack_sequences(temporal),
        runs=PackedLayout.from_lengths(runs, attended=False),
    )
