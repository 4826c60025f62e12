"""Scores of VALUE's tasks: AveR, Meta-Ave, and captions of segments joined to paragraphs."""

import re
from collections.abc import Iterable, Mapping

from evaluation.caption_metrics import paragraph_scores, texts_by_clip

AVERAGED_TOP_K = (1, 5, 10)
PARAGRAPH = "paragraph/"  # before the names of metrics of source videos
_SEGMENT = re.compile(r"(.+)_(\d+)")  # a source video's name, and which segment of it


def average_recall(recalls: Mapping[str, float | str]) -> float:
    """Return AveR of a list's recalls (:func:`evaluation.retrieval_metrics.retrieval_metrics`): the
    mean of R@1, R@5, R@10 in percent, of moments at IoU ≥ 0.7."""
    criterion = "" if "r1" in recalls else "0.7-"
    return sum(float(recalls[f"{criterion}r{k}"]) for k in AVERAGED_TOP_K) / len(AVERAGED_TOP_K)


def meta_average(scores: Mapping[str, float]) -> float:
    """Return Meta-Ave: the mean of the tasks' scores."""
    return sum(scores.values()) / len(scores)


def segment_of(video: str) -> tuple[str, int]:
    """Return source video and number of a segment ``{source}_{number}``; other names have one."""
    match = _SEGMENT.fullmatch(video)
    return (match[1], int(match[2])) if match else (video, 0)


def segment_metrics(captions: Iterable[Mapping], references: Iterable[Mapping]) -> dict[str, float]:
    """Score captions of segments (YC2C) with their first references.

    Args:
        captions, references: JSON lines ``{"vid_name", "clip_id", "descs"}``.

    Returns:
        Metrics over all segments, and, as ``paragraph/name``, over source videos, whose captions
        are joined in the order of the segments.

    Raises:
        UserError: as :func:`evaluation.caption_metrics.caption_scores`.
    """
    references = list(references)
    order = {str(line["clip_id"]): segment_of(str(line["vid_name"])) for line in references}
    paragraphs: dict[str, list[str]] = {}
    for clip in sorted(order, key=order.__getitem__):
        paragraphs.setdefault(order[clip][0], []).append(clip)
    texts = texts_by_clip(captions, 1), texts_by_clip(references, 1)
    micro, joined = paragraph_scores(*texts, paragraphs)
    return micro | {f"{PARAGRAPH}{name}": value for name, value in joined.items()}
