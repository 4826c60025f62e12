"""Packed layouts: rows, padded grids, and the bins of attention."""

import numpy as np
import pytest
import torch

from utils.packing import Bins, PackedLayout, segment_positions


def test_bins_by_hand():
    # Longest first, each into the first bin with room: 5 | 4 2 2 | 3 … of 8 cells.
    bins = Bins.from_lengths(np.array([2, 5, 4, 2, 3]), multiple=8)
    assert (bins.count, bins.width) == (2, 8)
    assert bins.members.tolist() == [[1, 1, 1, 1, 1, 4, 4, 4], [2, 2, 2, 2, 0, 0, 3, 3]]
    assert bins.to_rows.tolist() == [12, 13, 0, 1, 2, 3, 4, 8, 9, 10, 11, 14, 15, 5, 6, 7]
    assert bins.to_cells[bins.to_rows].tolist() == list(range(16))


def test_a_mask_by_hand():
    bins = Bins.from_lengths(np.array([1, 2]), multiple=4)
    assert bins.members.tolist() == [[1, 1, 0, -1]]
    no = float("-inf")
    wanted = [[0, 0, no, no], [0, 0, no, no], [no, no, 0, no], [no, no, no, 0]]
    mask = bins.mask(torch.zeros(1, dtype=torch.bfloat16))
    assert mask.dtype == torch.bfloat16 and mask[0, 0].tolist() == wanted
    assert bins.mask(torch.zeros(2, dtype=torch.bfloat16)) is mask, "all layers have one mask"
    wanted[0][1] = no
    assert bins.mask(torch.zeros(1), causal=True)[0, 0].tolist() == wanted
    alone = Bins.from_lengths(np.array([2])).mask(torch.zeros(1), causal=True)
    assert alone[0, 0].tolist() == [[0, no], [0, 0]]


def test_equal_lengths_need_no_gather():
    bins = PackedLayout.from_lengths([3, 3]).bins
    assert (bins.count, bins.width) == (2, 3)
    assert bins.members is None and bins.to_cells is None and bins.to_rows is None
    assert bins.mask(torch.zeros(1)) is None


@pytest.mark.parametrize("longest", [20, 60, 200])
@pytest.mark.parametrize("multiple", [1, 16, 128])
def test_every_row_has_a_cell_and_few_are_empty(longest, multiple):
    lengths = np.random.default_rng(0).integers(1, longest, size=500)
    bins = Bins.from_lengths(lengths, multiple)
    total = int(lengths.sum())
    assert bins.width % multiple == 0 and lengths.max() <= bins.width < lengths.max() + multiple
    assert torch.equal(bins.to_cells[bins.to_rows], torch.arange(total))
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    assert bins.members.flatten()[bins.to_rows].tolist() == sequence.tolist()
    assert int((bins.members >= 0).sum()) == total > 0.9 * bins.count * bins.width
    # A sequence lies in one bin, its rows side by side.
    first, last = bins.to_rows[np.cumsum(lengths) - lengths], bins.to_rows[np.cumsum(lengths) - 1]
    assert torch.equal(first // bins.width, last // bins.width)
    assert (last - first).tolist() == (lengths - 1).tolist()


def test_rows_that_are_cells_already():
    lengths = [2, 5, 4]
    apart, layout = (
        PackedLayout.from_lengths(lengths),
        PackedLayout.from_lengths(lengths).in_place(),
    )
    assert (layout.total, layout.offsets.tolist()) == (16, [9, 0, 5])
    rows = torch.zeros(16, 1)
    rows[layout.real, 0] = torch.arange(1.0, 12.0)
    assert torch.equal(
        apart.bins.spread(torch.arange(1.0, 12.0)[:, None])[layout.real], rows[layout.real]
    )
    assert layout.bins.spread(rows) is rows and layout.bins.cells_of(None) is None
    grid, mask = layout.pad(rows)
    assert torch.equal(grid, apart.pad(torch.arange(1.0, 12.0)[:, None])[0])
    assert torch.equal(mask, apart.pad(torch.arange(11))[1])
    assert torch.equal(layout.unpad(grid), rows)


def test_a_padded_grid_by_hand():
    layout = PackedLayout.from_lengths([1, 3, 2], attended=False)
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
