"""Scores of VALUE's tasks: AveR, Meta-Ave, and captions of segments joined to paragraphs."""

import re
from collections.abc import Iterable, Mapping

from evaluation.caption_metrics import first_texts, paragraph_scores

AVERAGED_TOP_K = (1, 5, 10)
PARAGRAPH = "paragraph/"  # before the names of metrics of source videos
_SEGMENT = re.compile(r"(.+)_(\d+)")  # a source video's name, and which segment of it


def average_recall(recalls: Mapping[str, float | str]) -> float:
    """AveR: the mean of R@1, R@5, R@10 in percent, of moments those at IoU ≥ 0.7.

    Args:
        recalls: of one list, as :func:`evaluation.retrieval_metrics.retrieval_metrics` names them.
    """
    criterion = "" if "r1" in recalls else "0.7-"
    return sum(float(recalls[f"{criterion}r{k}"]) for k in AVERAGED_TOP_K) / len(AVERAGED_TOP_K)


def meta_average(scores: Mapping[str, float]) -> float:
    """Meta-Ave: the plain mean of the tasks' scores."""
    return sum(scores.values()) / len(scores)


def segment_of(video: str) -> tuple[str, int]:
    """A source video's name and the number of its segment: ``{source}_{number}``.

    A name without a number is a video of one segment.
    """
    found = _SEGMENT.fullmatch(video)
    return (found[1], int(found[2])) if found else (video, 0)


def segment_metrics(captions: Iterable[Mapping], references: Iterable[Mapping]) -> dict[str, float]:
    """Metrics of captions of segments (YC2C), by their first references.

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
    micro, joined = paragraph_scores(first_texts(captions), first_texts(references), paragraphs)
    return micro | {f"{PARAGRAPH}{name}": value for name, value in joined.items()}
