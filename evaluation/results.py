"""Results of a search of a corpus: merged, written, scored.

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
    """One query's lists by task, (n, 4) as in a results object."""

    qid: str
    desc_id: str | int
    lists: dict[str, np.ndarray]


def assemble_results(
    video2idx: Mapping[str, int],
    parts: Iterable[Sequence[QueryPredictions]],
    qids: Sequence[str],
    tasks: Iterable[str],
) -> Results:
    """Merge the predictions of the ranks into one results object.

    A query that several ranks answered counts once; a task that no query has a list of (SVMR of a
    split that hides the true videos) is left out. Entries are in the order of ``qids``.

    Raises:
        ValueError: no rank answered a query of ``qids``.
    """
    by_id = {query.qid: query for part in parts for query in part}
    missing = [qid for qid in qids if qid not in by_id]
    if missing:
        raise ValueError(f"{len(missing)} queries were not answered, the first is {missing[0]}")
    results: Results = {"video2idx": dict(video2idx)}
    for task in sorted(tasks, key=TASKS.index):
        entries = [
            {"desc_id": query.desc_id, "desc": "", "predictions": query.lists[task]}
            for query in map(by_id.__getitem__, qids)
            if task in query.lists
        ]
        results |= {task: entries} if entries else {}
    return results


def suppress_overlaps(results: Results, nms_thd: float) -> Results:
    """Return results with temporal NMS applied to every list of moments."""

    def suppress(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, "predictions": temporal_nms(_as_array(entry), nms_thd)}

    tasks = {"VCMR", "SVMR"} & results.keys()
    return results | {task: [suppress(entry) for entry in results[task]] for task in tasks}


def _as_array(entry: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(entry["predictions"], dtype=np.float64).reshape(-1, 4)


def write_results(path: str | Path, results: Results, value: bool = False) -> None:
    """Write a results file, in VALUE's form on demand, entry by entry: the text of a whole split is
    never in memory."""
    heads = [name for name in (() if value else ("video2idx",)) + (PARTIAL,) if name in results]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        parts = [f'"{name}": {json.dumps(results[name])}' for name in heads]
        out.write("{" + ", ".join(parts))
        for number, task in enumerate((task for task in TASKS if task in results), len(parts)):
            out.write(f'{", " * (number > 0)}"{task}": [')
            for place, entry in enumerate(results[task]):
                out.write(", " * (place > 0) + json.dumps(_in_file(entry, task, value)))
            out.write("]")
        out.write("}")


def _in_file(entry: dict, task: str, value: bool) -> dict[str, Any]:
    """Return an entry of a results file: VALUE's have no scores, and VR's no times."""
    rows = [[int(video), *rest] for video, *rest in _as_array(entry).tolist()]
    if not value:
        return entry | {"predictions": rows}
    predictions = [video if task == "VR" else [video, *rest[:2]] for video, *rest in rows]
    return {"desc_id": entry["desc_id"], "predictions": predictions}


@dataclass(frozen=True)
class ResultsFiles:
    """The files of an evaluation."""

    folder: Path
    checkpoint: str  # part of their names
    nms_thd: float = -1  # of a variant with non-maximum suppression; −1: none
    # By VALUE's rules, the split's name in scores_{checkpoint}.json, which replaces
    # metrics_{checkpoint}.json.
    value_split: str | None = None

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the variants' file names."""
        return ("",) if self.nms_thd == -1 else ("", f"_nms_{self.nms_thd}")

    def results(self, ending: str) -> Path:
        """Return the path of a variant's results."""
        return self.folder / f"results_{self.checkpoint}_all{ending}.json"

    def metrics(self, ending: str) -> Path:
        """Return the path of a variant's metrics."""
        kind = "metrics" if self.value_split is None else "scores"
        return self.folder / f"{kind}_{self.checkpoint}{ending}.json"

    def check(self) -> None:
        """Raise OSError if they cannot be written."""
        for ending in self.endings:
            check_output(self.results(ending), self.metrics(ending))

    def in_metrics_file(self, metrics: Metrics) -> Mapping[str, Any]:
        """Return metrics in the form of their file."""
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
    """Write the results, their NMS variant, and the metrics of both; print the metrics.

    Args:
        ground_truth: annotation lines of the split; without them there are no metrics.
        by_type: also metrics per query type.

    Returns:
        The metrics, by the ending of the file's name: "" and, with NMS, ``"_nms_{thd}"``.
    """
    value = files.value_split is not None
    truth = None if ground_truth is None else list(ground_truth)
    metrics, lines = {}, []  # printed last: a closed pipe ends this process
    for ending in files.endings:
        variant = suppress_overlaps(results, files.nms_thd) if ending else results
        write_results(files.results(ending), variant, value)
        lines.append(f"wrote {files.results(ending)}")
        if truth is not None:
            metrics[ending] = retrieval_metrics(variant, truth, by_type)
            if value:
                for task in metrics[ending].keys() & set(TASKS):
                    metrics[ending][task][AVERAGE_RECALL] = average_recall(metrics[ending][task])
            mark = {PARTIAL: variant[PARTIAL]} if PARTIAL in variant else {}
            content = {**mark, **files.in_metrics_file(metrics[ending])}
            write_json(files.metrics(ending), content, indent=2)
            lines.append(format_metrics(metrics[ending]))
    tqdm.write("\n".join(lines))
    return metrics


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
    rows = [[*key, *values] for key, values in lines.items()]
    table = tabulate(rows, headers=headers, floatfmt=".2f", disable_numparse=[0, 1, 2])
    return "\n".join([table, *notes])
