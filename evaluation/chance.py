"""What a ranking at random would score: the baseline of a trained model.

The random ranking draws without replacement, each candidate as likely as any other: the videos of
the corpus (VR), the allowed moments of the query's video (SVMR) or those of all videos (VCMR).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.retrieval_metrics import IOU_THRESHOLDS, TOP_K, GroundTruth


@dataclass(frozen=True)
class MomentBounds:
    """Which pairs of frames (a, b) are moments: min_pred_l ≤ b − a < max_pred_l."""

    interval: float  # seconds per frame
    min_pred_l: int
    max_pred_l: int


def allowed_moments(frames: int, bounds: MomentBounds) -> np.ndarray:
    """Return every moment of a video of ``frames`` frames: (M, 2) seconds, start and end."""
    first, last = np.triu_indices(frames, k=bounds.min_pred_l)
    kept = last - first < bounds.max_pred_l
    return bounds.interval * np.stack([first[kept], last[kept] + 1], axis=1)


def right_moments(moments: np.ndarray, query: GroundTruth, iou: float) -> int:
    """Return how many moments (M, 2) of its video are right for a query (a truth of one)."""
    return int(query.hits(np.insert(moments, 0, query.videos, axis=1)[None], iou).sum())


def random_recall(right: int, candidates: int, k: int) -> float:
    """Return the probability that the first ``k`` of randomly ordered ``candidates`` contain one of
    the ``right``."""
    if k >= candidates:
        return float(right > 0)
    wrong = candidates - right
    miss = np.prod([max(0, wrong - i) / (candidates - i) for i in range(k)])
    return float(1.0 - miss)


def random_video_recall(videos: int, ranks: Sequence[int] = TOP_K) -> dict[str, float]:
    """Return the expected recall in percent of a random ranking of so many videos, by ``r{k}``."""
    return {f"r{k}": 100.0 * random_recall(1, videos, k) for k in ranks}


def chance_recall(
    queries: Iterable[Mapping[str, Any]],
    frames: Mapping[str, int],
    bounds: MomentBounds,
    ranks: Sequence[int] = TOP_K,
    ious: Sequence[float] = IOU_THRESHOLDS,
) -> dict[str, dict[str, float]]:
    """Return the expected recall in percent of random rankings, named as the retrieval metrics:
    {"VCMR": {"0.5-r1": …}, "SVMR": {…}, "VR": {"r1": …}}.

    Args:
        queries: annotation lines.
        frames: T of every video of the corpus.
    """
    position = {vid: place for place, vid in enumerate(frames)}
    moments = dict(enumerate(allowed_moments(count, bounds) for count in frames.values()))
    corpus = sum(map(len, moments.values()))
    truths = [GroundTruth.from_records([query], position) for query in queries]
    own = [moments[int(truth.videos[0])] for truth in truths]
    recall: dict[str, dict[str, float]] = {"VCMR": {}, "SVMR": {}}
    for iou in ious:
        right = [right_moments(*pair, iou) for pair in zip(own, truths, strict=True)]
        for k in ranks:
            in_corpus = [random_recall(count, corpus, k) for count in right]
            in_video = [random_recall(n, len(all_), k) for n, all_ in zip(right, own, strict=True)]
            recall["VCMR"][f"{iou}-r{k}"] = 100.0 * float(np.mean(in_corpus))
            recall["SVMR"][f"{iou}-r{k}"] = 100.0 * float(np.mean(in_video))
    return recall | {"VR": random_video_recall(len(frames), ranks)}
