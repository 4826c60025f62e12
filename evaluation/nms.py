"""Temporal non-maximum suppression."""

import numpy as np


def temporal_iou(
    start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray
) -> np.ndarray:
    """Return the IoU of time spans (arrays that broadcast); 0 between two empty spans.

    It is computed in the type of the arguments. Of spans that intersect, the union is their hull.
    """
    intersection = np.minimum(end, other_end) - np.maximum(start, other_start)
    union = np.maximum(end, other_end) - np.minimum(start, other_start)
    return np.maximum(intersection, 0) / np.maximum(union, np.finfo(union.dtype).tiny)


def temporal_nms(predictions: np.ndarray, threshold: float) -> np.ndarray:
    """Drop predictions that overlap a better one of the same video, greedily by score.

    Args:
        predictions: (n, 4) float64, columns video, start, end, score.
        threshold: highest temporal IoU that two kept predictions of a video may have.

    Returns:
        The kept rows, best first; equal scores in the order given.
    """
    predictions = predictions[np.argsort(-predictions[:, 3], kind="stable")]
    video, start, end, _ = predictions.T
    better, worse = np.nonzero(np.triu(video[:, None] == video, k=1))  # pairs in one video
    iou = temporal_iou(start[better], end[better], start[worse], end[worse])
    clash = iou > threshold
    kept = np.ones(len(predictions), dtype=bool)
    for first, second in zip(better[clash].tolist(), worse[clash].tolist()):
        if kept[first]:  # final: pairs are in the order of the better one
            kept[second] = False
    return predictions[kept]
