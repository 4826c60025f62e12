"""Search a corpus of encoded videos for the moments that match a query.

A moment's score is the product of a video score and the probabilities of its first and last frame
(HERO, arXiv 2005.00200, section 4.3; XML, arXiv 2001.09099, section 4). Neither the video scores of
all frames nor the (query × video × T × T) tensor of all frame pairs is ever built: scores are
pooled block of videos by block, spans are computed for the best videos only, and only starts that
can be among the best moments are paired with ends, along the diagonals that the length bounds
allow. The model maps cosines to scores and similarities to probabilities.

Shapes: N queries · V videos · F frames of all videos · H hidden size · M videos searched for one
query · T frames of the longest video.

Everything is ranked by score, descending; ties by the order of the videos in the corpus, then by
start, then by end.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config.evaluation import ScorerOptions, SearchOptions, VcmrEvalOptions
from config.groups import VideoRankingOptions
from config.training import VcmrOptions
from config.value import ListOptions
from model.cosine import unit_vectors
from utils.errors import UserError

BLOCK_FRAMES = 4096  # a block's scores for a batch of queries stay in the processor's cache
BLOCK_VIDEOS = 128
MAX_LISTED_VIDEOS = 100  # of a list of videos in addition to moments

Value = TypeVar("Value")
VectorsT = TypeVar("VectorsT")  # query vectors: a tensor (N, H), or one of each stream
MomentOptions = VcmrOptions | VcmrEvalOptions | SearchOptions | ScorerOptions | ListOptions
PoolScores = Callable[[Tensor, Tensor], Tensor]
SpanProbabilities = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SearchSettings:
    """Which lists to make for a query: of moments in the corpus (``VCMR``), of moments in its own
    video (``SVMR``), of videos (``VR``)."""

    tasks: tuple[str, ...]
    listed_videos: int  # length of a VR list
    searched_videos: int = 0  # how many of the best videos are searched for moments
    listed_moments: int = 0  # length of a VCMR or SVMR list
    min_pred_l: int = 0  # a moment (a, b) in frames has min_pred_l ≤ b − a < max_pred_l
    max_pred_l: int = 1
    interval: float = 1.0  # seconds per frame
    q2c_alpha: float | None = None  # video weights are exp(q2c_alpha · score); None: the score

    @classmethod
    def for_moments(cls, options: MomentOptions) -> Self:
        """Return those of corpus moment retrieval, with lists cut to ``max_after_nms``."""
        return cls(
            tasks=tuple(options.full_eval_tasks),
            listed_videos=min(options.max_vcmr_video, MAX_LISTED_VIDEOS, options.max_after_nms),
            searched_videos=options.max_vcmr_video,
            listed_moments=min(options.max_before_nms, options.max_after_nms),
            min_pred_l=options.min_pred_l,
            max_pred_l=options.max_pred_l,
            interval=options.vfeat_interval,
            q2c_alpha=options.q2c_alpha,
        )

    def weights(self, scores: Tensor) -> Tensor:
        """Return how much the moments of videos with these scores count: exp(q2c_alpha · score)."""
        return torch.exp(_needed(self.q2c_alpha, "q2c_alpha") * scores)

    @classmethod
    def for_videos(cls, options: VideoRankingOptions) -> Self:
        """Return those of video retrieval alone."""
        return cls(tasks=("VR",), listed_videos=options.max_vr_video)


@dataclass
class _Block:
    """n videos of T frames each: nothing is padded."""

    first: int  # slot of its first video
    unit: Tensor  # (n, T, H), L2-normalised frames
    norms: Tensor  # (n, T), their lengths before

    def cosines(self, unit_queries: Tensor) -> Tensor:
        """Return the cosine of each query with each frame: (N, H) → (n, N, T)."""
        return (self.unit @ unit_queries.T).transpose(1, 2)

    def similarities(self, vectors: Tensor, query: Tensor, video: Tensor) -> Tensor:
        """Return dot products of a query and the frames of a video, for P pairs of them: (P, T).

        Args:
            vectors: (N, H).
            query, video: (P,) long; ``video`` counts from the block's first, ascending.
        """
        counts = torch.bincount(video, minlength=len(self.unit))  # queries of each video
        column = torch.arange(len(video), device=video.device)
        column -= (counts.cumsum(0) - counts)[video]
        grouped = vectors.new_zeros(len(self.unit), int(counts.max()), vectors.shape[1])
        grouped[video, column] = vectors[query]
        products = grouped @ self.unit.transpose(1, 2)  # (n, queries of a video, T)
        return products[video, column] * self.norms[video]


class RankingIndex(ABC, Generic[VectorsT]):
    """Videos, and their moments, to rank for query vectors."""

    video_ids: list[str]
    position: dict[str, int]  # of each video

    @abstractmethod
    def video_scores(self, query_vectors: VectorsT, /) -> Tensor:
        """Score every video for every query: (N, V)."""

    @abstractmethod
    def spans(self, queries: VectorsT, videos: Tensor, /) -> tuple[Tensor, Tensor]:
        """See :meth:`CorpusIndex.spans`."""

    def search(
        self,
        query_vectors: VectorsT,
        settings: SearchSettings,
        span_queries: VectorsT | None = None,
        true_videos: Tensor | None = None,
    ) -> dict[str, list[np.ndarray]]:
        """Rank videos and moments for a batch of queries.

        Args:
            query_vectors: (N, H) float32.
            span_queries: (N, H) float32, compared with the frames of the videos that are searched;
                needed for moments.
            true_videos: (N,) long, position of each query's own video; needed for SVMR.

        Returns:
            For each of ``settings.tasks`` N float64 arrays (number of predictions, 4) with columns
            position of the video, start and end in seconds, score. Lists are shorter than in the
            settings where there are fewer videos or allowed moments.

        Raises:
            UserError: the scores are not finite.
        """
        scores = self.video_scores(query_vectors)
        require_finite("video", scores)
        lists = {}
        if "VR" in settings.tasks:
            lists["VR"] = _list_videos(scores, settings)
        searched, weights = {}, {}  # task: (N, M)
        if "VCMR" in settings.tasks:
            searched["VCMR"] = videos = top_columns(scores, settings.searched_videos)
            weights["VCMR"] = settings.weights(scores.gather(1, videos))
        if "SVMR" in settings.tasks:
            searched["SVMR"] = _needed(true_videos, "true_videos")[:, None]
            weights["SVMR"] = torch.ones_like(scores[:, :1])
        if searched:
            queries = _needed(span_queries, "span_queries")
            lists |= self._list_moments(queries, searched, weights, settings)
        return {task: lists[task] for task in settings.tasks}

    def _list_moments(
        self,
        span_queries: VectorsT,
        searched: dict[str, Tensor],
        weights: dict[str, Tensor],
        settings: SearchSettings,
    ) -> dict[str, list[np.ndarray]]:
        """Return for each task the best moments of its videos (N, M), each weighted (N, M)."""
        widths = [videos.shape[1] for videos in searched.values()]
        start, end = self.spans(span_queries, torch.cat(list(searched.values()), dim=1))
        bounds = settings.min_pred_l, settings.max_pred_l
        lists = {}
        parts = zip(searched, start.split(widths, dim=1), end.split(widths, dim=1))
        for task, starts, ends in parts:
            starts = weights[task][..., None] * starts
            best = top_moments(starts, ends, *bounds, settings.listed_moments)
            lists[task] = _tables(
                searched[task].gather(1, best.row),
                best.first.double() * settings.interval,
                (best.last + 1).double() * settings.interval,
                best.scores,
                counts=best.counts,
            )
        return lists


class CorpusIndex(RankingIndex[Tensor]):
    """Frame embeddings of a corpus, laid out for searching.

    Videos are kept in *slots* ordered by length, so that videos of one length form blocks. All
    arguments and results count videos in the order given.

    Args:
        videos: frame embeddings (T, H) of every video, by name; T at least 1. They are copied.
        pool_scores, span_probabilities: methods of :class:`model.vcmr.MomentRetrievalModel`; the
            second is for moments.
    """

    def __init__(
        self,
        videos: Mapping[str, Tensor],
        pool_scores: PoolScores,
        span_probabilities: SpanProbabilities,
    ) -> None:
        self.pool_scores = pool_scores
        self.span_probabilities = span_probabilities
        self.video_ids = list(videos)
        self.position = {vid: index for index, vid in enumerate(self.video_ids)}
        lengths = [len(frames) for frames in videos.values()]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        self._blocks = list(_blocks([videos[self.video_ids[index]] for index in order]))

        device = self._blocks[0].unit.device
        self.lengths = torch.tensor(lengths, device=device)  # (V,)
        self.max_length = max(lengths)
        self._slots = torch.tensor(order, device=device).argsort()  # (V,) slot of each video
        sizes = torch.tensor([len(block.unit) for block in self._blocks], device=device)
        self._block_of_slot = torch.arange(len(sizes), device=device).repeat_interleave(sizes)

    def __len__(self) -> int:
        return len(self.video_ids)

    def video_scores(self, query_vectors: Tensor) -> Tensor:
        """Score every video for every query: (N, H) → (N, V)."""
        queries, _ = unit_vectors(query_vectors)
        grids = (block.cosines(queries) for block in self._blocks)
        real = torch.ones(self.max_length, dtype=torch.bool, device=queries.device)
        scores = torch.cat([self.pool_scores(grid, real[: grid.shape[2]]) for grid in grids])
        return scores[self._slots].T.contiguous()

    def spans(self, queries: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end probabilities over the frames of ``videos`` (N, M): two (N, M, T).

        Past the end of a video the end probability is −1.
        """
        mask = torch.arange(self.max_length, device=videos.device) < self.lengths[videos, None]
        start, end = self.span_probabilities(self._similarities(queries, videos), mask)
        require_finite("span", start, end)
        return start, torch.where(mask, end, -1)

    def _similarities(self, vectors: Tensor, videos: Tensor) -> Tensor:
        """Return dot products with the frames of ``videos`` (N, M): (N, M, T), 0 past the end."""
        slots, pairs = self._slots[videos.flatten()].sort()
        result = vectors.new_zeros(videos.numel(), self.max_length)
        counts = torch.bincount(self._block_of_slot[slots], minlength=len(self._blocks)).tolist()
        for block, slot, pair in zip(self._blocks, slots.split(counts), pairs.split(counts)):
            if len(pair):
                query = pair // videos.shape[1]
                products = block.similarities(vectors, query, slot - block.first)
                result[pair, : products.shape[1]] = products
        return result.view(*videos.shape, self.max_length)


