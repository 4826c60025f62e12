"""Several tasks on one encoder: VALUE's multi-task training (arXiv 2106.04632)."""

from collections.abc import Collection, Iterator
from typing import ClassVar, Self, cast

from torch import Tensor, nn

from config.groups import Kind
from config.model_config import ModelConfig
from config.value import RETRIEVAL, DataSet, ListOptions
from data.batch import MomentBatch, QuestionBatch, SetBatch, StatementBatch
from model.candidates import Answers
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr, MomentRetrievalModel, MomentSchedule, ranking_weights
from model.videoQA import HeroForVideoQA
from model.violin import HeroForStatements, answer_statements
from utils.distributed import Communicator

ALL_KINDS = (*RETRIEVAL, Kind.QUESTIONS, Kind.STATEMENTS, Kind.CAPTIONS)


def set_weights(entry: DataSet, options: ListOptions) -> dict[str, float]:
    """Factors of the losses of a data set."""
    if entry.kind is Kind.CAPTIONS:
        return {"caption": 1.0}
    if entry.kind is Kind.STATEMENTS:
        return {"violin": 1.0}
    losses = {"qa": 1.0} if entry.kind is Kind.QUESTIONS else ranking_weights(options)
    span = entry.value_task.span_weight
    return losses | ({"st_ed": getattr(options, span)} if span else {})


class HeroForAnswers(HeroForVideoQA):
    """Question answering whose heads judge statements too."""

    def answer(self, batch: QuestionBatch | StatementBatch) -> Answers:
        """Scores, choices and losses of questions or of statements."""
        if isinstance(batch, StatementBatch):
            return answer_statements(self, self.qa_pool, self.qa_pred_head, batch)
        return super().answer(batch)


class HeroForMultiTask(HeroModel):
    """The models of single tasks around one encoder.

    Its weights are called as theirs are: a checkpoint of it is one of every task.

    Args:
        config: with what the tasks need.
        feature_size: D.
        kinds: of the tasks.
        schedule, comm: of retrieval (:class:`model.vcmr.MomentRetrievalModel`).
        label_smoothing: of captions.

    Attributes:
        parts: the model of each kind of task; all train, and move, as this one does.

    Raises:
        UserError: ``config`` lacks a block that a task needs.
    """

    OTHER_NAMES: ClassVar[dict[str, str]] = HeroForStatements.OTHER_NAMES

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        kinds: Collection[Kind] = ALL_KINDS,
        schedule: MomentSchedule | None = None,
        comm: Communicator | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        encoder = HierarchicalEncoder(config, feature_size)
        shared = (config, feature_size)
        self.parts: dict[Kind, nn.Module] = {}  # no module of this one: only their heads are
        if not set(kinds).isdisjoint(RETRIEVAL):
            retrieval = HeroForVcmr(*shared, schedule=schedule, comm=comm, encoder=encoder)
            self.parts |= dict.fromkeys(RETRIEVAL, retrieval)
        if Kind.QUESTIONS in kinds:
            answers = HeroForAnswers(*shared, encoder=encoder)
            self.parts |= dict.fromkeys((Kind.QUESTIONS, Kind.STATEMENTS), answers)
        elif Kind.STATEMENTS in kinds:
            self.parts[Kind.STATEMENTS] = HeroForStatements(*shared, encoder=encoder)
        if Kind.CAPTIONS in kinds:
            self.parts[Kind.CAPTIONS] = HeroForTvc(
                *shared, label_smoothing=label_smoothing, encoder=encoder
            )
        for part in self._distinct_parts():
            for name, module in part.named_children():
                self.add_module(name, module)

    def _distinct_parts(self) -> Iterator[nn.Module]:
        yield from {id(part): part for part in self.parts.values()}.values()

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode of all parts."""
        super().train(mode)
        for part in self._distinct_parts():
            part.training = mode
        return self

    def set_step(self, step: int, micro_step: int) -> None:
        """See :meth:`model.vcmr.MomentRetrievalModel.set_step`."""
        for part in self._distinct_parts():
            if isinstance(part, MomentRetrievalModel):
                part.set_step(step, micro_step)

    def forward(self, batch: SetBatch) -> dict[str, Tensor]:
        """Losses of the batch's task, as ``{data set}/{name}``."""
        part = self.parts[batch.kind]
        if batch.kind is Kind.VIDEOS:  # no moments to learn
            retrieval = cast("HeroForVcmr", part)
            losses = retrieval.moment_losses(cast("MomentBatch", batch.batch), spans=False)
        else:
            losses = part(batch.batch)
        return {f"{batch.data_set}/{name}": loss for name, loss in losses.items()}
