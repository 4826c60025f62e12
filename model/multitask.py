"""Several tasks on one encoder: VALUE's multi-task training (arXiv 2106.04632)."""

from collections.abc import Collection, Iterator
from typing import ClassVar, Self, cast

from torch import Tensor, nn

from config.groups import Kind
from config.model_config import ModelConfig
from config.value import RETRIEVAL, DataSet, ListOptions
from data.batch import MomentBatch, QuestionBatch, SetBatch, StatementBatch
from model.candidates import Answers
from model.hero import FEATURE_SIZE, HeroModel
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr, MomentRetrievalModel, MomentSchedule, ranking_weights
from model.videoQA import HeroForVideoQA
from model.violin import HeroForStatements
from utils.distributed import Communicator

ALL_KINDS = (*RETRIEVAL, Kind.QUESTIONS, Kind.STATEMENTS, Kind.CAPTIONS)


def set_weights(entry: DataSet, options: ListOptions) -> dict[str, float]:
    """Return the weights of the losses of a data set."""
    if entry.kind is Kind.CAPTIONS:
        return {"caption": 1.0}
    if entry.kind is Kind.STATEMENTS:
        return {"violin": 1.0}
    losses = {"qa": 1.0} if entry.kind is Kind.QUESTIONS else ranking_weights(options)
    span = entry.value_task.span_weight
    return losses | ({"st_ed": getattr(options, span)} if span else {})


class HeroForAnswers(HeroForVideoQA):
    """Question answering whose heads score statements too."""

    def answer(self, batch: QuestionBatch | StatementBatch) -> Answers:
        """Return scores, choices and losses of questions or of statements."""
        if isinstance(batch, StatementBatch):
            return self.answer_statements(batch)
        return super().answer(batch)


class HeroForMultiTask(HeroModel):
    """The models of single tasks around one encoder.

    Weights have the names of the single tasks' models: a checkpoint of it is one of every task.

    Args:
        config: with the blocks that the tasks need.
        feature_size: D.
        kinds: of the tasks.
        schedule, comm: of retrieval (:class:`model.vcmr.MomentRetrievalModel`).
        label_smoothing: of captions.

    Attributes:
        parts: the model of each kind of task; they share this model's modules and mode.

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
        super().__init__(config, feature_size)
        shared = (config, feature_size, self.v_encoder)
        self.parts: dict[Kind, nn.Module] = {}  # not registered: only their children are
        if not set(kinds).isdisjoint(RETRIEVAL):
            retrieval = HeroForVcmr(*shared, schedule=schedule, comm=comm)
            self.parts |= dict.fromkeys(RETRIEVAL, retrieval)
        if Kind.QUESTIONS in kinds:
            answers = HeroForAnswers(*shared)
            self.parts |= dict.fromkeys((Kind.QUESTIONS, Kind.STATEMENTS), answers)
        elif Kind.STATEMENTS in kinds:
            self.parts[Kind.STATEMENTS] = HeroForStatements(*shared)
        if Kind.CAPTIONS in kinds:
            self.parts[Kind.CAPTIONS] = HeroForTvc(*shared, label_smoothing=label_smoothing)
        for part in self._distinct_parts():
            for name, module in part.named_children():
                self.add_module(name, module)

    def _distinct_parts(self) -> Iterator[nn.Module]:
        yield from {id(part): part for part in self.parts.values()}.values()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode of all parts."""
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
        """Return losses of the batch's task, as ``{data set}/{name}``."""
        part = self.parts[batch.kind]
        if batch.kind is Kind.VIDEOS:  # no moments to learn
            retrieval = cast("HeroForVcmr", part)
            losses = retrieval.moment_losses(cast("MomentBatch", batch.batch), spans=False)
        else:
            losses = part(batch.batch)
        return {f"{batch.data_set}/{name}": loss for name, loss in losses.items()}
