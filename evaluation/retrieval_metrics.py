"""Recall of moment and video retrieval (TVR, arXiv 2001.09099, section 5; DiDeMo, 1708.01641).

Times and IoUs are float32, so an IoU of exactly 0.7 is a hit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.nms import temporal_iou
from utils.errors import RecordError, UserError, brief
from utils.names import QUERY_NAMES, NameFields, get_name

TASKS = ("VCMR", "SVMR", "VR")
TOP_K = (1, 5, 10, 100)
IOU_THRESHOLDS = (0.5, 0.7)
BY_TYPE = "_by_type"  # ending of a task's name for recalls per query type
QUERY_TYPES = ("v", "t", "vt")  # about what is seen, spoken, or both
MIN_ANNOTATORS = 4  # from so many spans on, two must be hit

Metrics = dict[str, dict[str, float | str]]


@dataclass
class GroundTruth:
    """The ground truth of Q queries."""

    ids: list[str]  # as strings: databases and annotations differ in their type
    videos: np.ndarray  # (Q,) index of the right video; −1 = not in the corpus
    # (Q, S, 2) float32 start and end in seconds by each of S annotators, NaN where there are
    # fewer; None without times.
    spans: np.ndarray | None
    annotators: np.ndarray  # (Q,) their number, where there are spans
    types: np.ndarray  # (Q,) v, t, vt; empty if unknown

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        video2idx: Mapping[str, int],
        names: NameFields = QUERY_NAMES,
    ) -> "GroundTruth":
        """Read annotation lines, given the index of every video and the names of their fields.

        Raises:
            UserError: there are none, or one lacks its id or video.
        """
        records = list(records)
        if not records:
            raise UserError("the ground truth has no queries; give a split with annotations")
        moments = [annotated_spans(record["ts"]) for record in records if record.get("ts")]
        spans = None
        if len(moments) == len(records):
            spans = np.full((len(records), max(map(len, moments)), 2), np.nan, dtype=np.float32)
            for row, moment in zip(spans, moments):
                row[: len(moment)] = moment
        return cls(
            ids=[_name(record, names.ids) for record in records],
            videos=np.array([video2idx.get(_name(record, names.videos), -1) for record in records]),
            spans=spans,
            annotators=np.array([len(moment) for moment in moments]),
            types=np.array([record.get("type") or "" for record in records]),
        )

    def hits(self, predictions: np.ndarray, iou_threshold: float | None) -> np.ndarray:
        """Return which predictions (Q, K, 4) are right: (Q, K) bool; None compares videos only."""
        right = predictions[..., 0] == self.videos[:, None]
        if iou_threshold is None:
            return right
        if self.spans is None:
            raise ValueError("the ground truth has no times")
        times = predictions[:, :, None, 1:3].astype(np.float32)  # (Q, K, 1, 2)
        spans = self.spans[:, None]  # (Q, 1, S, 2)
        iou = temporal_iou(times[..., 0], times[..., 1], spans[..., 0], spans[..., 1])
        spans_hit = (iou >= np.float32(iou_threshold)).sum(axis=-1)
        needed = np.where(self.annotators >= MIN_ANNOTATORS, 2, 1)
        return right & (spans_hit >= needed[:, None])


def annotated_spans(ts: Sequence) -> list:
    """Return the spans [st, ed] of a ``ts``: of one annotator, or of several (DiDeMo)."""
    return list(ts) if isinstance(ts[0], Sequence) else [ts]


def _name(record: Mapping[str, Any], fields: Sequence[str]) -> str:
    try:
        return get_name(record, *fields)
    except RecordError as error:
        raise UserError(f"line or entry {brief(dict(record))}: {error}") from None


def retrieval_metrics(
    results: Mapping[str, Any],
    ground_truth: Iterable[Mapping[str, Any]],
    by_type: bool = False,
    names: NameFields = QUERY_NAMES,
) -> Metrics:
    """Share of queries with a right answer among the top K, in percent.

    Args:
        results: ``{"video2idx": {…}, "VCMR"|"SVMR"|"VR": [{"desc_id", "predictions": [[video, st,
            ed, score], …]}]}``; predictions may be lists or arrays, best first, and at most 100
            count. A query without an entry has no right answer.
        ground_truth: annotation lines; all of them count.
        by_type: also per query type, as ``{task}_by_type``, where the ground truth names types.
        names: fields of a ground truth line's id and video.

    Returns:
        ``{task: {"0.5-r1": …, "0.7-r100": …}}``, for VR ``{"r1": …}``.

    Raises:
        UserError: results and ground truth have no query in common, or moments are to be scored
            and the ground truth has no times.
    """
    truth = GroundTruth.from_records(ground_truth, results["video2idx"], names)
    types = [kind for kind in QUERY_TYPES if kind in truth.types]
    overall: Metrics = {}
    typed: Metrics = {}
    for task in (task for task in TASKS if task in results):
        predictions = _aligned_predictions(results[task], truth.ids, task)
        if task == "VR":
            first_hits = {"": _first_hits(truth.hits(predictions, None))}
        elif truth.spans is None:
            raise UserError(f"{task} cannot be scored: not every ground truth line has times (ts)")
        else:
            first_hits = {
                f"{threshold}-": _first_hits(truth.hits(predictions, threshold))
                for threshold in IOU_THRESHOLDS
            }
        overall[task] = _recalls(first_hits)
        if by_type and types:
            typed[f"{task}{BY_TYPE}"] = _recalls_by_type(first_hits, truth.types, types)
    return overall | typed


def _aligned_predictions(entries: Iterable[Mapping], ids: Sequence[str], task: str) -> np.ndarray:
    """Return predictions of queries: (Q, K, 4), K the longest list, video −2 as padding."""
    listed = {_name(entry, ("desc_id",)): entry["predictions"][: TOP_K[-1]] for entry in entries}
    lists = [listed.get(id_, ()) for id_ in ids]
    if not any(id_ in listed for id_ in ids):
        raise UserError(
            f"no {task} list belongs to a query of the ground truth (desc_id {ids[0]}, …); "
            "are results and ground truth of the same split?"
        )
    aligned = np.zeros((len(ids), max(map(len, lists)), 4))
    aligned[..., 0] = -2
    for row, predictions in zip(aligned, lists):
        if len(predictions):
            row[: len(predictions)] = predictions
    return aligned


def _first_hits(hits: np.ndarray) -> np.ndarray:
    """Return the position of each row's first hit, from 0; ``TOP_K[-1]`` without one."""
    if not hits.shape[1]:
        return np.full(len(hits), TOP_K[-1])
    return np.where(hits.any(axis=1), hits.argmax(axis=1), TOP_K[-1])


def _percent(chosen: np.ndarray) -> float:
    return round(100 * (np.count_nonzero(chosen) / len(chosen)), 2)


def _recalls(first_hits: Mapping[str, np.ndarray]) -> dict[str, float | str]:
    return {
        f"{criterion}r{k}": _percent(first < k)
        for criterion, first in first_hits.items()
        for k in TOP_K
    }


def _recalls_by_type(
    first_hits: Mapping[str, np.ndarray], query_types: np.ndarray, types: Sequence[str]
) -> dict[str, float | str]:
    recalls: dict[str, float | str] = {}
    ratios = []
    for kind in types:
        chosen = query_types == kind
        recalls |= _recalls({f"{kind}-{c}": first[chosen] for c, first in first_hits.items()})
        ratios.append(f"{kind} {_percent(chosen)}")
    return recalls | {"desc_type_ratio": " ".join(ratios)}
