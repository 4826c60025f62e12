"""What data hands to the model: packed batches, nothing padded.

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
    """Items to learn from, or to answer."""

    ids: list[str]  # what to name when something goes wrong


@dataclass
class TextBatch(TensorBatch):
    """N texts, packed."""

    token_ids: Tensor  # (P,) long
    positions: Tensor  # (P,) long, place within its text, from 0
    layout: PackedLayout  # N sequences


@dataclass
class SubtitleSequences(TensorBatch):
    """S sequences ``[frames of the subtitle, its tokens]`` for the cross-modal transformer.

    A slot is a frame's place in a sequence. Slots and tokens are embedded apart; row p of the
    packed sequences is row ``order[p]`` of ``cat(slots, tokens)``. Packed rows are the cells of
    attention's bins; those that belong to no sequence repeat row 0. A sequence whose frames are not
    read has no slots: what the transformer says of its first token goes to each of its frames.
    """

    slot_frames: Tensor  # (K,) long, which of the batch's F frames stands in the slot
    slot_positions: Tensor  # (K,) long, its place among the frames of the sequence
    slot_rows: Tensor  # (R,) long, the packed rows that are read: every slot's, or a first token's
    slot_targets: Tensor  # (T,) long, output row of every frame of every sequence
    slot_sources: Tensor | None  # (T,) long, which of the R rows is added there; None: each its own
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
    """B videos; their frames one after the other."""

    vids: list[str]
    features: Tensor  # (F, D) float32; float16 as stored until it is on the device
    frame_positions: Tensor  # (F,) long, a frame's place in its video
    layout: PackedLayout  # B sequences of F frames in all
    subtitles: SubtitleSequences

    @property
    def frame_lens(self) -> Tensor:
        """(B,) frames of every video."""
        return self.layout.lengths


@dataclass
class QueryBatch(TensorBatch):
    """N queries to search with; ``vids`` and ``desc_ids`` are as the annotation gives them."""

    qids: list[str]
    desc_ids: list[str | int]
    vids: list[str | None]
    text: TextBatch


@dataclass
class MomentBatch(ItemBatch):
    """Videos and the queries about them, laid out video by video, N/B each (training).

    Behind the videos' subtitles their sequences hold the queries as texts without frames, so that
    the cross-modal transformer sees all of them at once.
    """

    video: VideoBatch
    text: TextBatch  # the queries
    targets: Tensor  # (N, 2) long, first and last frame of the moment; −1 = none
    query_video: Tensor  # (N,) long, place of the query's video in the batch
    text_rows: Tensor  # (P,) long, where the queries stand in the sequences of ``video.subtitles``


@dataclass
class CandidateBatch(TensorBatch):
    """B videos and C texts about them; every video is run once for each of its texts.

    A video's features are there once. Copy k of the F frames (rows k·F … k·F + F − 1) belongs to
    the k-th text of each video; ``video.subtitles`` adds its results to the rows of ``copies`` × F.
    """

    video: VideoBatch  # its subtitles: each of a video's, once per text, with the text appended
    copies: int  # most texts of one video
    temporal: SubtitleSequences  # C sequences [all frames of a copy, tokens of the text]
    runs: PackedLayout  # C sequences of frames: what the temporal transformer returns


@dataclass
class JudgedBatch(ItemBatch):
    """N items, each with one candidate text or several, and what is right."""

    candidates: CandidateBatch
    targets: Tensor  # (N,) long; −1 = not known
    counts: dict[str, int]  # items that have a target, by loss


@dataclass
class QuestionBatch(JudgedBatch):
    """N questions with K answers each (C = N · K, question by question); a target is the place of
    the right one."""

    spans: Tensor  # (N, 2) long, first and last frame to look at; −1 = none
    frame_runs: Tensor  # (F, K) long, rows of the candidates' frames that show each frame


@dataclass
class StatementBatch(JudgedBatch):
    """C statements about B videos; a target is 1 = true, 0 = false."""


@dataclass
class MlmBatch(ItemBatch):
    """Masked language modelling: M chosen tokens of the subtitles' texts."""

    video: VideoBatch  # its token ids are masked
    rows: Tensor  # (M,) long, packed positions of the chosen tokens
    labels: Tensor  # (M,) long, what stood there


@dataclass
class MfmBatch(ItemBatch):
    """Masked frame modelling: M chosen frames."""

    video: VideoBatch  # its features are whole
    frame_mask: Tensor  # (F,) bool, True = chosen
    chosen: Tensor  # (M,) long, among the batch's frames
    others: Tensor  # (F − M,) long


@dataclass
class FomBatch(ItemBatch):
    """Frame order modelling: M chosen frames change places among themselves."""

    video: VideoBatch
    source: Tensor  # (F,) long, the frame that each slot shows
    slots: Tensor  # (M,) long, where the chosen frames went
    places: Tensor  # (M,) long, their place in the video before


@dataclass
class ObjectiveBatch(TensorBatch):
    """A batch of a pre-training objective."""

    method: str  # of the model, which answers it
    batch: ItemBatch

    @property
    def ids(self) -> list[str]:
        """What to name when something goes wrong."""
        return self.batch.ids


@dataclass
class SetBatch(TensorBatch):
    """A batch of one of several data sets."""

    data_set: str  # what its losses are called after
    kind: Kind
    batch: ItemBatch

    @property
    def ids(self) -> list[str]:
        """What to name when something goes wrong."""
        return self.batch.ids


@dataclass
class ClipBatch(TensorBatch):
    """C clips: stretches of the batch's frames, each at least one frame long."""

    first: Tensor  # (C,) long, first row among the F frames
    lengths: Tensor  # (C,) long
    longest: int

    def grid(self) -> tuple[Tensor, Tensor]:
        """Frame rows (C, M), padding repeats the first one; mask (C, M), True = a real frame."""
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
    """Videos and the clips of them that want a caption."""

    places: list[int]  # of each clip in the list of all
    video: VideoBatch
    clips: ClipBatch
