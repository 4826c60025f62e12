"""What a search of a corpus found, as the results file has it.

A results object is ``{"video2idx": {vid: index}, "VCMR": [entry, …], "SVMR": […], "VR": […]}`` with
entries ``{"desc_id", "desc": "", "predictions"}`` in the order of the split, and, where only a part
of the split was there, ``"partial"`` (:meth:`data.coverage.Coverage.mark`). In memory predictions
are float64 arrays (n, 4) with columns video index, start and end in seconds, score (five times
smaller than lists); in a file they are ``[[video, start, end, score], …]``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from config.value import AVERAGE_RECALL
from data.coverage import PARTIAL
from evaluation.nms import temporal_nms
from evaluation.retrieval_metrics import (
    BY_TYPE,
    QUERY_TYPES,
    TASKS,
    TOP_K,
    Metrics,
    retrieval_metrics,
)
from evaluation.value_metrics import average_recall
from utils.files import atomic_write, check_output, write_json

Results = dict[str, Any]


@dataclass
class QueryPredictions:
    """What was found for one query: a list for every task, (n, 4) as in a results object."""

    qid: str
    desc_id: str | int
    lists: dict[str, np.ndarray]


def assemble_results(
    video2idx: Mapping[str, int],
    parts: Iterable[Sequence[QueryPredictions]],
    qids: Sequence[str],
    tasks: Iterable[str],
) -> Results:
    """Merge what the ranks found into one results object.

    Args:
        video2idx: index of every video of the pool.
        parts: predictions of each rank; a query that several ranks answered counts once.
        qids: the order of the split.
        tasks: what to list; a task that has no list for any query (SVMR of a split that hides the
            true videos) is left out.

    Raises:
        ValueError: nobody answered a query of ``qids``.
    """
    found = {query.qid: query for part in parts for query in part}
    missing = [qid for qid in qids if qid not in found]
    if missing:
        raise ValueError(f"{len(missing)} queries were not answered, the first is {missing[0]}")
    results: Results = {"video2idx": dict(video2idx)}
    for task in sorted(tasks, key=TASKS.index):
        answered = [found[qid] for qid in qids if task in found[qid].lists]
        if answered:
            results[task] = [
                {"desc_id": query.desc_id, "desc": "", "predictions": query.lists[task]}
                for query in answered
            ]
    return results


def suppress_overlaps(results: Results, nms_thd: float) -> Results:
    """Results with temporal NMS applied to every list of moments."""

    moments = {
        task: [
            entry | {"predictions": temporal_nms(_as_array(entry), nms_thd)}
            for entry in results[task]
        ]
        for task in ("VCMR", "SVMR")
        if task in results
    }
    return results | moments


def _as_array(entry: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(entry["predictions"], dtype=np.float64).reshape(-1, 4)


def write_results(path: str | Path, results: Results, value: bool = False) -> None:
    """Write a results file, entry by entry: the text of a whole split never lies in memory.

    Args:
        path: where to.
        results: what.
        value: in the form of VALUE's submissions.
    """
    heads = [] if value else ["video2idx"]
    heads += [PARTIAL] if PARTIAL in results else []
    as_json = _as_value_json if value else _as_json
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        parts = [f'"{name}": {json.dumps(results[name])}' for name in heads]
        out.write("{" + ", ".join(parts))
        for number, task in enumerate((task for task in TASKS if task in results), len(parts)):
            out.write(f'{", " * (number > 0)}"{task}": [')
            for place, entry in enumerate(results[task]):
                out.write(", " * (place > 0) + as_json(entry, task))
            out.write("]")
        out.write("}")


def _as_json(entry: dict, task: str) -> str:
    rows = [[int(video), *rest] for video, *rest in _as_array(entry).tolist()]
    return json.dumps(entry | {"predictions": rows})


def _as_value_json(entry: dict, task: str) -> str:
    rows = _as_array(entry).tolist()
    predictions: list[int] | list[list[float]]
    if task == "VR":
        predictions = [int(video) for video, *_ in rows]
    else:
        predictions = [[int(video), start, end] for video, start, end, _ in rows]
    return json.dumps({"desc_id": entry["desc_id"], "predictions": predictions})


@dataclass(frozen=True)
class ResultsFiles:
    """The files of an evaluation.

    Attributes:
        folder: where they go.
        checkpoint: part of their names.
        nms_thd: of a variant with non-maximum suppression; −1 = none.
        value_split: of an evaluation by VALUE's rules, the split's name in ``scores_{checkpoint}
            .json``, which takes the place of ``metrics_{checkpoint}.json``.
    """

    folder: Path
    checkpoint: str
    nms_thd: float = -1
    value_split: str | None = None

    @property
    def endings(self) -> tuple[str, ...]:
        """Of every variant's file names."""
        return ("",) if self.nms_thd == -1 else ("", f"_nms_{self.nms_thd}")

    def results(self, ending: str) -> Path:
        """The results of a variant."""
        return self.folder / f"results_{self.checkpoint}_all{ending}.json"

    def metrics(self, ending: str) -> Path:
        """The metrics of a variant."""
        kind = "metrics" if self.value_split is None else "scores"
        return self.folder / f"{kind}_{self.checkpoint}{ending}.json"

    def check(self) -> None:
        """See, before the search, that they can be written.

        Raises:
            OSError: they cannot.
        """
        for ending in self.endings:
            check_output(self.results(ending), self.metrics(ending))

    def in_metrics_file(self, metrics: Metrics) -> Mapping[str, Any]:
        """Metrics as their file has them."""
        if self.value_split is None:
            return metrics
        return {
            f"valid_{self.value_split}_{task}/{task}_{name}": value
            for task, values in metrics.items()
            for name, value in values.items()
        }


