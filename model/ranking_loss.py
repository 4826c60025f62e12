"""Losses of video and moment retrieval (arXiv 2005.00200, section 3.2, video-subtitle matching).

``st_ed`` localises the moment in the query's own video; ``neg_ctx`` ranks the right video above
other videos of the batch, ``neg_q`` the right query above other queries.
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
    """Weight of the ``pool_size`` negatives with the highest scores."""

    pool_size: int
    weight: float


def span_loss(start: Tensor, end: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropies of first and last frame, added.

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
        use_all_neg: False: one negative is drawn uniformly, from all or from the hard pool, and not
            weighted: a video for each query (``neg_ctx``), a query for each video (``neg_q``).
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
        """Return the losses of N queries, ordered by video, N/B each.

        Args:
            scores: (N, B) of all queries and all videos.
            hard: weight of hard negatives; None: all have weight 1.
            generator: draws the negative if not all are used.

        Returns:
            ``neg_ctx`` (N,) against the other videos, ``neg_q`` (N,) against the other videos'
            queries; zeros if the batch has one video.
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
        group: int = 1,
    ) -> Tensor:
        """Reduce (N, 1) against (N, M) to (N,); ``group`` consecutive rows share a drawn index."""
        if hard is not None or not self.use_all_neg:
            negatives = negatives.sort(dim=1, descending=True).values
        if not self.use_all_neg:
            pool = min(hard.pool_size, negatives.shape[1]) if hard else negatives.shape[1]
            drawn = torch.randint(pool, (len(negatives) // group, 1), generator=generator)
            index = to_device(drawn.repeat_interleave(group, dim=0), negatives.device)
            return self._loss(positive, negatives.gather(1, index))[:, 0]
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
    """Return the columns of each row without its own ``width``: (N,) → (N, count − width)."""
    columns = torch.arange(count - width, device=own.device)
    return columns + width * (columns >= own[:, None] * width)
