"""Ensembles of two models: one reads frames only, one subtitles only.

Their probabilities (or weights, or token logits) are averaged with :func:`average`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evaluation.answers import UNKNOWN, AnsweredItem, AnsweredSplit
from evaluation.ranking import CorpusIndex, RankingIndex
from model.decoding import Stepper
from utils.errors import UserError


def average(streams: Sequence[Tensor]) -> Tensor:
    """Return the elementwise mean of the streams' outputs."""
    return torch.stack(list(streams)).mean(dim=0)


class AveragedIndex(RankingIndex[Sequence[Tensor]]):
    """A corpus encoded by several models; queries are one tensor (N, H) of each.

    Args:
        streams: an index of the same videos for each model.
        q2c_alpha: a video's weights exp(q2c_alpha · score) are averaged; None: scores are.

    Raises:
        UserError: videos have other lengths in another stream.
    """

    def __init__(self, streams: Sequence[CorpusIndex], q2c_alpha: float | None) -> None:
        first = streams[0]
        if any(not torch.equal(stream.lengths, first.lengths) for stream in streams):
            raise UserError(
                "the two runs read videos with other numbers of frames: evaluate both with the "
                "same feature database and max_clip_len"
            )
        self.streams, self.q2c_alpha = list(streams), q2c_alpha
        self.video_ids, self.position = first.video_ids, first.position

    def video_scores(self, query_vectors: Sequence[Tensor]) -> Tensor:
        """Return scores (N, V) whose weights are the average of the streams'."""
        pairs = zip(self.streams, query_vectors, strict=True)
        scores = [stream.video_scores(vectors) for stream, vectors in pairs]
        if self.q2c_alpha is None:
            return average(scores)
        weights = average([torch.exp(self.q2c_alpha * one) for one in scores])
        return weights.log() / self.q2c_alpha

    def spans(self, queries: Sequence[Tensor], videos: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`evaluation.ranking.CorpusIndex.spans`."""
        pairs = zip(self.streams, queries, strict=True)
        spans = [stream.spans(vectors, videos) for stream, vectors in pairs]
        start, end = map(average, zip(*spans, strict=True))
        return start, end


@dataclass
class AveragedStepper:
    """Averages several models' logits (:class:`model.decoding.Stepper`)."""

    streams: Sequence[Stepper]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return logits of the next tokens (R, V) after the last ones (R,)."""
        return average([stream(tokens) for stream in self.streams])

    def reorder(self, rows: Tensor) -> None:
        """Continue row r from the state of row ``rows[r]``."""
        for stream in self.streams:
            stream.reorder(rows)


def average_answers(streams: Sequence[AnsweredSplit], loss: str) -> AnsweredSplit:
    """Choose by averaged probabilities (softmax over answers, or sigmoid of a statement), which
    replace the scores, and from which the loss of that name is computed.

    Raises:
        UserError: the models answered different items.
    """
    first, *others = ([item.id for item in stream.items] for stream in streams)
    if any(ids != first for ids in others):
        raise UserError(
            "the two runs answer other questions or statements: name the database for both "
            "(--query_txt_db)"
        )
    items = [_average_item(same, loss) for same in zip(*(s.items for s in streams), strict=True)]
    return AnsweredSplit(items, {loss: streams[0].counts[loss]})


def _average_item(same: Sequence[AnsweredItem], loss: str) -> AnsweredItem:
    logits = [torch.tensor(item.scores, dtype=torch.float64) for item in same]
    scores: float | list[float]
    if logits[0].dim():
        scores = by_answer = average([one.softmax(dim=0) for one in logits]).tolist()
        answer = by_answer.index(max(by_answer))
    else:
        scores = float(average([one.sigmoid() for one in logits]))
        answer, by_answer = int(scores > 0.5), [1 - scores, scores]
    target = same[0].target
    value = 0.0 if target == UNKNOWN else -math.log(max(by_answer[target], 1e-45))
    return replace(same[0], answer=answer, scores=scores, losses={loss: value})
