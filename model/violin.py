"""Video-and-language inference: VIOLIN (arXiv 2003.11618; arXiv 2005.00200, section 4.3)."""

from typing import ClassVar

from data.batch import StatementBatch
from model.candidates import Answers, CandidateModel


class HeroForStatements(CandidateModel[StatementBatch]):
    """Predicts whether a video entails a statement, with VALUE's names of weights: those of
    question answering. Reads checkpoints with either names."""

    OTHER_NAMES: ClassVar[dict[str, str]] = {"violin_": "qa_"}

    def answer(self, batch: StatementBatch) -> Answers:
        """See :meth:`model.candidates.CandidateModel.answer_statements`."""
        return self.answer_statements(batch)


class HeroForViolin(HeroForStatements):
    """The same with HERO's names of weights."""

    HEAD = "violin"
    OTHER_NAMES: ClassVar[dict[str, str]] = {}


# The model of each task of config.training.ViolinTask.
MODELS: dict[str, type[CandidateModel[StatementBatch]]] = {"violin": HeroForViolin}
