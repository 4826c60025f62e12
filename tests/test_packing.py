"""Packed layouts: cells, rows and buckets."""

import itertools

import numpy as np
import pytest
import torch

from utils.packing import PackedLayout, _best_cuts, segment_positions


def test_layout_of_two_lengths_by_hand():
    layout = PackedLayout.from_lengths([2, 1, 2], max_buckets=1)
    assert layout.to_cells.tolist() == [2, 2, 0, 1, 3, 4]  # the short one first, padded by itself
    assert layout.to_rows.tolist() == [2, 3, 0, 4, 5]
    assert layout.buckets[0].mask[:, 0, 0].tolist() == [[True, False], [True, True], [True, True]]


def test_equal_lengths_need_no_gather():
    layout = PackedLayout.from_lengths([3, 3])
    assert layout.to_cells is None and layout.to_rows is None
    assert layout.buckets[0].mask is None and layout.buckets[0].count == 2


@pytest.mark.parametrize("max_buckets", [1, 3, 8])
def test_every_row_stands_in_one_cell(max_buckets):
    lengths = np.random.default_rng(0).integers(1, 60, size=100)
    layout = PackedLayout.from_lengths(lengths, max_buckets)
    assert len(layout.buckets) <= max_buckets
    rows = torch.arange(int(lengths.sum()))
    assert torch.equal(layout.to_cells[layout.to_rows], rows)
    real = sum(b.count * b.length if b.mask is None else int(b.mask.sum()) for b in layout.buckets)
    assert real == len(rows)


def test_cuts_are_the_cheapest():
    values, counts = np.array([1, 2, 5, 9, 10]), np.array([7, 1, 3, 2, 4])

    def cells(ends):
        starts = [0, *[end + 1 for end in ends[:-1]]]
        return sum(counts[a : b + 1].sum() * values[b] for a, b in zip(starts, ends, strict=True))

    every = [[*cut, 4] for cut in itertools.combinations(range(4), 2)]
    assert cells(_best_cuts(values, counts, 3)) == min(map(cells, every))


@pytest.mark.parametrize("max_buckets", [1, 8])
def test_a_padded_grid_by_hand(max_buckets):
    layout = PackedLayout.from_lengths([1, 3, 2], max_buckets)
    rows = torch.arange(1.0, 7.0, requires_grad=True)
    grid, mask = layout.pad(rows)
    assert grid.tolist() == [[1, 0, 0], [2, 3, 4], [5, 6, 0]]
    assert mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    (grid * torch.arange(9.0).view(3, 3)).sum().backward()
    assert rows.grad.tolist() == [0, 3, 4, 5, 6, 7]
    assert layout.unpad(torch.arange(9).view(3, 3)).tolist() == [0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("lengths", [[1, 3, 2], [3, 3], [1, 1, 1], [4], []])
def test_unpadding_gives_the_rows_back(lengths):
    layout = PackedLayout.from_lengths(lengths)
    total = sum(lengths)
    for shape in [(total,), (total, 2), (total, 2, 5)]:
        rows = torch.randn(shape)
        grid, mask = layout.pad(rows)
        assert grid.shape == (*mask.shape, *shape[1:])
        assert mask.shape == (len(lengths), max(lengths, default=0))
        assert torch.equal(grid[mask], rows) and not grid[~mask].any()
        assert torch.equal(layout.unpad(grid), rows)
    columns = torch.randn(2, total, 3)
    grid, _ = layout.pad(columns, dim=1)
    assert torch.equal(grid, torch.stack([layout.pad(part)[0] for part in columns]))


def test_positions():
    assert segment_positions(np.array([1, 3, 0, 2])).tolist() == [0, 0, 1, 2, 0, 1]