def _needed(value: Value | None, name: str) -> Value:
    if value is None:
        raise ValueError(f"a search for moments needs {name}")
    return value


def require_finite(what: str, *scores: Tensor) -> None:
    """Raise UserError if scores of finite videos are not finite."""
    if not all(values.isfinite().all() for values in scores):
        raise UserError(
            f"{what} scores are not finite: the weights of the queries' side hold NaN or infinite "
            "values, or --fp16 overflowed; take an earlier checkpoint, or --bf16"
        )


def _blocks(videos: list[Tensor]) -> Iterator[_Block]:
    """Yield the frames (T, H) of videos sorted by length, in blocks of equally long videos."""
    lengths = [len(frames) for frames in videos]
    # One piece of memory, filled in place: searching many pieces takes 5 % longer.
    free = videos[0].new_empty(sum(lengths), videos[0].shape[1], dtype=torch.float32)
    first = end = 0
    for length, count in zip(*np.unique(lengths, return_counts=True)):
        size = min(BLOCK_VIDEOS, max(1, BLOCK_FRAMES // int(length)))
        end += int(count)
        while first < end:
            unit, norms = unit_vectors(torch.stack(videos[first : min(first + size, end)]))
            own, free = free.tensor_split([norms.numel()])
            yield _Block(first, own.view(unit.shape).copy_(unit), norms[..., 0])
            first += len(unit)


@dataclass
class RankedMoments:
    """The K best moments for each of N queries, best first; all tensors (N, K) but ``counts``."""

    row: Tensor  # which of the M videos
    first: Tensor  # frame
    last: Tensor  # frame, inclusive
    scores: Tensor  # products of probabilities
    counts: Tensor  # (N,), how many of the K are moments; the rest is padding


def top_moments(
    start: Tensor, end: Tensor, min_pred_l: int, max_pred_l: int, count: int
) -> RankedMoments:
    """Rank the best ``count`` pairs (a, b), min_pred_l ≤ b − a < max_pred_l, by start[a] · end[b].

    A pair among the best ``count`` has a start whose own best pair is among them too. So the starts
    are ranked by their best pair first, and the others never meet an end.

    Args:
        start: (N, M, T), not negative.
        end: (N, M, T), negative where no moment can end.
    """
    frames = start.shape[-1]
    max_pred_l = max(min_pred_l + 1, min(max_pred_l, frames))
    spans = max_pred_l - min_pred_l
    ends = F.pad(end, (0, max_pred_l - 1), value=-1)  # (N, M, T + max_pred_l − 1)
    best_end = F.max_pool1d(ends[..., min_pred_l:], spans, stride=1)  # (N, M, T)
    best = torch.where(best_end < 0, -1, start * best_end).flatten(1)
    starts = top_columns(best, count)  # (N, K), of the M·T, ascending
    row, first = starts // frames, starts % frames

    last = first[..., None] + torch.arange(min_pred_l, max_pred_l, device=start.device)
    columns = row[..., None] * ends.shape[-1] + last  # (N, K, spans)
    probability = ends.flatten(1).gather(1, columns.flatten(1)).view_as(columns)
    scores = start.flatten(1).gather(1, starts)[..., None] * probability
    scores = torch.where(probability < 0, -1, scores).flatten(1)
    scores, pairs = _stable_top(scores, count)
    chosen = pairs // spans
    return RankedMoments(
        row=row.gather(1, chosen),
        first=first.gather(1, chosen),
        last=last.flatten(1).gather(1, pairs),
        scores=scores,
        counts=(scores >= 0).sum(dim=1),
    )


def top_columns(values: Tensor, count: int) -> Tensor:
    """Return the columns of the ``count`` highest values of each row, ascending; ties leftmost.

    (``torch.topk`` takes any of equals, and a stable sort of everything costs four times as much.)
    """
    if count >= values.shape[1]:
        return torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
    lowest = values.topk(count, sorted=False).values.amin(dim=1, keepdim=True)
    kept = values >= lowest
    if kept.sum() > count * len(values):  # more than fit are equal to the lowest
        level = values == lowest
        room = count - (values > lowest).sum(dim=1, keepdim=True)
        kept &= ~level | (level.cumsum(dim=1) <= room)
    return kept.nonzero()[:, 1].view(len(values), count)


def _stable_top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` highest values of each row and their columns, ties leftmost first."""
    columns = top_columns(values, count)
    values, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _list_videos(scores: Tensor, settings: SearchSettings) -> list[np.ndarray]:
    scores, videos = _stable_top(scores, settings.listed_videos)
    if settings.q2c_alpha is not None:
        scores = settings.weights(scores)
    no_time = torch.zeros_like(scores)
    counts = torch.full((len(scores),), scores.shape[1])
    return _tables(videos, no_time, no_time, scores, counts=counts)


def _tables(*columns: Tensor, counts: Tensor) -> list[np.ndarray]:
    """Return N arrays (count, columns) of columns (N, K) and the counts (N,) of valid rows."""
    table = torch.stack([column.double() for column in columns], dim=-1).cpu().numpy()
    return [rows[:count] for rows, count in zip(table, counts.tolist())]
