"""Videos as the model reads them: frames with their subtitles.

A source reads a video by name as a :class:`VideoItem`; :func:`collate_videos` packs items into a
:class:`data.batch.VideoBatch`. All indices are computed here, in the loader's workers, so that a
forward pass has no Python loop over subtitles or frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import torch

from data.batch import SubtitleSequences, TextBatch, VideoBatch
from data.loader import ItemKey
from data.stores.lmdb_io import TextDb
from data.stores.records import SubtitleRecord
from data.usable import Features, require_videos, subtitle_fault
from utils.errors import UserError
from utils.logger import LOGGER
from utils.packing import PackedLayout, segment_positions

ItemT = TypeVar("ItemT")


@dataclass
class Subtitle:
    """A sequence of the cross-modal transformer: a few frames and a text.

    Of ``unseen`` frames the text alone is in the sequence; all of them get the output of its first
    token.
    """

    tokens: list[int]
    frames: list[int]
    unseen: bool = False

    @property
    def positions(self) -> int:
        """Length of the sequence; a subtitle without frames is not read (0)."""
        if not self.frames:
            return 0
        return len(self.tokens) + (0 if self.unseen else len(self.frames))


@dataclass
class VideoItem:
    """One video, cut to ``max_clip_len``."""

    vid: str
    features: np.ndarray  # (T, D) float32, or float16 as stored
    subtitles: list[Subtitle] = field(default_factory=list)  # all, also those without frames

    @property
    def num_frames(self) -> int:
        return len(self.features)


@dataclass
class Transcript:
    """A video's subtitles as stored."""

    texts: Sequence[Sequence[int]]  # tokens of every subtitle
    frames: list[tuple[int, list[int]]]  # number and frames of each kept subtitle


class VideoSource(ABC):
    """Videos of a feature database, with subtitles or without.

    Args:
        features: feature database; it cuts videos to its ``max_clip_len``.
        only_available: leave out videos that are missing.

    Attributes:
        interval: seconds that a frame covers.
    """

    def __init__(self, features: Features, only_available: bool = False) -> None:
        self.features, self.only_available = features, only_available
        self.interval = features.interval

    @abstractmethod
    def __call__(self, vid: str) -> VideoItem:
        """Read one video.

        Raises:
            UserError: a database lacks the video, or it has no frame.
        """

    @abstractmethod
    def positions(self, vid: str) -> int:
        """Return how many frames and tokens the cross-modal transformer sees of a video, without
        reading its features."""

    def count_positions(self, vids: Iterable[str]) -> np.ndarray:
        """Return (videos,) :meth:`positions` of each video, computed once per name."""
        return np.array([*map(cache(self.positions), vids)])

    def __contains__(self, vid: str) -> bool:
        """Return whether a video is available: it is in the databases and has a frame."""
        return self.features.id2nframe.get(vid, 0) > 0 and vid in self.features

    def num_frames(self, vid: str) -> int:
        """Return the number of frames that :meth:`__call__` reads of an available video.

        It is that of the frame counts: where the features have fewer, fewer are read.
        """
        return cut_frames(self.features, vid)

    def seconds(self, vid: str) -> float:
        """Return the duration of a video, before any cut."""
        return self.features.id2nframe[vid] * self.interval

    def require(self, vids: Iterable[str], wanted_by: str) -> list[str]:
        """Check at the start of a run that videos are available.

        Returns:
            The available videos: all, unless ``only_available``.

        Raises:
            UserError: some are missing (with ``only_available``: all are); names the first, and
                ``wanted_by``, the file that lists them.
        """
        vids = list(vids)
        if not self.only_available:
            self.require_all(vids, wanted_by)
            return vids
        available = [vid for vid in vids if vid in self]
        if vids and not available:
            raise UserError(
                f"none of the {len(vids)} videos of {wanted_by} (first: {vids[0]}) is there, even "
                f"with --only_available: does the feature database {self.features.path} belong to "
                "them?"
            )
        return available

    def require_all(self, vids: Sequence[str], wanted_by: str) -> None:
        """Raise UserError if a video is missing."""
        require_videos(self.features, vids, wanted_by)


