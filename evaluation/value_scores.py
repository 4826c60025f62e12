"""Score the predictions of VALUE's submissions with annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from config.groups import Kind
from config.value import CIDER, ValueTask
from data.stores.records import Description, TruthLine
from evaluation.caption_metrics import score_lines
from evaluation.retrieval_metrics import retrieval_metrics
from evaluation.value_metrics import average_recall, segment_metrics
from utils.decoding import check
from utils.errors import RecordError, UserError, brief

ANSWER_FIELDS = ("answer_idx", "answer", "label")  # of questions, and statements in either form

Lines = Mapping[str, Mapping[str, Any]]  # annotations by id


@dataclass(frozen=True)
class Score:
    """A task's score on a split."""

    value: float  # AveR, accuracy or CIDEr-D, in percent
    detail: Mapping[str, Any]  # all metrics


def truth_fields(task: ValueTask) -> tuple[tuple[str, ...], ...]:
    """Return the fields an annotation needs for scoring: one of each tuple."""
    return {
        Kind.MOMENTS: (("vid_name",), ("ts",)),
        Kind.VIDEOS: (("vid_name",),),
        Kind.CAPTIONS: (("descs",),),
    }.get(task.kind, (ANSWER_FIELDS,))


def score_split(
    task: ValueTask, predictions: Any, lines: Lines, indices: Mapping[str, int] | None = None
) -> Score:
    """Score a task's predictions (content of a submission's file) with annotations.

    Args:
        lines: annotations, which have all of :func:`truth_fields`.
        indices: of the corpus of videos, in retrieval.

    Raises:
        UserError: a line of annotations is malformed, or captions cannot be scored.
    """
    if task.kind is Kind.CAPTIONS:
        return _score_captions(predictions, lines, by_source=task.name == "yc2c")
    if task.kind in (Kind.MOMENTS, Kind.VIDEOS):
        return _score_rankings(predictions, lines, indices or {})
    return _score_answers(predictions, lines)


def _score_rankings(
    rankings: Mapping[str, list[dict]], lines: Lines, indices: Mapping[str, int]
) -> Score:
    for id_, line in lines.items():
        _check(line, TruthLine, id_)
    results = {name: [_padded(entry) for entry in entries] for name, entries in rankings.items()}
    metrics = retrieval_metrics({"video2idx": indices, **results}, lines.values())
    return Score(average_recall(metrics["VCMR" if "VCMR" in metrics else "VR"]), metrics)


def _padded(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ranking whose rows have four columns: video, start, end, score."""
    rows = (row if isinstance(row, list) else [row] for row in entry["predictions"])
    return {**entry, "predictions": [(row + [0.0] * 4)[:4] for row in rows]}


def _score_answers(answers: Mapping[str, int], lines: Lines) -> Score:
    right = 0
    for id_, line in lines.items():
        name = next(field for field in ANSWER_FIELDS if line.get(field) is not None)
        right += answers.get(id_) == _check(line[name], int, f"{id_}: {name}")
    accuracy = 100 * right / len(lines)
    return Score(accuracy, {"accuracy": accuracy, "right": right, "of": len(lines)})


def _score_captions(captions: Iterable[Mapping], lines: Lines, by_source: bool) -> Score:
    captions = list(captions)
    captioned = {str(line["clip_id"]) for line in captions}
    references = [line for id_, line in lines.items() if id_ in captioned]
    for line in references:
        _check(line["descs"], list[Description], f"clip {line['clip_id']}: descs")
    metrics = (segment_metrics if by_source else score_lines)(captions, references)
    return Score(metrics[CIDER], metrics)


def _check(value: Any, kind: Any, where: str) -> Any:
    try:
        return check(value, kind)
    except RecordError as error:
        raise UserError(
            f"the annotation of {where}: {error}, in {brief(value)}; fix the line"
        ) from None
