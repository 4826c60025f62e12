"""What data hands to the model: packed batches, nothing padded.

Letters: B videos · F frames of all videos · S subtitle sequences · K frame slots in them · P packed
positions · N queries · D feature width.
"""

from dataclasses import dataclass

from torch import Tensor

from utils.batch import TensorBatch
from utils.packing import PackedLayout


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
    packed sequences is row ``order[p]`` of ``cat(slots, tokens)``.
    """

    slot_frames: Tensor  # (K,) long, which of the batch's F frames stands in the slot
    slot_positions: Tensor  # (K,) long, its place among the frames of the sequence
    slot_targets: Tensor  # (K,) long, output row to which the slot's result is added
    slot_rows: Tensor  # (K,) long, the slot's row in the packed sequences
    token_ids: Tensor  # (P − K,) long
    token_positions: Tensor  # (P − K,) long
    order: Tensor  # (P,) long
    layout: PackedLayout  # S sequences of P positions in all
    longest_slots: int  # most frames that one sequence shows


@dataclass
class VideoBatch(TensorBatch):
    """B videos; their frames one after the other."""

    vids: list[str]
    features: Tensor  # (F, D) float
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
class MomentBatch(TensorBatch):
    """Videos and the queries about them, laid out video by video, N/B each (training)."""

    ids: list[str]  # what to name when something goes wrong
    video: VideoBatch
    text: TextBatch  # the queries
    targets: Tensor  # (N, 2) long, first and last frame of the moment; −1 = none
    query_video: Tensor  # (N,) long, place of the query's video in the batch