class SubtitleSource(VideoSource):
    """Videos with their subtitles.

    Args:
        subtitles: subtitle database.
        features, only_available: see :class:`VideoSource`.
        context: how many previous subtitles' tokens are put before a subtitle's own.
    """

    def __init__(
        self,
        subtitles: TextDb,
        features: Features,
        context: int = 0,
        only_available: bool = False,
    ) -> None:
        super().__init__(features, only_available)
        self.subtitles = subtitles
        self.context = context
        fault = subtitle_fault(subtitles)
        if fault:
            LOGGER.warning("%s: %s", subtitles.path, fault)

    def __call__(self, vid: str) -> VideoItem:
        """See :class:`VideoSource`."""
        features = read_features(self.features, vid)
        transcript = self.transcript(vid, len(features))
        return VideoItem(vid, features, self.with_context(transcript))

    def __contains__(self, vid: str) -> bool:
        """See :class:`VideoSource`."""
        return super().__contains__(vid) and vid in self.subtitles

    def require_all(self, vids: Sequence[str], wanted_by: str) -> None:
        """See :class:`VideoSource`."""
        super().require_all(vids, wanted_by)
        missing = [vid for vid in vids if vid not in self.subtitles]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(vids)} videos of {wanted_by} (first: {missing[0]}) are "
                f"not in the subtitle database {self.subtitles.path}; make it again from subtitles "
                "that cover them (scripts/prepro_sub.py), or leave what is missing out "
                "(--only_available)"
            )

    def positions(self, vid: str) -> int:
        """See :class:`VideoSource`."""
        subtitles = self.with_context(self.transcript(vid, self.num_frames(vid)))
        return sum(subtitle.positions for subtitle in subtitles)

    def transcript(self, vid: str, num_frames: int) -> Transcript:
        """Return the subtitles of a video whose features have ``num_frames`` frames; UserError if
        the database lacks it."""
        record = self.subtitles.read(vid, SubtitleRecord)
        kept = kept_frames(record.unique_sub2frames, num_frames, self.features.max_clip_len)
        return Transcript(record.input_ids, kept)

    def with_context(self, transcript: Transcript) -> list[Subtitle]:
        """Return the kept subtitles, each with the text of previous ones before its own."""
        separator = self.subtitles.meta["SEP"]
        return [
            Subtitle(context_tokens(transcript.texts, number, self.context, separator), frames)
            for number, frames in transcript.frames
        ]


class VideoOnlySource(VideoSource):
    """Videos without subtitles: one pseudo-subtitle of the token ``<s>`` over all frames."""

    def __init__(self, features: Features, cls_id: int, only_available: bool = False) -> None:
        super().__init__(features, only_available)
        self.cls_id = cls_id

    def __call__(self, vid: str) -> VideoItem:
        """See :class:`VideoSource`."""
        features = read_features(self.features, vid)
        return VideoItem(vid, features, [Subtitle([self.cls_id], list(range(len(features))))])

    def positions(self, vid: str) -> int:
        """See :class:`VideoSource`."""
        return self.num_frames(vid) + 1


class SubtitleOnlySource(SubtitleSource):
    """Subtitles over frames whose features are zero (none are read); texts begin with ``<s>``."""

    def __call__(self, vid: str) -> VideoItem:
        """See :class:`VideoSource`."""
        frames = self.num_frames(vid)
        if frames == 0:
            read_features(self.features, vid)  # raises
        features = np.zeros((frames, self.features.width), dtype=np.float32)
        return VideoItem(vid, features, self.with_context(self.transcript(vid, frames)))

    def with_context(self, transcript: Transcript) -> list[Subtitle]:
        """See :class:`SubtitleSource`."""
        begin = self.subtitles.meta["CLS"]
        return [
            Subtitle([begin, *subtitle.tokens[1:]], subtitle.frames, unseen=True)
            for subtitle in super().with_context(transcript)
        ]