def save_results(
    results: Results,
    files: ResultsFiles,
    ground_truth: Iterable[Mapping[str, Any]] | None = None,
    by_type: bool = False,
) -> dict[str, Metrics]:
    """Write the submission, its NMS variant, and the metrics of both; print the metrics.

    Args:
        results: what to write.
        files: where to, and in which form.
        ground_truth: annotation lines of the split; None where it has none: no metrics.
        by_type: also metrics per query type.

    Returns:
        The metrics, by the ending of the file's name: "" and, with NMS, ``"_nms_{thd}"``.
    """
    value = files.value_split is not None
    truth = None if ground_truth is None else list(ground_truth)
    metrics, said = {}, []  # said last: nobody may read it any more, and then this process ends
    for ending in files.endings:
        variant = suppress_overlaps(results, files.nms_thd) if ending else results
        write_results(files.results(ending), variant, value)
        said.append(f"wrote {files.results(ending)}")
        if truth is not None:
            found = retrieval_metrics(variant, truth, by_type)
            metrics[ending] = with_average_recall(found) if value else found
            mark = {PARTIAL: variant[PARTIAL]} if PARTIAL in variant else {}
            content = {**mark, **files.in_metrics_file(metrics[ending])}
            write_json(files.metrics(ending), content, indent=2)
            said.append(format_metrics(metrics[ending]))
    tqdm.write("\n".join(said))
    return metrics


def with_average_recall(metrics: Metrics) -> Metrics:
    """Metrics with the ``AveR`` of every list of all queries."""
    return {
        task: {**values, AVERAGE_RECALL: average_recall(values)} if task in TASKS else values
        for task, values in metrics.items()
    }


def format_metrics(metrics: Metrics) -> str:
    """Return a table of recalls in percent, a line per task, query type and IoU threshold, and a
    line for every other metric."""
    lines: dict[tuple[str, str, str], list[float | str]] = {}
    notes: dict[str, None] = {}
    for task, values in metrics.items():
        for name, value in values.items():
            criterion, _, top_k = name.rpartition("r")
            if not top_k.isdecimal():  # text is the same for all tasks
                is_text = isinstance(value, str)
                notes[f"{name}: {value}" if is_text else f"{task} {name}: {value:.2f}"] = None
                continue
            parts = criterion.split("-")
            kind = next((part for part in parts if part in QUERY_TYPES), "all")
            iou = next((part for part in parts if part not in ("", kind)), "")
            lines.setdefault((task.removesuffix(BY_TYPE), kind, iou), []).append(value)
    headers = ["task", "queries", "IoU ≥", *(f"R@{k} (%)" for k in TOP_K)]
    table = tabulate(
        [[*key, *values] for key, values in lines.items()],
        headers=headers,
        floatfmt=".2f",
        disable_numparse=[0, 1, 2],
    )
    return "\n".join([table, *notes])
