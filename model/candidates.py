"""Texts scored by a video: question answering and VIOLIN (arXiv 2005.00200, section 4.3).

The video is run once per candidate text; a frame's features are projected once for all of them.
"""

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import CandidateBatch, JudgedBatch, StatementBatch
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.layers import PredictionHead
from model.query_encoder import segment_attention_pool

BatchT = TypeVar("BatchT", bound=JudgedBatch)


@dataclass
class Answers:
    """Predictions and losses of N items."""

    scores: Tensor  # (N, K) logits of the answers, or (N,) of statements
    chosen: Tensor  # (N,) long
    losses: dict[str, Tensor]  # (N,) each; 0 where an item has no target


class CandidateModel(HeroModel, Generic[BatchT]):
    """Scores candidate texts of videos; a task defines :meth:`answer`.

    Attributes:
        HEAD: first part of the names of the weights that score a text.
    """

    HEAD: ClassVar[str] = "qa"

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__(config, feature_size, encoder)
        hidden = config.c_config.hidden_size
        self.add_module(f"{self.HEAD}_pool", nn.Linear(hidden, 1, bias=False))
        self.add_module(f"{self.HEAD}_pred_head", PredictionHead(hidden, 1))

    def answer(self, batch: BatchT) -> Answers:
        """Return scores, choices and losses of every item."""
        raise NotImplementedError

    def forward(self, batch: BatchT) -> dict[str, Tensor]:
        """Return named losses: in training means over the items that have a target (0 if none has),
        in evaluation one value per item."""
        losses = self.answer(batch).losses
        if not self.training:
            return losses
        return {name: loss.sum() / max(1, batch.counts[name]) for name, loss in losses.items()}

    def candidate_frames(self, candidates: CandidateBatch) -> Tensor:
        """Return frame embeddings (R, H), packed by ``candidates.runs``: of every video with each
        of its candidate texts, at both levels of the encoder."""
        texts = candidates.temporal
        frames = self.v_encoder.frame_vectors(candidates.video, copies=candidates.copies)
        tokens = self.v_encoder.f_encoder.embeddings(texts.token_ids, texts.token_positions)
        return self.v_encoder.c_encoder.with_texts(frames, tokens, texts)

    def candidate_logits(self, frames: Tensor, candidates: CandidateBatch) -> Tensor:
        """Return one logit per candidate, by attention over its frames: (R, H) → (C,), fp32."""
        pool, head = (self.get_submodule(f"{self.HEAD}_{part}") for part in ("pool", "pred_head"))
        return head(segment_attention_pool(frames, pool(frames), candidates.runs))[:, 0].float()

    def answer_statements(self, batch: StatementBatch) -> Answers:
        """Return logits (C,) of the statements being true, and the loss ``violin``."""
        scores = self.candidate_logits(self.candidate_frames(batch.candidates), batch.candidates)
        targets = batch.targets.clamp(min=0).float()
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return Answers(scores, (scores > 0).long(), {"violin": losses * (batch.targets >= 0)})
