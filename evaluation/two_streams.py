"""Two models that answer together: one reads frames alone, one subtitles alone.

What they say is averaged where it is a probability (or weight, or logit of a token) of the same
thing: see :func:`average`, the only place that knows how.
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
    """Return the mean of what every stream says, elementwise."""
    return torch.stack(list(streams)).mean(dim=0)


class AveragedIndex(RankingIndex[Sequence[Tensor]]):
    """A corpus as several models encoded it; queries are one tensor (N, H) of each.

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
        scores = [
            stream.video_scores(vectors)
            for stream, vectors in zip(self.streams, query_vectors, strict=True)
        ]
        if self.q2c_alpha is None:
            return average(scores)
        weights = average([torch.exp(self.q2c_alpha * one) for one in scores])
        return weights.log() / self.q2c_alpha

    def spans(self, queries: Sequence[Tensor], videos: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`evaluation.ranking.CorpusIndex.spans`."""
        found = [
            stream.spans(vectors, videos)
            for stream, vectors in zip(self.streams, queries, strict=True)
        ]
        start, end = map(average, zip(*found, strict=True))
        return start, end


@dataclass
class AveragedStepper:
    """Writes texts by the average of several models' logits (:class:`model.decoding.Stepper`)."""

    streams: Sequence[Stepper]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Last tokens (R,) → logits of the next ones (R, V)."""
        return average([stream(tokens) for stream in self.streams])

    def reorder(self, rows: Tensor) -> None:
        """Row r goes on from what row ``rows[r]`` holds."""
        for stream in self.streams:
            stream.reorder(rows)


def average_answers(streams: Sequence[AnsweredSplit], loss: str) -> AnsweredSplit:
    """Choose by the average of the probabilities: the softmax over answers, or of a statement's
    being true the sigmoid. They take the place of the scores.

    Args:
        streams: the same items, as each model answered them.
        loss: which loss to give: that of the averaged probabilities.

    Raises:
        UserError: a model answered other items.
    """
    first, *others = ([item.id for item in stream.items] for stream in streams)
    if any(ids != first for ids in others):
        raise UserError(
            "the two runs answer other questions or statements: name the database for both "
            "(--query_txt_db)"
        )
    items = [_average_item(found, loss) for found in zip(*(s.items for s in streams), strict=True)]
    return AnsweredSplit(items, {loss: streams[0].counts[loss]})


def _average_item(found: Sequence[AnsweredItem], loss: str) -> AnsweredItem:
    first = found[0]
    scores = [torch.tensor(item.scores, dtype=torch.float64) for item in found]
    if scores[0].dim():
        chances = average([one.softmax(dim=0) for one in scores])
        answer, of_answers = int(chances.argmax()), chances.tolist()
        given: float | list[float] = of_answers
    else:
        true = float(average([one.sigmoid() for one in scores]))
        answer, of_answers, given = int(true > 0.5), [1 - true, true], true
    value = 0.0 if first.target == UNKNOWN else -math.log(max(of_answers[first.target], 1e-45))
    return replace(first, answer=answer, scores=given, losses={loss: value})
