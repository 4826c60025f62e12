"""Compare all frames of an index with queries: exactly, in blocks, with little memory.

Frames stay in half precision, in a memory map or an array; one block at a time is converted to
float32 in the processor's cache and multiplied with all queries. The scores of frames are pooled by
segment at once, so candidates are counted in films, not in frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evaluation.ranking import top_columns
from model.cosine import unit_vectors
from utils.packing import PackedLayout, length_mask

if TYPE_CHECKING:
    from search.store import Index

BLOCK_ROWS = 1 << 14  # pooled at once
CACHE_ROWS = 1024  # converted at once; in float32 they fit into the processor's cache
SERIAL_VALUES = 1 << 15  # copied at once: PyTorch would start threads for more, which costs more
MAX_SEGMENTS = 4  # searched, as a multiple of the films searched

Pool = Callable[[Tensor, Tensor], Tensor]


@dataclass
class _Block:
    """Segments that are close together in the file of frames."""

    first: int  # row
    stop: int
    segments: Tensor  # (n,) long
    rows: Tensor | None  # rows of the segments, from ``first`` on; None: all, in order
    layout: PackedLayout


class Corpus:
    """An index as a scorer sees it.

    Args:
        index: a state of it, which does not change.
        device: of the products.

    Attributes:
        first_rows, rows, first_frames: (S,) of the segments, see :class:`search.records.Segment`.
        films: (S,) index into the index's list of films.
        seconds: (films,) their lengths.
        frames: (rows, H), as stored.
    """

    def __init__(self, index: Index, device: torch.device | str = "cpu") -> None:
        self.index = index
        self.device = torch.device(device)
        segments = index.segments
        self.first_rows = np.array([each.first_row for each in segments], dtype=np.int64)
        self.rows = np.array([each.rows for each in segments], dtype=np.int64)
        self.first_frames = np.array([each.first_frame for each in segments], dtype=np.int64)
        numbers = {film.id: number for number, film in enumerate(index.films)}
        self.films = torch.tensor([numbers[each.film] for each in segments], dtype=torch.long)
        self.seconds = np.array([film.seconds for film in index.films], dtype=np.float64)
        with warnings.catch_warnings():  # nothing is ever written to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.frames = torch.from_numpy(index.frames)
        self._blocks = list(self._cut())

    def __len__(self) -> int:
        return len(self.rows)

    def _cut(self) -> Iterator[_Block]:
        """Yield blocks of about :data:`BLOCK_ROWS` rows, without long gaps."""
        group: list[int] = []
        ends = self.first_rows + self.rows
        for segment in np.argsort(self.first_rows, kind="stable").tolist():
            if group:
                gap = self.first_rows[segment] - ends[group[-1]]
                total = ends[segment] - self.first_rows[group[0]]
                if total > BLOCK_ROWS or gap > BLOCK_ROWS // 8:
                    yield self._block(group)
                    group = []
            group.append(segment)
        if group:
            yield self._block(group)

    def _block(self, group: list[int]) -> _Block:
        firsts, counts = self.first_rows[group], self.rows[group]
        first, stop = int(firsts[0]), int((firsts + counts).max())
        rows = np.concatenate([np.arange(a, a + n) for a, n in zip(firsts, counts)]) - first
        in_order = np.array_equal(rows, np.arange(stop - first))
        return _Block(
            first,
            stop,
            torch.tensor(group),
            None if in_order else torch.from_numpy(rows),
            PackedLayout.from_lengths(counts, attended=False),
        )

    @cached_property
    def _lengths(self) -> Tensor:
        """(rows,) norms of the frames' embeddings, 0 outside the segments."""
        lengths = torch.zeros(len(self.frames))
        for block in self._blocks:
            for first in range(block.first, block.stop, CACHE_ROWS):
                part = slice(first, min(first + CACHE_ROWS, block.stop))
                lengths[part] = unit_vectors(self.frames[part])[1][:, 0]
        return lengths.to(self.device)

    def _products(self, block: _Block, queries: Tensor, buffer: Tensor) -> Tensor:
        """Return the dot products (N, rows) of queries (N, H) and a block's frames."""
        products = queries.new_empty(len(queries), block.stop - block.first)
        parts = self.frames[block.first : block.stop].split(CACHE_ROWS)
        # Frames times queries, the other way round, takes MKL up to four times as long.
        for part, values in zip(parts, products.split(CACHE_ROWS, dim=1), strict=True):
            torch.mm(queries, buffer[: len(part)].copy_(part).T, out=values)
        return products

    def segment_scores(self, vectors: Tensor, pool: Pool) -> Tensor:
        """Return the scores (N, S) of all segments for queries (N, H).

        Args:
            pool: from cosines (N, n, T) and a mask (n, T), True = a real frame, to scores (N, n).
        """
        queries = unit_vectors(vectors.detach().to(self.device))[0]
        scores = torch.empty(len(queries), len(self), device=self.device)
        buffer = torch.empty(CACHE_ROWS, queries.shape[1], device=self.device)
        for block in self._blocks:
            cosines = self._products(block, queries, buffer)
            cosines /= self._lengths[block.first : block.stop]
            if block.rows is not None:
                cosines = cosines.index_select(1, block.rows.to(self.device))
            grid, mask = block.layout.to(self.device).pad(cosines, dim=1)
            scores[:, block.segments.to(self.device)] = pool(grid, mask)
        return scores

    def best_segments(self, scores: Tensor, films: int) -> Tensor:
        """Return the segments (n,), ascending, to search for moments.

        They are the segments of the ``films`` best films; if there are further films, without those
        that score less than the last of the best. At most :data:`MAX_SEGMENTS` times as many
        segments as films: one long film must not displace others.

        Args:
            scores: (S,) of one query.
            films: their number.
        """
        scores = scores.cpu()
        best = torch.full((len(self.index.films),), float("-inf"))
        best = best.scatter_reduce(0, self.films, scores, "amax")
        chosen = top_columns(best[None], films)[0]
        listed = torch.zeros(len(best), dtype=torch.bool).index_fill(0, chosen, True)
        lowest = best[chosen].min() if films < len(best) else float("-inf")
        kept = (listed[self.films] & (scores >= lowest)).nonzero()[:, 0]
        if len(kept) <= MAX_SEGMENTS * films:
            return kept
        order = kept[scores[kept].argsort(descending=True, stable=True)].numpy()
        _, leaders = np.unique(self.films.numpy()[order], return_index=True)  # a film's best
        others = np.delete(order, leaders)[: MAX_SEGMENTS * films - len(leaders)]
        return torch.from_numpy(np.sort(np.concatenate([order[leaders], others])))

    def segment_frames(self, segment: int) -> Tensor:
        """Return the frames (T, H) float32 of a segment."""
        first = self.first_rows[segment]
        return self.frames[first : first + self.rows[segment]].to(self.device, torch.float32)

    def products(self, vector: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Return the dot products (n, T) of a vector (H,) with the frames of segments (n,), padded
        with 0, and a mask (n, T), True = a real frame."""
        numbers = segments.numpy()
        counts = self.rows[numbers]
        longest = int(counts.max())
        grid = torch.zeros(len(numbers), longest, device=self.device)
        buffer = torch.empty(longest, len(vector), device=self.device)
        step = max(1, SERIAL_VALUES // len(vector))
        # Segment by segment: the rows of one are contiguous, so nothing has to be gathered.
        for first, count, row in zip(self.first_rows[numbers].tolist(), counts.tolist(), grid):
            rows = self.frames[first : first + count]
            for target, part in zip(buffer[:count].split(step), rows.split(step), strict=True):
                target.copy_(part)
            torch.mv(buffer[:count], vector, out=row[:count])
        return grid, length_mask(torch.from_numpy(counts).to(self.device), longest)
