# ruff: noqa: N999 (the name under which the task is published)
"""Video question answering: TVQA (arXiv 1809.01696), How2QA (arXiv 2005.00200, section 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import QuestionBatch
from model.candidates import Answers, CandidateModel
from model.hero import FEATURE_SIZE, HierarchicalEncoder
from model.layers import PredictionHead
from model.ranking_loss import PADDED_LOGIT
from utils.packing import PackedLayout


class HeroForVideoQA(CandidateModel[QuestionBatch]):
    """Scores every answer, and predicts the moment that the question is about."""

    qa_pool: nn.Linear

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__(config, feature_size, encoder)
        hidden = config.c_config.hidden_size
        self.st_ed_pool = nn.Linear(hidden, 1, bias=False)
        self.st_ed_pred_head = PredictionHead(hidden, 2)

    def answer(self, batch: QuestionBatch) -> Answers:
        """Return logits (N, K) of the answers; losses ``qa`` and ``st_ed``."""
        frames = self.candidate_frames(batch.candidates)
        scores = self.candidate_logits(frames, batch.candidates).view(len(batch.ids), -1)
        spans = self.span_logits(frames, batch.frame_runs)
        losses = {
            "qa": F.cross_entropy(scores, batch.targets, ignore_index=-1, reduction="none"),
            "st_ed": span_losses(spans, batch.candidates.video.layout, batch.spans),
        }
        return Answers(scores, scores.argmax(dim=-1), losses)

    def span_logits(self, frames: Tensor, frame_runs: Tensor) -> Tensor:
        """Return start and end logits (F, 2) in fp32, by attention over each frame's K embeddings:
        rows ``frame_runs`` (F, K) of :meth:`candidate_frames` (R, H)."""
        x = frames.index_select(0, frame_runs.flatten()).view(*frame_runs.shape, -1)  # (F, K, H)
        weights = self.st_ed_pool(x)[..., 0].float().softmax(dim=-1).to(x.dtype)
        return self.st_ed_pred_head(torch.einsum("fk,fkh->fh", weights, x)).float()


# The model of each task of config.training.VideoQaTask, and of VALUE's.
MODELS: dict[str, type[CandidateModel[QuestionBatch]]] = {
    "tvqa": HeroForVideoQA,
    "how2qa": HeroForVideoQA,
    "vlep": HeroForVideoQA,
}


def span_losses(logits: Tensor, layout: PackedLayout, spans: Tensor) -> Tensor:
    """Return the means (N,) of the cross-entropies of first and last frame, 0 without a span.

    Args:
        logits: (F, 2) start and end logits of N packed videos.
        spans: (N, 2) frames; −1 = none.
    """
    grid, mask = layout.pad(logits.T, dim=1)  # (2, N, T), (N, T)
    grid = grid.masked_fill(~mask, PADDED_LOGIT)
    # One row per distribution: on a GPU, the form for grids is not deterministic.
    losses = F.cross_entropy(
        grid.flatten(0, 1), spans.T.flatten(), ignore_index=-1, reduction="none"
    )
    return losses.view(2, -1).mean(dim=0)