class VideoDataset(ABC, Generic[ItemT]):
    """One item per video, drawn at random.

    Args:
        vids: the videos.
        source: reads them.
        seed: of the draws.
    """

    def __init__(self, vids: Sequence[str], source: VideoSource, seed: int) -> None:
        self.vids, self.source, self.seed = list(vids), source, seed

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> ItemT:
        """Return the item of a video, or of the next one (cyclically) that has any; UserError if
        none has."""
        key = ItemKey.of(key)
        for index in range(key.index, key.index + len(self.vids)):
            vid = self.vids[index % len(self.vids)]
            if (item := self.item(vid, key.generator(self.seed))) is not None:
                return item
        raise UserError(
            "no video has anything to learn from within its features; convert the features again"
        )

    @abstractmethod
    def item(self, vid: str, rng: np.random.Generator) -> ItemT | None:
        """Return the item of a video, drawn with ``rng``; None if its features, shorter than its
        frame count, leave nothing to learn from: another video is read instead."""


def cut_frames(db: Features, vid: str) -> int:
    """Return the number of frames of a video after the cut to ``max_clip_len``."""
    frames = db.id2nframe[vid]
    return frames if db.max_clip_len < 0 else min(frames, db.max_clip_len)


def longest_video(*databases: Features) -> int:
    """Return the number of frames of the longest video, after the cut to ``max_clip_len``."""
    counts = (cut_frames(db, vid) for db in databases for vid in db.id2nframe)
    return max(counts, default=0)


def read_features(db: Features, vid: str) -> np.ndarray:
    """Return the features (T, D) of a video; UserError if it is missing or has no frame."""
    features = db[vid]
    if len(features) == 0:
        raise UserError(f"video {vid} has no frame in {db.path}; leave it out or extract it again")
    return features


def context_tokens(
    texts: Sequence[Sequence[int]], number: int, context: int, separator: int
) -> list[int]:
    """Return ``</s>`` and the tokens of subtitles number−context … number, concatenated."""
    tokens = [separator]
    for text in texts[max(0, number - context) : number + 1]:
        tokens.extend(text)
    return tokens


def cut_texts(texts: Sequence[Sequence[int]], max_txt_len: int) -> list[Sequence[int]]:
    """Cut texts to ``max_txt_len`` tokens each; −1 keeps all."""
    return [text[:max_txt_len] if max_txt_len >= 0 else text for text in texts]


def kept_frames(
    sub2frames: Sequence[tuple[int, Sequence[int]]], num_frames: int, max_clip_len: int = -1
) -> list[tuple[int, list[int]]]:
    """Return the subtitles that are kept, with those of their frames that exist.

    The first subtitle that loses a frame to ``max_clip_len`` is the last one kept, and is dropped
    too if it loses all of them. Frames that only the features lack are left out one by one.

    Args:
        sub2frames: number and frames of each subtitle.
        num_frames: of the features, after the cut.
        max_clip_len: frames that are kept of a video; −1: all.
    """
    kept: list[tuple[int, list[int]]] = []
    for number, frames in sub2frames:
        within = [frame for frame in frames if max_clip_len < 0 or frame < max_clip_len]
        if within or not frames:
            kept.append((number, [frame for frame in within if frame < num_frames]))
        if len(within) < len(frames):
            break
    return kept


def collate_texts(texts: Sequence[Sequence[int]]) -> TextBatch:
    """Pack texts of token ids (each at least one token)."""
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    return TextBatch(
        token_ids=_flat(texts),
        positions=torch.from_numpy(segment_positions(lengths)),
        layout=PackedLayout.from_lengths(lengths),
    )


