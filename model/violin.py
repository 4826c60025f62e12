"""Video-and-language inference: VIOLIN (arXiv 2003.11618; paper, section 4.3)."""

from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from config.model_config import ModelConfig
from data.batch import StatementBatch
from model.candidates import Answers, CandidateModel
from model.hero import FEATURE_SIZE, HierarchicalEncoder
from model.layers import PredictionHead


class HeroForViolin(CandidateModel[StatementBatch]):
    """Tells whether a video entails a statement."""

    def __init__(self, config: ModelConfig, feature_size: int = FEATURE_SIZE) -> None:
        super().__init__(config, feature_size)
        hidden = config.c_config.hidden_size
        self.violin_pool = nn.Linear(hidden, 1, bias=False)
        self.violin_pred_head = PredictionHead(hidden, 1)

    def answer(self, batch: StatementBatch) -> Answers:
        """See :func:`answer_statements`."""
        return answer_statements(self, self.violin_pool, self.violin_pred_head, batch)


class HeroForStatements(CandidateModel[StatementBatch]):
    """The same with the names of question answering, as VALUE has it; it reads both."""

    OTHER_NAMES: ClassVar[dict[str, str]] = {"violin_": "qa_"}

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__(config, feature_size, encoder)
        hidden = config.c_config.hidden_size
        self.qa_pool = nn.Linear(hidden, 1, bias=False)
        self.qa_pred_head = PredictionHead(hidden, 1)

    def answer(self, batch: StatementBatch) -> Answers:
        """See :func:`answer_statements`."""
        return answer_statements(self, self.qa_pool, self.qa_pred_head, batch)


def answer_statements(
    model: CandidateModel, pool: nn.Linear, head: PredictionHead, batch: StatementBatch
) -> Answers:
    """Logits (C,) of the statements' being true; loss ``violin``."""
    scores = model.judge(model.candidate_frames(batch.candidates), pool, head, batch.candidates)
    known = batch.targets >= 0
    losses = F.binary_cross_entropy_with_logits(
        scores, batch.targets.clamp(min=0).float(), reduction="none"
    )
    return Answers(scores, (scores > 0).long(), {"violin": losses * known})


# The model of each task of config.training.ViolinTask.
MODELS: dict[str, type[CandidateModel[StatementBatch]]] = {"violin": HeroForViolin}
