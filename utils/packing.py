"""Sequences of different lengths, one after the other, without padding.

A *packed* tensor is (P, H): the rows of sequence 0, then those of sequence 1, and so on. Everything
that acts on a row alone (linear layers, norms, feed-forwards) runs on it as it is. What has to see
sequences pads them: :meth:`PackedLayout.pad` lays them out in one grid, :meth:`PackedLayout.unpad`
takes the rows back. For the attention of deep stacks a layout also has groups of similar length
(buckets), each padded to its own longest sequence only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.batch import TensorBatch

MAX_BUCKETS = 8


@dataclass
class Bucket(TensorBatch):
    """``count`` sequences laid out as a (count, length) grid of cells."""

    count: int
    length: int
    mask: Tensor | None  # (count, 1, 1, length) bool, True = a real position; None = no padding


@dataclass
class PackedLayout(TensorBatch):
    """Where S packed sequences lie in P rows, and the padded cells that attention sees.

    ``to_cells`` (C,) names the packed row that each cell shows (a padding cell repeats its
    sequence's first row), ``to_rows`` (P,) the cell in which each packed row stands. Both are None
    where cells and rows are the same thing (equally long sequences in one bucket).
    """

    lengths: Tensor  # (S,) long
    offsets: Tensor  # (S,) long, first row of each sequence
    max_length: int
    total: int  # P
    buckets: list[Bucket]
    to_cells: Tensor | None  # (C,) long
    to_rows: Tensor | None  # (P,) long

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int] | np.ndarray, max_buckets: int = MAX_BUCKETS
    ) -> "PackedLayout":
        """Lay out sequences of the given lengths (each at least 1).

        Args:
            lengths: positions of every sequence, in packed order.
            max_buckets: at most so many groups; more groups pad less and launch more kernels.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        buckets, cells, rows, start = [], [], np.empty(int(lengths.sum()), dtype=np.int64), 0
        for members in _bucket_members(lengths, max_buckets):
            member_lengths = lengths[members]
            longest = int(member_lengths.max())
            inside = np.arange(longest) < member_lengths[:, None]  # (count, length)
            row = offsets[members, None] + np.where(inside, np.arange(longest), 0)
            cell = start + np.arange(row.size).reshape(row.shape)
            rows[row[inside]] = cell[inside]
            cells.append(row.ravel())
            mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :]
            buckets.append(Bucket(len(members), longest, mask))
            start += row.size
        to_cells = np.concatenate(cells) if cells else np.empty(0, dtype=np.int64)
        same = len(to_cells) == len(rows) and bool((to_cells == np.arange(len(rows))).all())
        return cls(
            lengths=torch.from_numpy(lengths),
            offsets=torch.from_numpy(offsets),
            max_length=int(lengths.max(initial=0)),
            total=len(rows),
            buckets=buckets,
            to_cells=None if same else torch.from_numpy(to_cells),
            to_rows=None if same else torch.from_numpy(rows),
        )

    def pad(self, x: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
        """Return one padded grid of all sequences, L being the longest, and which cells are real.

        Args:
            x: (…, P, …) values of the packed rows.
            dim: which of its dimensions are the rows.

        Returns:
            (…, S, L, …), zeros where there is padding, and a mask (S, L), True = a real row.
        """
        grid = (len(self.lengths), self.max_length)
        if self.total < grid[0] * grid[1]:
            shape = (*x.shape[:dim], grid[0] * grid[1], *x.shape[dim + 1 :])
            # Backward of this copy is a gather: cheaper than that of a gather, which adds.
            x = x.new_zeros(shape).index_copy_(dim, self._cells(), x)
        return x.unflatten(dim, grid), length_mask(self.lengths, self.max_length)

    def unpad(self, grid: Tensor) -> Tensor:
        """Return the rows (P, …) of a padded grid (S, L, …)."""
        cells = grid.flatten(0, 1)
        return cells if self.total == len(cells) else cells.index_select(0, self._cells())

    def _cells(self) -> Tensor:
        """(P,) in which cell of the padded grid each row stands, counted along its rows."""
        device = self.lengths.device
        starts = torch.arange(len(self.lengths), device=device) * self.max_length
        # The size is known: the device need not be asked for it.
        shifts = (starts - self.offsets).repeat_interleave(self.lengths, output_size=self.total)
        return torch.arange(self.total, device=device) + shifts


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """Return which cells of padded sequences are real: lengths (…) → (…, longest) bool."""
    return torch.arange(longest, device=lengths.device) < lengths[..., None]


def _bucket_members(lengths: np.ndarray, max_buckets: int) -> list[np.ndarray]:
    """Sequences (by number) of every bucket, so that the padded cells are as few as possible."""
    if len(lengths) == 0:
        return []
    order = np.argsort(lengths, kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) == 1:
        return [order]
    ends = _best_cuts(values, counts, max_buckets)
    return np.split(order, np.cumsum(counts)[np.asarray(ends[:-1], dtype=np.int64)])


def _best_cuts(values: np.ndarray, counts: np.ndarray, max_buckets: int) -> list[int]:
    """Last distinct length of each bucket: a shortest path over the sorted distinct lengths.

    ``cost[i, j]`` = cells of a bucket holding the lengths i…j, all padded to ``values[j]``.
    """
    total = np.concatenate([[0], np.cumsum(counts)])
    cost = (total[None, 1:] - total[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    best, previous = cost[0], []
    for _ in range(min(max_buckets, len(values)) - 1):
        step = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        choice = step.argmin(axis=0)
        previous.append(choice)
        best = step[choice, np.arange(len(values))]
    cuts = [len(values) - 1]
    for choice in reversed(previous):
        cuts.append(int(choice[cuts[-1]]) - 1)
    return cuts[::-1]


def segment_positions(lengths: np.ndarray) -> np.ndarray:
    """Place of every packed row within its own sequence: 0 … length−1, one after the other."""
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) - starts
