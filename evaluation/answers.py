"""Answer every question or statement of a split, on one rank or several, and save the answers.

A results file is ``{id: answer}`` in the order of the split: an answer's index, or 0 | 1.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from data.batch import JudgedBatch
from model.candidates import Answers, CandidateModel
from utils.distributed import Communicator
from utils.files import write_json

UNKNOWN = -1


@dataclass
class AnsweredItem:
    """One question or statement."""

    id: str
    answer: int
    target: int  # UNKNOWN without ground truth
    scores: float | list[float]
    losses: dict[str, float]  # 0 where it has no target


@dataclass
class AnsweredSplit:
    """All items in the order of the split."""

    items: list[AnsweredItem]
    counts: Mapping[str, int]  # items that have a target, by loss

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among the items that have a target; None where none has."""
        hits = [item.answer == item.target for item in self.items if item.target != UNKNOWN]
        return sum(hits) / len(hits) if hits else None

    def metrics(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return ``accuracy`` in percent and mean losses times ``weights`` as ``loss/name``, over
        the items that have a target; nothing if none has."""
        if self.accuracy is None:
            return {}
        losses = {
            f"loss/{name}": weight
            * sum(item.losses[name] for item in self.items)
            / max(1, self.counts[name])
            for name, weight in weights.items()
        }
        return {"accuracy": round(100 * self.accuracy, 2), **losses}


def answered_items(batch: JudgedBatch, answers: Answers) -> list[AnsweredItem]:
    """Return the items of one batch, on the host."""
    columns = (answers.chosen, batch.targets, answers.scores, *answers.losses.values())
    rows = zip(batch.ids, *(column.tolist() for column in columns), strict=True)
    return [
        AnsweredItem(id_, answer, target, scores, dict(zip(answers.losses, losses, strict=True)))
        for id_, answer, target, scores, *losses in rows
    ]


@torch.no_grad()
def answer_split(
    model: CandidateModel, batches: Iterable[JudgedBatch], comm: Communicator, ids: Sequence[str]
) -> AnsweredSplit:
    """Answer this rank's share of a split and merge the shares of all ranks, in the order ``ids``.

    Together the ranks answer each item once; the model is left in evaluation mode.
    """
    model.eval()
    items: list[AnsweredItem] = []
    counts: Counter[str] = Counter()
    for batch in batches:
        items += answered_items(batch, model.answer(batch))
        counts.update(batch.counts)
    shares = comm.all_gather_object((items, counts))
    by_id = {item.id: item for share, _ in shares for item in share}
    return AnsweredSplit([by_id[id_] for id_ in ids], sum((n for _, n in shares), Counter()))


def answer_files(
    folder: Path, checkpoint: str, save_logits: bool, value: bool = False
) -> dict[str, Path]:
    """Return the files of an evaluation: ``results``, ``metrics`` (by VALUE's rules called
    ``scores_{checkpoint}.json``) and, on demand, ``logits``."""
    files = {"results": folder / f"results_{checkpoint}_all.json"}
    if save_logits:
        files["logits"] = folder / f"logits_{checkpoint}_all.json"
    return files | {"metrics": folder / f"{'scores' if value else 'metrics'}_{checkpoint}.json"}


def save_answers(
    split: AnsweredSplit,
    files: Mapping[str, Path],
    metrics: Mapping[str, float],
    saved_metrics: Mapping[str, Any],
) -> None:
    """Write the files of :func:`answer_files`; print metrics, which are empty without ground truth,
    and write them as ``saved_metrics``."""
    write_json(files["results"], {item.id: item.answer for item in split.items})
    if "logits" in files:
        write_json(files["logits"], {item.id: item.scores for item in split.items})
    if metrics:
        write_json(files["metrics"], saved_metrics, indent=2)
    for kind in ("results", "logits"):  # printed last: a closed pipe ends this process
        if kind in files:
            print(f"wrote {files[kind]}")
    if metrics:
        names = [name.replace("accuracy", "accuracy (%)") for name in metrics]
        print(tabulate([list(metrics.values())], headers=names, floatfmt=".2f"))
