"""Videos as the model reads them: frames, and the subtitles spoken over them.

A source turns a video's name into a :class:`VideoItem`; :func:`collate_videos` packs items into a
:class:`data.batch.VideoBatch`. Everything is indexed here, in the loader's worker, so that a
forward pass has no Python loop over subtitles or frames.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol

import numpy as np
import torch

from data.batch import SubtitleSequences, TextBatch, VideoBatch
from data.stores.lmdb_io import TextDb
from data.stores.records import SubtitleRecord
from data.usable import Features, require_features, subtitle_fault
from utils.errors import UserError
from utils.logger import LOGGER
from utils.packing import PackedLayout, segment_positions


@dataclass
class Subtitle:
    """What the cross-modal transformer reads at once: a few frames and a text.

    Where the frames are ``unseen`` it reads the text alone, and all of them get what it says of the
    text's first token.
    """

    tokens: list[int]
    frames: list[int]
    unseen: bool = False

    @property
    def positions(self) -> int:
        """How many the transformer sees; none of a subtitle without frames."""
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
    frames: list[tuple[int, list[int]]]  # number and frames of each that is kept


class VideoSource(Protocol):
    """Where videos come from: with subtitles, or without."""

    features: Features
    interval: float  # seconds a frame covers
    only_available: bool  # videos that are not there are left out

    def __call__(self, vid: str) -> VideoItem: ...

    def __contains__(self, vid: str) -> bool:
        """Return whether a video is there, and has a frame."""

    def num_frames(self, vid: str) -> int:
        """Return how many frames :meth:`__call__` will read of a video that is there.

        They are not read: where the features have fewer than ``id2nframe.json`` says, fewer are.
        """

    def positions(self, vid: str) -> int:
        """Frames and tokens that the cross-modal transformer sees of a video; reads no features."""

    def seconds(self, vid: str) -> float:
        """Return how long a video is, before any cut."""

    def require(self, vids: Iterable[str], wanted_by: str) -> list[str]:
        """Check at the start, not in the middle of a run, that videos are there.

        Returns:
            Those that are there: all, unless ``only_available``.

        Raises:
            UserError: some are not (with ``only_available``: none is); names the first and who
                wants them.
        """


class _FromFeatures:
    """A source with a feature database."""

    features: Features
    interval: float
    only_available: bool

    def __contains__(self, vid: str) -> bool:
        """See :class:`VideoSource`."""
        return self.features.id2nframe.get(vid, 0) > 0 and vid in self.features

    def num_frames(self, vid: str) -> int:
        """See :class:`VideoSource`."""
        return cut_frames(self.features, vid)

    def seconds(self, vid: str) -> float:
        """See :class:`VideoSource`."""
        return self.features.id2nframe[vid] * self.interval

    def require(self, vids: Iterable[str], wanted_by: str) -> list[str]:
        """See :class:`VideoSource`."""
        vids = list(vids)
        if not self.only_available:
            self.require_all(vids, wanted_by)
            return vids
        there = [vid for vid in vids if vid in self]
        if vids and not there:
            raise UserError(
                f"none of the {len(vids)} videos of {wanted_by} (first: {vids[0]}) is there, even "
                f"with --only_available: does the feature database {self.features.path} belong to "
                "them?"
            )
        return there

    def require_all(self, vids: Sequence[str], wanted_by: str) -> None:
        """Raise UserError if one is not there."""
        require_features(self.features, vids, wanted_by)


class SubtitleSource(_FromFeatures):
    """Videos with their subtitles.

    Args:
        subtitles: subtitle database.
        features: feature database; it cuts videos to its ``max_clip_len``.
        context: how many previous subtitles' tokens stand before a subtitle's own.
        only_available: leave out videos that are not there.
    """

    def __init__(
        self,
        subtitles: TextDb,
        features: Features,
        context: int = 0,
        only_available: bool = False,
    ) -> None:
        self.subtitles = subtitles
        self.features = features
        self.context = context
        self.only_available = only_available
        self.interval = features.interval
        fault = subtitle_fault(subtitles)
        if fault:
            LOGGER.warning("%s: %s", subtitles.path, fault)

    def __call__(self, vid: str) -> VideoItem:
        """Read one video.

        Raises:
            UserError: a database lacks the video.
        """
        features = read_features(self.features, vid)
        transcript = self.transcript(vid, len(features))
        return VideoItem(vid, features, self.with_context(transcript))

    def __contains__(self, vid: str) -> bool:
        """See :class:`VideoSource`."""
        return super().__contains__(vid) and vid in self.subtitles

    def require_all(self, vids: Sequence[str], wanted_by: str) -> None:
        """Raise UserError if one is not there."""
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
        """Return what is said over a video whose features have ``num_frames`` frames.

        Raises:
            UserError: the database lacks the video.
        """
        if vid not in self.subtitles:
            raise UserError(
                f"video {vid} is not in the subtitle database {self.subtitles.path}; "
                "make the database again from subtitles that cover it (scripts/prepro_sub.py)"
            )
        record = self.subtitles.read(vid, SubtitleRecord)
        kept = kept_frames(record.unique_sub2frames, num_frames, self.features.max_clip_len)
        return Transcript(record.input_ids, kept)

    def with_context(self, transcript: Transcript) -> list[Subtitle]:
        """The kept subtitles, each with the text of those before it in front of its own."""
        separator = self.subtitles.meta["SEP"]
        return [
            Subtitle(context_tokens(transcript.texts, number, self.context, separator), frames)
            for number, frames in transcript.frames
        ]


class VideoOnlySource(_FromFeatures):
    """Videos without subtitles: one pseudo-subtitle of the token ``<s>`` over all frames."""

    def __init__(self, features: Features, cls_id: int, only_available: bool = False) -> None:
        self.features = features
        self.cls_id = cls_id
        self.only_available = only_available
        self.interval = features.interval

    def __call__(self, vid: str) -> VideoItem:
        features = read_features(self.features, vid)
        every = list(range(len(features)))
        return VideoItem(vid, features, [Subtitle([self.cls_id], every)])

    def positions(self, vid: str) -> int:
        """See :class:`VideoSource`."""
        return self.num_frames(vid) + 1


class SubtitleOnlySource(SubtitleSource):
    """Subtitles over frames that are not read: their features are zero, and a text begins with
    ``<s>``."""

    def __call__(self, vid: str) -> VideoItem:
        """Read one video.

        Raises:
            UserError: a database lacks the video.
        """
        item = super().__call__(vid)
        return replace(item, features=np.zeros_like(item.features))

    def with_context(self, transcript: Transcript) -> list[Subtitle]:
        """See :class:`SubtitleSource`."""
        begin = self.subtitles.meta["CLS"]
        return [
            Subtitle([begin, *subtitle.tokens[1:]], subtitle.frames, unseen=True)
            for subtitle in super().with_context(transcript)
        ]


def cut_frames(db: Features, vid: str) -> int:
    """Frames of a video after the cut to ``max_clip_len``."""
    frames = db.id2nframe[vid]
    return frames if db.max_clip_len < 0 else min(frames, db.max_clip_len)


def longest_video(*databases: Features) -> int:
    """Return the frames of the longest video of all, after the cut to ``max_clip_len``."""
    counts = (cut_frames(db, vid) for db in databases for vid in db.id2nframe)
    return max(counts, default=0)


def read_features(db: Features, vid: str) -> np.ndarray:
    """Features (T, D) of a video.

    Raises:
        UserError: the database lacks the video, or it has no frame.
    """
    features = db[vid]
    if len(features) == 0:
        raise UserError(f"video {vid} has no frame in {db.path}; leave it out or extract it again")
    return features


def context_tokens(
    texts: Sequence[Sequence[int]], number: int, context: int, separator: int
) -> list[int]:
    """``</s>``, then the tokens of subtitles number−context … number, with none between."""
    tokens = [separator]
    for text in texts[max(0, number - context) : number + 1]:
        tokens.extend(text)
    return tokens


def cut_texts(texts: Sequence[Sequence[int]], max_txt_len: int) -> list[Sequence[int]]:
    """Texts of at most ``max_txt_len`` tokens each; −1 keeps all."""
    return [text[:max_txt_len] if max_txt_len >= 0 else text for text in texts]


def kept_frames(
    sub2frames: Sequence[tuple[int, Sequence[int]]], num_frames: int, max_clip_len: int = -1
) -> list[tuple[int, list[int]]]:
    """Return the subtitles that are kept, with those of their frames that exist.

    Subtitles after the first one that loses a frame to ``max_clip_len`` (−1: no cut) are dropped,
    as is one that loses all of its frames to it. Frames that only the features lack are left out
    one by one.

    Args:
        sub2frames: number and frames of each subtitle.
        num_frames: of the features, after the cut.
        max_clip_len: frames that are kept of a video.
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
        text_alone: run subtitles without a frame too, as masked language modelling reads them;
            nothing else reads their output.
        texts: token ids of others to run with them, such as queries; they come last.
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
        targets_from: where the output rows of each sequence's video begin; None = where its frames
            do. (Candidate answers run the same frames several times, into rows of their own.)
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
        places = np.where(np.repeat(unseen, shown), 0, segment_positions(shown))
        sources = torch.from_numpy(np.repeat(np.cumsum(rows) - rows, shown) + places)
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