def collate_videos(
    items: Sequence[VideoItem], text_alone: bool = False, texts: Sequence[Sequence[int]] = ()
) -> VideoBatch:
    """Pack videos.

    Args:
        items: the videos.
        text_alone: run subtitles without a frame too, for masked language modelling.
        texts: token ids of further texts to run, such as queries; they come last.
    """
    lengths = np.array([item.num_frames for item in items], dtype=np.int64)
    first_frame = np.cumsum(lengths) - lengths
    sequences = [
        (first, subtitle)
        for first, item in zip(first_frame, items, strict=True)
        for subtitle in item.subtitles
        if subtitle.frames or text_alone
    ]
    return VideoBatch(
        vids=[item.vid for item in items],
        features=torch.from_numpy(np.concatenate([item.features for item in items])),
        frame_positions=torch.from_numpy(segment_positions(lengths)),
        layout=PackedLayout.from_lengths(lengths),
        subtitles=pack_sequences(sequences + [(0, Subtitle(list(text), [])) for text in texts]),
    )


def pack_sequences(
    sequences: Sequence[tuple[int, Subtitle]], targets_from: Sequence[int] | None = None
) -> SubtitleSequences:
    """Pack ``[frames, tokens]`` sequences.

    Args:
        sequences: (first frame of its video among the batch's frames, subtitle).
        targets_from: first output row of each sequence's video; None = its first frame.
            (Candidate answers run the same frames several times, each time into other rows.)
    """
    subtitles = [subtitle for _, subtitle in sequences]
    unseen = np.array([subtitle.unseen for subtitle in subtitles], dtype=bool)
    shown = np.array([len(subtitle.frames) for subtitle in subtitles], dtype=np.int64)
    tokens = np.array([len(subtitle.tokens) for subtitle in subtitles], dtype=np.int64)
    firsts = np.array([first for first, _ in sequences], dtype=np.int64)
    targets = firsts if targets_from is None else np.asarray(targets_from, dtype=np.int64)
    slots = np.where(unseen, 0, shown)
    layout = PackedLayout.from_lengths(slots + tokens).in_place()
    starts = layout.offsets.numpy()
    slot_positions = segment_positions(slots)
    token_positions = segment_positions(tokens)
    slot_rows = np.repeat(starts, slots) + slot_positions
    token_rows = np.repeat(starts + slots, tokens) + token_positions
    order = np.zeros(layout.total, dtype=np.int64)
    order[slot_rows] = np.arange(len(slot_rows))
    order[token_rows] = len(slot_rows) + np.arange(len(token_rows))
    in_slots = _flat([subtitle.frames for subtitle in subtitles if not subtitle.unseen])
    frames = _flat([subtitle.frames for subtitle in subtitles])
    sources = None
    if unseen.any():  # one row, that of the first token, for all frames of a sequence
        rows = np.where(unseen, np.minimum(shown, 1), shown)
        slot_rows = np.repeat(starts, rows) + segment_positions(rows)
        offsets = np.where(np.repeat(unseen, shown), 0, segment_positions(shown))
        sources = torch.from_numpy(np.repeat(np.cumsum(rows) - rows, shown) + offsets)
    return SubtitleSequences(
        slot_frames=in_slots + torch.from_numpy(np.repeat(firsts, slots)),
        slot_positions=torch.from_numpy(slot_positions),
        slot_targets=frames + torch.from_numpy(np.repeat(targets, shown)),
        slot_rows=torch.from_numpy(slot_rows),
        slot_sources=sources,
        token_ids=_flat([subtitle.tokens for subtitle in subtitles]),
        token_positions=torch.from_numpy(token_positions),
        order=torch.from_numpy(order),
        layout=layout,
        longest_slots=int(slots.max(initial=0)),
    )


def _flat(lists: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.fromiter(chain.from_iterable(lists), dtype=np.int64))
