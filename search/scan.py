"""All frames of an index compared with queries: exact, in blocks, in little memory.

Frames stay in half precision where they lie (a memory map, or an array); a block at a time is
converted to float32 in the processor's cache and multiplied with all queries. Scores of frames are
pooled segment by segment at once, so candidates are counted in films, never in frames.
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
CACHE_ROWS = 1024  # converted at once: they, in float32, stay in the processor's cache
# PyTorch shares more than these among its threads, which costs more than copying so few rows does.
SERIAL_VALUES = 1 << 15
MOST_SEGMENTS = 4  # searched, as a multiple of the films searched

Pool = Callable[[Tensor, Tensor], Tensor]


@dataclass
class _Block:
    """Segments that lie close together in the file of frames."""

    first: int  # row of the first of them
    stop: int
    segments: Tensor  # (n,) long
    rows: Tensor | None  # rows of the segments, counted from ``first``; None: all, in order
    layout: PackedLayout


class Corpus:
    """An index as a scorer sees it.

    Args:
        index: a state of it, which does not change.
        device: of the products.

    Attributes:
        first_rows, rows, first_frames: (S,) of the segments, see :class:`search.records.Segment`.
        films: (S,) place in the index's list of films.
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
        places = {film.id: place for place, film in enumerate(index.films)}
        self.films = torch.tensor([places[each.film] for each in segments], dtype=torch.long)
        self.seconds = np.array([film.seconds for film in index.films], dtype=np.float64)
        with warnings.catch_warnings():  # nothing is ever written to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.frames = torch.from_numpy(index.frames)
        self._blocks = list(self._cut())

    def __len__(self) -> int:
        return len(self.rows)

    def _cut(self) -> Iterator[_Block]:
        """Blocks of about :data:`BLOCK_ROWS` rows, without long gaps."""
        group: list[int] = []
        for place in np.argsort(self.first_rows, kind="stable").tolist():
            if group:
                begin = self.first_rows[group[0]]
                gap = self.first_rows[place] - (self.first_rows[group[-1]] + self.rows[group[-1]])
                end = self.first_rows[place] + self.rows[place]
                if end - begin > BLOCK_ROWS or gap > BLOCK_ROWS // 8:
                    yield self._block(group)
                    group = []
            group.append(place)
        if group:
            yield self._block(group)

    def _block(self, group: list[int]) -> _Block:
        firsts, counts = self.first_rows[group], self.rows[group]
        first, stop = int(firsts[0]), int((firsts + counts).max())
        rows = np.concatenate([np.arange(a, a + n) for a, n in zip(firsts, counts)]) - first
        whole = len(rows) == stop - first and bool((rows == np.arange(len(rows))).all())
        return _Block(
            first,
            stop,
            torch.tensor(group),
            None if whole else torch.from_numpy(rows),
            PackedLayout.from_lengths(counts, attended=False),
        )

    @cached_property
    def _lengths(self) -> Tensor:
        """(rows,) length of every frame's vector, 0 where no segment has it."""
        lengths = torch.zeros(len(self.frames))
        for block in self._blocks:
            for first in range(block.first, block.stop, CACHE_ROWS):
                part = slice(first, min(first + CACHE_ROWS, block.stop))
                lengths[part] = unit_vectors(self.frames[part])[1][:, 0]
        return lengths.to(self.device)

    def _products(self, block: _Block, queries: Tensor, place: Tensor) -> Tensor:
        """Dot products (N, rows) of queries (N, H) and a block's frames, converted in ``place``."""
        products = queries.new_empty(len(queries), block.stop - block.first)
        parts = self.frames[block.first : block.stop].split(CACHE_ROWS)
        # The other way round, frames times queries, MKL takes up to four times as long.
        for part, values in zip(parts, products.split(CACHE_ROWS, dim=1), strict=True):
            torch.mm(queries, place[: len(part)].copy_(part).T, out=values)
        return products

    def segment_scores(self, vectors: Tensor, pool: Pool) -> Tensor:
        """Score every segment for every query: (N, H) → (N, S) float32.

        Args:
            vectors: of the queries.
            pool: makes one score of cosines (N, n, T) and a mask (n, T), True = a real frame.
        """
        queries = unit_vectors(vectors.detach().to(self.device))[0]
        scores = torch.empty(len(queries), len(self), device=self.device)
        place = torch.empty(CACHE_ROWS, queries.shape[1], device=self.device)
        for block in self._blocks:
            cosines = self._products(block, queries, place)
            cosines /= self._lengths[block.first : block.stop]
            if block.rows is not None:
                cosines = cosines.index_select(1, block.rows.to(self.device))
            grid, mask = block.layout.to(self.device).pad(cosines, dim=1)
            scores[:, block.segments.to(self.device)] = pool(grid, mask)
        return scores

    def best_segments(self, scores: Tensor, films: int) -> Tensor:
        """Return the segments (n,), ascending, to look for moments in.

        They are those of the ``films`` best films, where there are more films those that score no
        less than the last of these; at most :data:`MOST_SEGMENTS` times as many. So films, not
        their parts, fill the places.

        Args:
            scores: (S,) of one query.
            films: how many.
        """
        scores = scores.cpu()
        best = torch.full((len(self.index.films),), float("-inf"))
        best = best.scatter_reduce(0, self.films, scores, "amax")
        chosen = top_columns(best[None], films)[0]
        listed = torch.zeros(len(best), dtype=torch.bool).index_fill(0, chosen, True)
        lowest = best[chosen].min() if films < len(best) else float("-inf")
        kept = (listed[self.films] & (scores >= lowest)).nonzero()[:, 0]
        if len(kept) <= MOST_SEGMENTS * films:
            return kept
        order = kept[scores[kept].argsort(descending=True, stable=True)].numpy()
        _, leaders = np.unique(self.films.numpy()[order], return_index=True)  # a film's best
        others = np.delete(order, leaders)[: MOST_SEGMENTS * films - len(leaders)]
        return torch.from_numpy(np.sort(np.concatenate([order[leaders], others])))

    def segment_frames(self, segment: int) -> Tensor:
        """Return the frames (T, H) float32 of a segment."""
        first = self.first_rows[segment]
        return self.frames[first : first + self.rows[segment]].to(self.device, torch.float32)

    def products(self, vector: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Return the dot products of a vector with the frames of some segments.

        Args:
            vector: (H,) float32.
            segments: (n,) long.

        Returns:
            (n, T), 0 behind the shorter ones, and which are real (n, T).
        """
        places = segments.numpy()
        counts = self.rows[places]
        longest = int(counts.max())
        grid = torch.zeros(len(places), longest, device=self.device)
        place = torch.empty(longest, len(vector), device=self.device)
        step = max(1, SERIAL_VALUES // len(vector))
        # Segment by segment: their rows lie together, so nothing has to be gathered.
        for first, count, row in zip(self.first_rows[places].tolist(), counts.tolist(), grid):
            for begin in range(0, count, step):
                part = slice(begin, min(begin + step, count))
                place[part].copy_(self.frames[first + part.start : first + part.stop])
            torch.mv(place[:count], vector, out=row[:count])
        lengths = torch.from_numpy(counts).to(self.device)
        return grid, length_mask(lengths, longest)
