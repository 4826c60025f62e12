"""Batches for the model: packed, nothing padded.

Letters: B videos · F frames of all videos · S subtitle sequences · K frame slots in them · P packed
positions · N queries · D feature width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from config.groups import Kind
from utils.batch import TensorBatch
from utils.packing import PackedLayout, length_mask


@dataclass
class ItemBatch(TensorBatch):
    """Items to train on or to predict."""

    ids: list[str]  # for error messages


@dataclass
class TextBatch(TensorBatch):
    """N texts, packed."""

    token_ids: Tensor  # (P,) long
    positions: Tensor  # (P,) long, index within its text
    layout: PackedLayout  # N sequences


@dataclass
class SubtitleSequences(TensorBatch):
    """S sequences ``[frames of the subtitle, its tokens]`` for the cross-modal transformer.

    A slot is a frame's position in a sequence. Slots and tokens are embedded separately; row p of
    the packed sequences is row ``order[p]`` of ``cat(slots, tokens)``. Packed rows are the cells of
    attention's bins; those that belong to no sequence repeat row 0. A sequence whose frames are not
    read has no slots: the output of its first token is added to each of its frames.
    """

    slot_frames: Tensor  # (K,) long, which of the batch's F frames is in the slot
    slot_positions: Tensor  # (K,) long, its index among the frames of the sequence
    slot_rows: Tensor  # (R,) long, the packed rows that are read: every slot's, or a first token's
    slot_targets: Tensor  # (T,) long, output row of every frame of every sequence
    slot_sources: Tensor | None  # (T,) long, which of the R rows is added there; None: row by row
    token_ids: Tensor  # (Q,) long
    token_positions: Tensor  # (Q,) long
    order: Tensor  # (P,) long
    layout: PackedLayout  # S sequences of P positions in all
    longest_slots: int  # most slots of one sequence

    def join(self, slots: Tensor, tokens: Tensor) -> Tensor:
        """Return embedded slots (K, H) and tokens (Q, H) as packed sequences (P, H)."""
        return torch.cat([slots, tokens.to(slots.dtype)]).index_select(0, self.order)


@dataclass
class VideoBatch(TensorBatch):
    """B videos; their frames are concatenated."""

    vids: list[str]
    features: Tensor  # (F, D) float32; float16 as stored until it is on the device
    frame_positions: Tensor  # (F,) long, a frame's index in its video
    layout: PackedLayout  # B sequences of F frames in all
    subtitles: SubtitleSequences

    @property
    def frame_lens(self) -> Tensor:
        """(B,) frames of every video."""
        return self.layout.lengths


@dataclass
class QueryBatch(TensorBatch):
    """N queries for retrieval; ``vids`` and ``desc_ids`` are as the annotation gives them."""

    qids: list[str]
    desc_ids: list[str | int]
    vids: list[str | None]
    text: TextBatch


@dataclass
class MomentBatch(ItemBatch):
    """Videos and the queries about them, video by video, N/B each (training).

    ``video.subtitles`` ends with the queries, as texts without frames, so that the cross-modal
    transformer runs once for all.
    """

    video: VideoBatch
    text: TextBatch  # the queries
    targets: Tensor  # (N, 2) long, first and last frame of the moment; −1 = none
    query_video: Tensor  # (N,) long, index of the query's video in the batch
    text_rows: Tensor  # (P,) long, packed rows of the queries in ``video.subtitles``


@dataclass
class CandidateBatch(TensorBatch):
    """B videos and C texts about them; every video is run once for each of its texts.

    A video's features are stored once. Copy k of the F frames (rows k·F … k·F + F − 1) belongs to
    the k-th text of each video; the outputs of ``video.subtitles`` are added to the rows of
    ``copies`` × F.
    """

    video: VideoBatch  # its subtitles: each of a video's, once per text, with the text appended
    copies: int  # most texts of one video
    temporal: SubtitleSequences  # C sequences [all frames of a copy, tokens of the text]
    runs: PackedLayout  # C sequences of frames: what the temporal transformer returns


@dataclass
class JudgedBatch(ItemBatch):
    """N items, each with one or several candidate texts, and their labels."""

    candidates: CandidateBatch
    targets: Tensor  # (N,) long; −1 = unknown
    counts: dict[str, int]  # items that have a target, by loss


@dataclass
class QuestionBatch(JudgedBatch):
    """N questions with K answers each (C = N · K, question by question); a target is the index of
    the right answer."""

    spans: Tensor  # (N, 2) long, first and last frame to attend to; −1 = none
    frame_runs: Tensor  # (F, K) long, rows of each frame's copies among the candidates' frames


@dataclass
class StatementBatch(JudgedBatch):
    """C statements about B videos; a target is 1 = true, 0 = false."""


@dataclass
class MlmBatch(ItemBatch):
    """Masked language modelling: M chosen tokens of the subtitles' texts."""

    video: VideoBatch  # its token ids are masked
    rows: Tensor  # (M,) long, packed positions of the chosen tokens
    labels: Tensor  # (M,) long, the true tokens


@dataclass
class MfmBatch(ItemBatch):
    """Masked frame modelling: M chosen frames."""

    video: VideoBatch  # its features are not masked
    frame_mask: Tensor  # (F,) bool, True = chosen
    chosen: Tensor  # (M,) long, among the batch's frames
    others: Tensor  # (F − M,) long, the frames that are not chosen


@dataclass
class FomBatch(ItemBatch):
    """Frame order modelling: M chosen frames are permuted."""

    video: VideoBatch
    source: Tensor  # (F,) long, the frame that is shown in each slot
    slots: Tensor  # (M,) long, where the chosen frames are shown
    targets: Tensor  # (M,) long, their true index in the video


@dataclass
class WrappedBatch(TensorBatch):
    """A batch of one of several kinds."""

    batch: ItemBatch

    @property
    def ids(self) -> list[str]:
        """Ids of the items, for error messages."""
        return self.batch.ids


@dataclass
class ObjectiveBatch(WrappedBatch):
    """A batch of a pre-training objective."""

    method: str  # of the model, for this objective


@dataclass
class SetBatch(WrappedBatch):
    """A batch of one of several data sets."""

    data_set: str  # prefix of its losses
    kind: Kind


@dataclass
class ClipBatch(TensorBatch):
    """C clips: ranges of the batch's frames, each at least one frame long."""

    first: Tensor  # (C,) long, first row among the F frames
    lengths: Tensor  # (C,) long
    longest: int

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return frame rows (C, M), padded with the first one, and mask (C, M), True = a frame."""
        mask = length_mask(self.lengths, self.longest)
        steps = torch.arange(self.longest, device=self.first.device)
        return self.first[:, None] + steps * mask, mask


@dataclass
class CaptionBatch(ItemBatch):
    """Videos, clips of them, and the captions of each clip, clip by clip (training)."""

    video: VideoBatch
    clips: ClipBatch
    text: TextBatch  # N inputs: ``<s>`` and the caption
    targets: Tensor  # (P,) long: the caption and ``</s>``
    by_clip: PackedLayout  # C sequences: the P tokens of all captions of each clip


@dataclass
class ClipsToCaption(TensorBatch):
    """Videos and their clips to caption."""

    indices: list[int]  # of each clip in the list of all
    video: VideoBatch
    clips: ClipBatch
