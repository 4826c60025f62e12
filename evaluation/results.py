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

from data.coverage import PARTIAL
from evaluation.nms import temporal_nms
from evaluation.retrieval_metrics import QUERY_TYPES, TASKS, TOP_K, Metrics, retrieval_metrics
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


def write_results(path: str | Path, results: Results) -> None:
    """Write a results file, entry by entry: the text of a whole split never lies in memory."""

    def as_json(entry: dict) -> str:
        rows = [[int(video), *rest] for video, *rest in _as_array(entry).tolist()]
        return json.dumps(entry | {"predictions": rows})

    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(f'{{"video2idx": {json.dumps(results["video2idx"])}')
        if PARTIAL in results:
            out.write(f', "{PARTIAL}": {json.dumps(results[PARTIAL])}')
        for task in (task for task in TASKS if task in results):
            out.write(f', "{task}": [')
            for place, entry in enumerate(results[task]):
                out.write(", " * (place > 0) + as_json(entry))
            out.write("]")
        out.write("}")


def _name_files(folder: str | Path, checkpoint: str | int, ending: str) -> tuple[Path, Path]:
    """Where the results and metrics of a variant go."""
    folder = Path(folder)
    return (
        folder / f"results_{checkpoint}_all{ending}.json",
        folder / f"metrics_{checkpoint}{ending}.json",
    )


def _nms_ending(nms_thd: float) -> str:
    return f"_nms_{nms_thd}"


def check_results(folder: str | Path, checkpoint: str | int, nms_thd: float = -1) -> None:
    """See, before the search, that :func:`save_results` can write.

    Raises:
        OSError: it cannot.
    """
    for ending in ("", *((_nms_ending(nms_thd),) if nms_thd != -1 else ())):
        check_output(*_name_files(folder, checkpoint, ending))


def save_results(
    results: Results,
    folder: str | Path,
    checkpoint: str | int,
    nms_thd: float = -1,
    ground_truth: Iterable[Mapping[str, Any]] | None = None,
    by_type: bool = False,
) -> dict[str, Metrics]:
    """Write the submission, its NMS variant, and the metrics of both; print the metrics.

    Args:
        results: what to write.
        folder: where to.
        checkpoint: part of the file names.
        nms_thd: −1 = no variant.
        ground_truth: annotation lines of the split; None where it has none: no metrics.
        by_type: also metrics per query type.

    Returns:
        The metrics, by the ending of the file's name: "" and, with NMS, ``"_nms_{thd}"``.
    """
    variants = {"": results}
    if nms_thd != -1:
        variants[_nms_ending(nms_thd)] = suppress_overlaps(results, nms_thd)
    truth = None if ground_truth is None else list(ground_truth)
    metrics, said = {}, []  # said last: nobody may read it any more, and then this process ends
    for ending, variant in variants.items():
        path, metrics_path = _name_files(folder, checkpoint, ending)
        write_results(path, variant)
        said.append(f"wrote {path}")
        if truth is not None:
            metrics[ending] = retrieval_metrics(variant, truth, by_type)
            mark = {PARTIAL: variant[PARTIAL]} if PARTIAL in variant else {}
            write_json(metrics_path, mark | metrics[ending], indent=2)
            said.append(format_metrics(metrics[ending]))
    tqdm.write("\n".join(said))
    return metrics


def format_metrics(metrics: Metrics) -> str:
    """A table of recalls in percent: a line per task, query type and IoU threshold."""
    lines: dict[tuple[str, str, str], list[float]] = {}
    notes = {}
    for task, values in metrics.items():
        for name, value in values.items():
            criterion, _, top_k = name.rpartition("r")
            if not top_k.isdecimal():
                notes[f"{name}: {value}"] = None
                continue
            parts = criterion.split("-")
            kind = next((part for part in parts if part in QUERY_TYPES), "all")
            iou = next((part for part in parts if part not in ("", kind)), "")
            lines.setdefault((task.removesuffix("_by_type"), kind, iou), []).append(value)
    headers = ["task", "queries", "IoU ≥", *(f"R@{k} (%)" for k in TOP_K)]
    table = tabulate(
        [[*key, *values] for key, values in lines.items()],
        headers=headers,
        floatfmt=".2f",
        disable_numparse=[0, 1, 2],
    )
    return "\n".join([table, *notes])
