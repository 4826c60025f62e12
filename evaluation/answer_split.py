"""A split whose questions or statements are to be answered."""

from collections.abc import Mapping
from pathlib import Path

from config.evaluation import AnswerEvalOptions
from config.training import AnswerOptions
from data.candidates import CandidateDataset
from data.loader import evaluation_batches
from engine.run import Run, on_main
from engine.validation import split_label
from evaluation.answers import answer_split, check_answers, save_answers
from model.candidates import CandidateModel


class AnswerSplit:
    """Answers all items of a dataset.

    Args:
        name: of the split; results go to ``results_{name}`` of the run.
        data: its items.
        weights: factors of the losses to report.
        run: batch size, ranks, folder.
    """

    def __init__(
        self,
        name: str,
        data: CandidateDataset,
        weights: Mapping[str, float],
        run: Run[AnswerOptions | AnswerEvalOptions],
    ) -> None:
        self.name, self.data, self.weights, self.run = name, data, weights, run

    def evaluate(
        self,
        model: CandidateModel,
        checkpoint: str | int,
        folder: Path | None = None,
        save_logits: bool = False,
    ) -> dict[str, float]:
        """Answer; write results (and metrics where the split has ground truth) on rank 0.

        Args:
            model: of the task.
            checkpoint: for the files' names.
            folder: where to; None = ``results_{name}`` of the run, or ``results_{name}_w_logit``
                with the scores.
            save_logits: also write the scores of all answers.

        Returns:
            ``accuracy`` and ``loss/name``; empty without ground truth and on other ranks.
        """
        run = self.run
        ending = "_w_logit" if save_logits else ""
        folder = folder or run.folder.path / f"results_{self.name}{ending}"
        label = Path(str(checkpoint)).stem
        on_main(run.comm, lambda: check_answers(folder, label, save_logits))
        size = run.options.val_batch_size
        batches = evaluation_batches(
            self.data, self.data.collate, size, run, f"{self.name} answers"
        )
        with run.precision.autocast():
            answered = answer_split(model, batches, run.comm, self.data.ids)
        if not run.comm.is_main:
            return {}
        metrics = answered.metrics(self.weights)
        self.data.coverage.warn_of_metrics()
        mark = self.data.coverage.mark()
        save_answers(answered, folder, label, metrics, save_logits, mark)
        return metrics

    def validate(self, model: CandidateModel, step: int) -> dict[str, float]:
        """:meth:`evaluate` into ``results/``, with the sum of the losses."""
        label = split_label(self.name, step)
        metrics = self.evaluate(model, label, self.run.folder.results)
        total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
        return metrics and metrics | {"loss/total": total}
