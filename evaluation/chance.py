"""What a ranking at random would score: the level that a trained model must leave behind.

The random ranking draws without replacement, each candidate as likely as any other: the videos of
the corpus (VR), the allowed moments of the query's video (SVMR) or those of all videos (VCMR).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.nms import temporal_iou

_AGREEING_ANNOTATORS = 2  # of four or more: how many spans a right moment must hit (DiDeMo)
_MANY_ANNOTATORS = 4


@dataclass(frozen=True)
class MomentBounds:
    """Which pairs of frames (a, b) are moments: min_pred_l ≤ b − a < max_pred_l."""

    interval: float  # seconds per frame
    min_pred_l: int
    max_pred_l: int


@dataclass(frozen=True)
class QueryTruth:
    """A query's right answer.

    Attributes:
        video: name of its video.
        spans: [start, end] in seconds, one for each annotator.
    """

    video: str
    spans: Sequence[Sequence[float]]


def allowed_moments(frames: int, bounds: MomentBounds) -> np.ndarray:
    """Every moment of a video of ``frames`` frames: (M, 2) seconds, start and end."""
    first, last = np.triu_indices(frames, k=bounds.min_pred_l)
    kept = last - first < bounds.max_pred_l
    return bounds.interval * np.stack([first[kept], last[kept] + 1], axis=1)


def right_moments(moments: np.ndarray, spans: Sequence[Sequence[float]], iou: float) -> int:
    """Return how many of the moments (M, 2) hit: with four annotators or more, two must agree."""
    start, end = moments.T[:, :, None].astype(np.float32)  # (M, 1) each
    overlap = temporal_iou(start, end, *np.asarray(spans, np.float32).T[:, None])  # (M, annotators)
    needed = _AGREEING_ANNOTATORS if len(spans) >= _MANY_ANNOTATORS else 1
    return int(((overlap >= np.float32(iou)).sum(axis=1) >= needed).sum())


def random_recall(right: int, candidates: int, k: int) -> float:
    """Chance that the first ``k`` of randomly ordered ``candidates`` hold one of the ``right``."""
    if k >= candidates:
        return float(right > 0)
    wrong = candidates - right
    miss = np.prod([max(0, wrong - i) / (candidates - i) for i in range(k)])
    return float(1.0 - miss)


def chance_recall(
    queries: Iterable[QueryTruth],
    frames: Mapping[str, int],
    bounds: MomentBounds,
    ranks: Sequence[int] = (1, 5, 10, 100),
    ious: Sequence[float] = (0.5, 0.7),
) -> dict[str, dict[str, float]]:
    """Expected recall in percent of random rankings, under the names of the retrieval metrics.

    Args:
        queries: their right answers.
        frames: T of every video of the corpus.
        bounds: which moments a model may predict.

    Returns:
        {"VCMR": {"0.5-r1": …}, "SVMR": {…}, "VR": {"r1": …}}.
    """
    moments = {vid: allowed_moments(count, bounds) for vid, count in frames.items()}
    corpus = sum(map(len, moments.values()))
    queries = list(queries)
    recall: dict[str, dict[str, float]] = {"VCMR": {}, "SVMR": {}, "VR": {}}
    for iou in ious:
        right = [right_moments(moments[query.video], query.spans, iou) for query in queries]
        own = [len(moments[query.video]) for query in queries]
        for k in ranks:
            name = f"{iou}-r{k}"
            in_corpus = [random_recall(count, corpus, k) for count in right]
            in_video = [random_recall(*pair, k) for pair in zip(right, own, strict=True)]
            recall["VCMR"][name] = 100.0 * float(np.mean(in_corpus))
            recall["SVMR"][name] = 100.0 * float(np.mean(in_video))
    recall["VR"] = {f"r{k}": 100.0 * random_recall(1, len(frames), k) for k in ranks}
    return recall
