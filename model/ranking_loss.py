"""Losses that teach queries to find their video and their moment (paper, section 3.2, VSM).

``st_ed`` finds the moment within the query's own video; ``neg_ctx`` ranks the right video above the
batch's other videos, ``neg_q`` the right query above the batch's other queries.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.batch import to_device

PADDED_LOGIT = -1e4
EASY_NEGATIVE_WEIGHT = 0.1  # of a negative outside the hard pool, once hard negatives are on


@dataclass(frozen=True)
class HardNegatives:
    """The highest-scoring ``pool_size`` negatives count ``weight`` times."""

    pool_size: int
    weight: float


def span_loss(start: Tensor, end: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """CE of the first plus CE of the last frame.

    Args:
        start, end: (N, T) logits.
        targets: (N, 2) frames; −1 = none.
        reduction: ``mean`` over the queries that have a target (0 if none has), or ``sum``.
    """
    first, last = (
        F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
        for logits, target in zip((start, end), targets.unbind(1), strict=True)
    )
    total = first + last
    return total if reduction == "sum" else total / (targets[:, 0] >= 0).sum().clamp(min=1)


@dataclass(frozen=True)
class RankingLoss:
    """Hinge or log-sum-exp loss of a positive against negatives.

    Attributes:
        kind: ``hinge``: max(0, margin + s_neg − s_pos); ``lse``: log(1 + exp(s_neg − s_pos)).
        margin: of the hinge.
        use_all_neg: all negatives, or one drawn: a video for each query (``neg_ctx``), a query for
            each video (``neg_q``), from all of them or from the hard pool, all equally likely and
            none weighted.
    """

    kind: str = "hinge"
    margin: float = 0.1
    use_all_neg: bool = True

    def __call__(
        self,
        scores: Tensor,
        hard: HardNegatives | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Losses of every query, laid out video by video, N/B each.

        Args:
            scores: (N, B) of all queries against all videos.
            hard: how hard negatives count; None = all alike.
            generator: draws the negative where not all are used.

        Returns:
            ``neg_ctx`` (N,) against the other videos, ``neg_q`` (N,) against the other videos'
            queries; zeros where the batch has one video.
        """
        scores = scores.float()
        count, videos = scores.shape
        if videos == 1:
            zero = scores.sum(dim=1) * 0
            return zero, zero
        each = count // videos
        own = torch.arange(count, device=scores.device) // each  # (N,)
        positive = scores.gather(1, own[:, None])
        other_videos = scores.gather(1, _all_but(own, videos, 1))
        other_queries = scores.T[own].gather(1, _all_but(own, count, each))
        return (
            self._reduce(positive, other_videos, hard, generator),
            self._reduce(positive, other_queries, hard, generator, each),
        )

    def _reduce(
        self,
        positive: Tensor,
        negatives: Tensor,
        hard: HardNegatives | None,
        generator: torch.Generator | None,
        together: int = 1,
    ) -> Tensor:
        """(N, 1) against (N, M) → (N,); ``together`` neighbouring rows share what is drawn."""
        if hard is not None or not self.use_all_neg:
            negatives = negatives.sort(dim=1, descending=True).values
        if not self.use_all_neg:
            pool = min(hard.pool_size, negatives.shape[1]) if hard else negatives.shape[1]
            drawn = torch.randint(pool, (len(negatives) // together, 1), generator=generator)
            places = to_device(drawn.repeat_interleave(together, dim=0), negatives.device)
            return self._loss(positive, negatives.gather(1, places))[:, 0]
        loss = self._loss(positive, negatives)
        if hard is not None:
            weights = loss.new_full((loss.shape[1],), EASY_NEGATIVE_WEIGHT)
            weights[: hard.pool_size] = hard.weight
            loss = loss * weights
        return loss.mean(dim=1)

    def _loss(self, positive: Tensor, negative: Tensor) -> Tensor:
        if self.kind == "hinge":
            return (self.margin + negative - positive).clamp(min=0)
        return F.softplus(negative - positive)


def _all_but(own: Tensor, count: int, width: int) -> Tensor:
    """Columns 0 … count−1 of each row except its own ``width``: (N,) → (N, count − width)."""
    columns = torch.arange(count - width, device=own.device)
    return columns + width * (columns >= own[:, None] * width)
