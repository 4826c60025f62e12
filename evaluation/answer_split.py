"""A split whose questions or statements are to be answered."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config.evaluation import AnswerEvalOptions
from config.training import AnswerOptions
from config.value import SetOptions
from data.candidates import CandidateDataset
from data.loader import evaluation_batches
from engine.run import Run, on_main
from engine.validation import split_label
from evaluation.answers import AnsweredSplit, answer_split, check_answers, save_answers
from evaluation.two_streams import average_answers
from model.candidates import CandidateModel


class AnswerSplit:
    """Answers all items of a dataset.

    Args:
        name: of the split; results go to ``results_{name}`` of the run.
        data: its items.
        weights: factors of the losses to report, that of the answers first.
        run: batch size, ranks, folder.
    """

    def __init__(
        self,
        name: str,
        data: CandidateDataset,
        weights: Mapping[str, float],
        run: Run[AnswerOptions | SetOptions | AnswerEvalOptions],
    ) -> None:
        self.name, self.data, self.weights, self.run = name, data, weights, run

    def answer(self, model: CandidateModel) -> AnsweredSplit:
        """Answer everything; all ranks take part."""
        run, size = self.run, self.run.options.val_batch_size
        progress = f"{self.name} answers"
        batches = evaluation_batches(self.data, self.data.collate, size, run, progress)
        with run.precision.autocast():
            return answer_split(model, batches, run.comm, self.data.ids)

    def evaluate(
        self,
        model: CandidateModel,
        checkpoint: str | int,
        folder: Path | None = None,
        save_logits: bool = False,
        others: Sequence[Callable[[], AnsweredSplit]] = (),
    ) -> dict[str, float]:
        """Answer; write results (and metrics where the split has ground truth) on rank 0.

        Args:
            model: of the task.
            checkpoint: for the files' names.
            folder: where to, ``{folder}_w_logit`` with the scores; None = ``results_{name}`` of the
                run.
            save_logits: also write the scores of all answers.
            others: what other models answer, whose probabilities are averaged with this one's.

        Returns:
            ``accuracy`` and ``loss/name``; empty without ground truth and on other ranks.
        """
        run, value = self.run, self.run.options.VALUE
        folder = folder or run.folder.path / f"results_{self.name}"
        if save_logits:
            folder = folder.with_name(f"{folder.name}_w_logit")
        label = Path(str(checkpoint)).stem
        on_main(run.comm, lambda: check_answers(folder, label, save_logits, value))
        answered = self.answer(model)
        if others:
            answered = average_answers([answered, *(other() for other in others)], self.main_loss)
        if not run.comm.is_main:
            return {}
        metrics = answered.metrics(self.weights)
        self.data.coverage.warn_of_metrics()
        mark = self.data.coverage.mark()
        accuracy = answered.accuracy
        scores = None
        if value and accuracy is not None:
            scores = self._value_scores(metrics, accuracy)
        save_answers(answered, folder, label, metrics, save_logits, mark, scores)
        return metrics

    @property
    def main_loss(self) -> str:
        """The loss that answers are chosen by."""
        return next(iter(self.weights))

    def _value_scores(self, metrics: Mapping[str, float], accuracy: float) -> dict[str, float]:
        """Metrics under VALUE's names."""
        prefix = f"valid/{self.name}_" if self.main_loss == "violin" else "valid/"
        loss = metrics[f"loss/{self.main_loss}"]
        return {f"{prefix}loss": loss, f"{prefix}acc": accuracy}

    def validate(self, model: CandidateModel, step: int) -> dict[str, float]:
        """:meth:`evaluate` into ``results/``, with the sum of the losses."""
        label = split_label(self.name, step)
        metrics = self.evaluate(model, label, self.run.folder.results)
        total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
        return metrics and metrics | {"loss/total": total}
