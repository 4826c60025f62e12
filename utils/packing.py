"""Packed sequences of different lengths, without padding.

A *packed* tensor is (P, H): the rows of sequence 0, then those of sequence 1, and so on. Operations
on single rows (linear layers, norms, feed-forwards) run on it directly. For operations on sequences
:meth:`PackedLayout.pad` returns a padded grid and :meth:`PackedLayout.unpad` the rows again.
Attention concatenates sequences into bins of one width (:class:`Bins`): one call computes all of
them, with little padding.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.batch import TensorBatch

WIDTH_MULTIPLE = 16  # of a bin's width: attention kernels want aligned masks
PADDING = -1


class _RowsToCells(torch.autograd.Function):
    """Rows → cells. Backward is a gather too, as padding cells never have a gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, to_cells: Tensor, to_rows: Tensor) -> Tensor:
        ctx.save_for_backward(to_rows)
        return rows.index_select(0, to_cells)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (to_rows,) = ctx.saved_tensors
        return grad.index_select(0, to_rows), None, None


class _Pick(torch.autograd.Function):
    """Selected rows, each at most once, so that backward copies instead of adding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, rows, grad), None


def pick(x: Tensor, rows: Tensor | None) -> Tensor:
    """Return selected rows (R, …) of x (P, …), each at most once; None = all."""
    return x if rows is None else _Pick.apply(x, rows)


@dataclass
class Bins(TensorBatch):
    """Sequences concatenated in bins of one width, for attention.

    A cell is a position in a bin. Cells of one sequence attend to each other; those of no sequence
    are padding, which attend to each other and are not read.
    """

    count: int
    width: int
    members: Tensor | None  # (count, width) int32, each cell's sequence; None: each bin is one
    to_cells: Tensor | None  # (C,) long, packed row of each cell; None: rows are cells
    to_rows: Tensor | None  # (P,) long, cell of each packed row

    def __post_init__(self) -> None:
        self._masks: dict[tuple[torch.dtype, bool], Tensor] = {}

    def spread(self, x: Tensor) -> Tensor:
        """Return packed rows (P, …) as cells (C, …)."""
        return x if self.to_cells is None else _RowsToCells.apply(x, self.to_cells, self.to_rows)

    def cells_of(self, rows: Tensor | None) -> Tensor | None:
        """Return the cells of packed rows (R,); None stands for all rows or all cells."""
        if rows is None or self.to_rows is None:
            return self.to_rows if rows is None else rows
        return self.to_rows.index_select(0, rows)

    def mask(self, scores_of: Tensor, causal: bool = False) -> Tensor | None:
        """Return the additive attention mask (count or 1, 1, width, width) of 0 and −inf.

        It is cached by dtype, as it is the same for all layers.

        Args:
            scores_of: the queries, which have the dtype and device of the scores.
            causal: a cell does not attend to later cells of its sequence.

        Returns:
            None if every cell attends to its whole bin.
        """
        if self.members is None and not causal:
            return None
        key = (scores_of.dtype, causal)
        if key not in self._masks:
            cells = scores_of.new_ones(1, 1, self.width, self.width, dtype=torch.bool)
            hidden = cells.triu(1 if causal else self.width)
            if self.members is not None:
                hidden = hidden | (self.members[:, None, :, None] != self.members[:, None, None, :])
            zeros = scores_of.new_zeros(hidden.shape)
            self._masks[key] = zeros.masked_fill_(hidden, float("-inf"))
        return self._masks[key]

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, multiple: int = WIDTH_MULTIPLE) -> "Bins":
        """Place sequences into bins of the longest sequence's width, rounded up."""
        longest = int(lengths.max(initial=0))
        if (lengths == longest).all():
            return cls(len(lengths), longest, None, None, None)
        width = -(-longest // multiple) * multiple
        bins, starts = _first_fit(lengths, width)
        count = int(bins.max()) + 1
        cells = np.repeat(bins * width + starts, lengths) + segment_positions(lengths)
        members = np.full(count * width, PADDING, dtype=np.int32)
        members[cells] = np.repeat(np.arange(len(lengths)), lengths)
        to_cells = np.zeros(count * width, dtype=np.int64)
        to_cells[cells] = np.arange(len(cells))
        return cls(
            count,
            width,
            torch.from_numpy(members.reshape(count, width)),
            torch.from_numpy(to_cells),
            torch.from_numpy(cells),
        )


def _first_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each sequence and its start in the bin, by first-fit decreasing.

    Bin after bin takes the longest sequences that fit, until none fits.
    """
    values, counts = (column.tolist() for column in np.unique(lengths, return_counts=True))
    steps, number = [], 0  # length, bin, start, how many of this length
    while values:
        room, index = width, len(values) - 1
        while index >= 0:
            length, taken = values[index], min(counts[index], room // values[index])
            steps.append((length, number, width - room, taken))
            room -= taken * length
            counts[index] -= taken
            if counts[index] == 0:
                del values[index], counts[index]
            index = bisect_right(values, room) - 1
        number += 1
    table = np.array(sorted(steps))  # by length, then by bin
    of_length, in_bin, start, _ = table.repeat(table[:, 3], axis=0).T
    order = np.argsort(lengths, kind="stable")
    bins, starts = np.empty_like(lengths), np.empty_like(lengths)
    bins[order], starts[order] = in_bin, start + of_length * segment_positions(table[:, 3])
    return bins, starts


@dataclass
class PackedLayout(TensorBatch):
    """Positions of S packed sequences in P rows, and the bins for attention."""

    host_lengths: np.ndarray  # (S,) int64, always on the host
    lengths: Tensor  # (S,) long
    offsets: Tensor  # (S,) long, first row of each sequence
    max_length: int
    total: int  # P
    bins: Bins | None  # None: no attention, the layout only pads
    real: Tensor | None = None  # (n,) long, rows of sequences in order; None = all

    def __post_init__(self) -> None:
        self._grid: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int] | np.ndarray, attended: bool = True
    ) -> "PackedLayout":
        """Return the layout of sequences of these lengths (≥ 1), with bins if ``attended``."""
        lengths = np.asarray(lengths, dtype=np.int64)
        return cls(
            host_lengths=lengths,
            lengths=torch.from_numpy(lengths),
            offsets=torch.from_numpy(np.cumsum(lengths) - lengths),
            max_length=int(lengths.max(initial=0)),
            total=int(lengths.sum()),
            bins=Bins.from_lengths(lengths) if attended else None,
        )

    @property
    def attention(self) -> Bins:
        """The bins of a layout over which attention runs."""
        if self.bins is None:
            raise ValueError("no attention runs over this layout (attended=False)")
        return self.bins

    def in_place(self) -> "PackedLayout":
        """Return the layout of the same sequences in rows that are the bins' cells.

        Then there are padding rows between sequences, but attention needs no gathers.
        """
        bins = self.bins
        if bins is None or bins.to_rows is None:
            return self
        return replace(
            self,
            offsets=bins.to_rows[self.offsets],
            total=bins.count * bins.width,
            bins=replace(bins, to_cells=None, to_rows=None),
            real=bins.to_rows,
        )

    def pad(self, x: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
        """Return a padded grid of all sequences, L being the longest length, and its mask.

        Args:
            x: (…, P, …) values of the packed rows.
            dim: dimension of the rows.

        Returns:
            (…, S, L, …), with zeros as padding, and a mask (S, L), True = a real row.
        """
        cells, mask = self._grid_cells()
        if self.real is not None:
            x = x.index_select(dim, self.real)
        if x.shape[dim] < mask.numel():
            shape = (*x.shape[:dim], mask.numel(), *x.shape[dim + 1 :])
            # Backward of this copy is a gather, that of a gather would be a slower scatter-add.
            x = x.new_zeros(shape).index_copy_(dim, cells, x)
        return x.unflatten(dim, mask.shape), mask

    def unpad(self, grid: Tensor) -> Tensor:
        """Return the rows (P, …) of a padded grid (S, L, …); padding rows are zero."""
        cells, mask = self._grid_cells()
        rows = grid.flatten(0, 1)
        if len(cells) < mask.numel():
            rows = rows.index_select(0, cells)
        if self.real is None:
            return rows
        return rows.new_zeros(self.total, *rows.shape[1:]).index_copy_(0, self.real, rows)

    def _grid_cells(self) -> tuple[Tensor, Tensor]:
        """Return the cell (n,) of each real row in the flat padded grid, and its mask (S, L)."""
        if self._grid is None:
            device = self.lengths.device
            mask = length_mask(self.lengths, self.max_length)
            count = self.total if self.real is None else len(self.real)
            packed = torch.cumsum(self.lengths, 0) - self.lengths
            starts = torch.arange(len(self.lengths), device=device) * self.max_length
            # With a known output size the host does not wait for the device.
            shifts = (starts - packed).repeat_interleave(self.lengths, output_size=count)
            self._grid = torch.arange(count, device=device) + shifts, mask
        return self._grid


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """Return the mask of padded sequences, True = real: lengths (…) → (…, longest) bool."""
    return torch.arange(longest, device=lengths.device) < lengths[..., None]


def segment_positions(lengths: np.ndarray) -> np.ndarray:
    """Return the position of every packed row within its sequence, 0 … length−1."""
    lengths = np.asarray(lengths, dtype=np.int64)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) - starts
