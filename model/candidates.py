"""What judging texts by a video has in common: question answering and VIOLIN (paper, section 4.3).

The video is run once per candidate text; a frame's features are projected once for all of them.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import CandidateBatch, JudgedBatch
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.layers import PredictionHead
from model.query_encoder import segment_attention_pool

BatchT = TypeVar("BatchT", bound=JudgedBatch)


@dataclass
class Answers:
    """What the model says of N items."""

    scores: Tensor  # (N, K) logits of the answers, or (N,) of statements
    chosen: Tensor  # (N,) long
    losses: dict[str, Tensor]  # (N,) each; 0 where an item has no target


class CandidateModel(HeroModel, Generic[BatchT]):
    """Runs videos with candidate texts; a task adds its heads and :meth:`answer`."""

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__()
        self.v_encoder = encoder or HierarchicalEncoder(config, feature_size)

    def answer(self, batch: BatchT) -> Answers:
        """Scores, choices and losses of every item."""
        raise NotImplementedError

    def forward(self, batch: BatchT) -> dict[str, Tensor]:
        """Named losses: in training means over the items that have a target (0 if none has), in
        evaluation one value per item."""
        losses = self.answer(batch).losses
        if not self.training:
            return losses
        return {name: loss.sum() / max(1, batch.counts[name]) for name, loss in losses.items()}

    def candidate_frames(self, candidates: CandidateBatch) -> Tensor:
        """Frames that have met one candidate each, at both levels.

        Returns:
            (R, H), packed by ``candidates.runs``.
        """
        texts = candidates.temporal
        frames = self.v_encoder.frame_vectors(candidates.video, copies=candidates.copies)
        tokens = self.v_encoder.f_encoder.embeddings(texts.token_ids, texts.token_positions)
        return self.v_encoder.c_encoder.with_texts(frames, tokens, texts)

    def judge(
        self, frames: Tensor, pool: nn.Linear, head: PredictionHead, candidates: CandidateBatch
    ) -> Tensor:
        """Attention over each candidate's frames, then one logit: (R, H) → (C,), fp32."""
        pooled = segment_attention_pool(frames, pool(frames), candidates.runs)
        return head(pooled)[:, 0].float()
