"""Answering every question or statement of a split, on one rank or several, and what comes out.

A results file is ``{id: answer}`` in the order of the split: an answer's index, or 0 | 1.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tabulate import tabulate

from data.batch import JudgedBatch
from model.candidates import Answers, CandidateModel
from utils.distributed import Communicator
from utils.files import check_output, write_json

UNKNOWN = -1


@dataclass
class AnsweredItem:
    """One question or statement."""

    id: str
    answer: int
    target: int  # UNKNOWN where nobody says
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
        """``accuracy`` in percent and weighted mean losses as ``loss/name``, over the items that
        have a target; empty where no answer is known.

        Args:
            weights: factor of every loss to report.
        """
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
    """The items of one batch, on the host."""
    columns = {name: loss.tolist() for name, loss in answers.losses.items()}
    rows = zip(
        batch.ids,
        answers.chosen.tolist(),
        batch.targets.tolist(),
        answers.scores.tolist(),
        strict=True,
    )
    return [
        AnsweredItem(*row, {name: values[number] for name, values in columns.items()})
        for number, row in enumerate(rows)
    ]


@torch.no_grad()
def answer_split(
    model: CandidateModel, batches: Iterable[JudgedBatch], comm: Communicator, ids: Sequence[str]
) -> AnsweredSplit:
    """Answer this rank's share and merge all ranks'.

    Args:
        model: left in evaluation mode.
        batches: this rank's share of the split.
        comm: the ranks.
        ids: the order of the split; together the ranks answer each once.
    """
    model.eval()
    items: list[AnsweredItem] = []
    counts: Counter[str] = Counter()
    for batch in batches:
        items += answered_items(batch, model.answer(batch))
        counts.update(batch.counts)
    shares = comm.all_gather_object((items, counts))
    found = {item.id: item for share, _ in shares for item in share}
    return AnsweredSplit([found[id_] for id_ in ids], sum((n for _, n in shares), Counter()))


def _name_file(folder: Path, kind: str, checkpoint: str) -> Path:
    return folder / f"{kind}_{checkpoint}{'_all' if kind in ('results', 'logits') else ''}.json"


def check_answers(folder: Path, checkpoint: str, save_logits: bool, value: bool = False) -> None:
    """See, before the work, that :func:`save_answers` can write.

    Raises:
        OSError: it cannot.
    """
    metrics = "scores" if value else "metrics"
    kinds = ("results", metrics, *(("logits",) if save_logits else ()))
    check_output(*(_name_file(folder, kind, checkpoint) for kind in kinds))


def save_answers(
    split: AnsweredSplit,
    folder: Path,
    checkpoint: str,
    metrics: Mapping[str, float],
    save_logits: bool = False,
    mark: Mapping[str, Any] = MappingProxyType({}),
    value_scores: Mapping[str, float] | None = None,
) -> None:
    """Write ``results_{checkpoint}_all.json``, on demand ``logits_{checkpoint}_all.json``, and,
    where there are any, print metrics and write ``metrics_{checkpoint}.json``, with ``mark``; in
    its place ``scores_{checkpoint}.json`` where VALUE's names of the metrics are given."""
    files: dict[str, Mapping[str, Any]] = {
        "results": {item.id: item.answer for item in split.items}
    }
    if save_logits:
        files["logits"] = {item.id: item.scores for item in split.items}
    for kind, content in files.items():
        write_json(_name_file(folder, kind, checkpoint), content)
    if metrics:
        kind, scores = ("metrics", metrics) if value_scores is None else ("scores", value_scores)
        write_json(_name_file(folder, kind, checkpoint), {**mark, **scores}, indent=2)
    for kind in files:  # last: nobody may read it any more, and then this process ends
        print(f"wrote {_name_file(folder, kind, checkpoint)}")
    if metrics:
        names = [name.replace("accuracy", "accuracy (%)") for name in metrics]
        print(tabulate([list(metrics.values())], headers=names, floatfmt=".2f"))
