"""Answer and score a split of questions or statements."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.evaluation import AnswerEvalOptions
from config.training import AnswerOptions
from config.value import SetOptions
from data.candidates import CandidateDataset
from data.loader import evaluation_batches
from engine.run import Run, on_main
from engine.validation import split_label
from evaluation.answers import AnsweredSplit, answer_files, answer_split, save_answers
from evaluation.two_streams import average_answers
from model.candidates import CandidateModel
from utils.files import check_output


class AnswerSplit:
    """All items of a dataset.

    Args:
        name: of the split.
        data: its items.
        weights: factors of the losses to report; answers are chosen by the first.
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
        self.main_loss = next(iter(weights))

    def answer(self, model: CandidateModel) -> AnsweredSplit:
        """Answer everything; all ranks take part."""
        run, data = self.run, self.data
        size, progress = run.options.val_batch_size, f"{self.name} answers"
        batches = evaluation_batches(data, data.collate, size, run, progress)
        with run.precision.autocast():
            return answer_split(model, batches, run.comm, data.ids)

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
            checkpoint: for the files' names.
            folder: where to write; default: ``results_{name}`` of the run.
            save_logits: also write the scores of all answers, all to ``{folder}_w_logit``.
            others: give the answers of other models, whose probabilities are averaged with these.

        Returns:
            ``accuracy`` and ``loss/name``; empty without ground truth and on other ranks.
        """
        run, value = self.run, self.run.options.VALUE
        folder = folder or run.folder.path / f"results_{self.name}"
        if save_logits:
            folder = folder.with_name(f"{folder.name}_w_logit")
        files = answer_files(folder, Path(str(checkpoint)).stem, save_logits, value)
        on_main(run.comm, lambda: check_output(*files.values()))
        answered = self.answer(model)
        if others:
            answered = average_answers([answered, *(other() for other in others)], self.main_loss)
        if not run.comm.is_main:
            return {}
        metrics = answered.metrics(self.weights)
        self.data.coverage.warn_of_metrics()
        saved: Mapping[str, Any] = metrics
        if value and metrics:
            prefix = f"valid/{self.name}_" if self.main_loss == "violin" else "valid/"
            loss = metrics[f"loss/{self.main_loss}"]
            saved = {f"{prefix}loss": loss, f"{prefix}acc": answered.accuracy}
        save_answers(answered, files, metrics, {**self.data.coverage.mark(), **saved})
        return metrics

    def validate(self, model: CandidateModel, step: int) -> dict[str, float]:
        """:meth:`evaluate` into ``results/``, with the sum of the losses."""
        label = split_label(self.name, step)
        metrics = self.evaluate(model, label, self.run.folder.results)
        total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
        return metrics and metrics | {"loss/total": total}
