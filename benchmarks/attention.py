"""Attention over sequences of many lengths: in bins against length buckets.

    python benchmarks/attention.py [--videos 2] [--repeats 7] [--dropout 0.1]

Forward and backward of one layer's attention (heads, scores, dropout; no projections) from queries,
keys and values to results: CPU time of one thread, medians, in turns. Bins take and return cells,
some of them padding, as the layers of the model do. Buckets are groups of similar length, each
padded to its longest sequence, with a call for each; they take and return rows.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor

from benchmarks.common import make_parser, median_times, tvr_like_videos
from utils.packing import Bins, pick

HEADS, HEAD_SIZE = 12, 64
BUCKETS = 8


def lengths_by_kind(videos: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return lengths of the cross-modal transformer's sequences, and of videos."""
    items = tvr_like_videos(videos)
    shown = [(len(s.frames), len(s.tokens)) for item in items for s in item.subtitles]
    subtitles = np.array([sum(pair) for pair in shown])
    # Five answers, each behind every subtitle: `</s> question </s> answer`.
    texts = np.random.default_rng(seed).integers(12, 41, size=(videos, 5))
    of_video = np.repeat(np.arange(videos), [len(item.subtitles) for item in items])
    return {
        "subtitles": subtitles,
        "subtitles with answers": (subtitles[:, None] + texts[of_video]).ravel(),
        "frames of videos": np.array([item.num_frames for item in items]),
    }


def attend(qkv: Tensor, shape: tuple[int, int], mask: Tensor | None, dropout: float) -> Tensor:
    """Attend: cells (C, 3H) laid out as ``shape`` → (C, H)."""
    heads = qkv.view(*shape, 3, HEADS, HEAD_SIZE).unbind(2)
    query, key, value = (part.transpose(1, 2) for part in heads)
    result = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return result.transpose(1, 2).reshape(len(qkv), -1)


def in_bins(lengths: np.ndarray) -> Callable[[Tensor, float], Tensor]:
    """Return attention as the model has it: cells to cells."""
    bins = Bins.from_lengths(lengths)
    return lambda cells, dropout: attend(cells, (bins.count, bins.width), bins.mask(cells), dropout)


def in_buckets(lengths: np.ndarray, most: int = BUCKETS) -> Callable[[Tensor, float], Tensor]:
    """Return attention with a call for each of at most ``most`` groups of similar length."""
    offsets = np.cumsum(lengths) - lengths
    groups, cells, to_rows, start = [], [], np.empty(int(lengths.sum()), dtype=np.int64), 0
    for members in bucket_members(lengths, most):
        longest = int(lengths[members].max())
        inside = np.arange(longest) < lengths[members, None]
        rows = offsets[members, None] + np.where(inside, np.arange(longest), 0)
        to_rows[rows[inside]] = start + np.flatnonzero(inside)
        mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :]
        groups.append((rows.shape, mask))
        cells.append(rows.ravel())
        start += rows.size
    index = Bins(0, 0, None, torch.from_numpy(np.concatenate(cells)), torch.from_numpy(to_rows))

    def run(qkv: Tensor, dropout: float) -> Tensor:
        parts = index.spread(qkv).split([count * length for (count, length), _ in groups])
        results = [
            attend(part, shape, mask, dropout)
            for part, (shape, mask) in zip(parts, groups, strict=True)
        ]
        return pick(torch.cat(results), index.to_rows)

    return run


def bucket_members(lengths: np.ndarray, most: int) -> list[np.ndarray]:
    """Return the sequences of every bucket, with as few padded cells as possible.

    A shortest path over the sorted distinct lengths; ``cost[i, j]`` = cells of a bucket holding the
    lengths i…j.
    """
    values, counts = np.unique(lengths, return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    cost = (total[None, 1:] - total[:-1, None]) * values[None, :].astype(np.float64)
    cost[np.tril_indices(len(values), -1)] = np.inf
    best, previous = cost[0], []
    for _ in range(min(most, len(values)) - 1):
        step = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        previous.append(step.argmin(axis=0))
        best = step.min(axis=0)
    cuts = [len(values) - 1]
    for choice in reversed(previous):
        cuts.append(int(choice[cuts[-1]]) - 1)
    ends = total[np.array(cuts[:0:-1], dtype=np.int64) + 1]
    return np.split(np.argsort(lengths, kind="stable"), ends)


def measure(lengths: np.ndarray, dropout: float, repeats: int) -> dict[str, float]:
    """Return CPU milliseconds of bins and buckets, whose results agree."""
    bins = Bins.from_lengths(lengths)
    rows = torch.randn(int(lengths.sum()), 3 * HEADS * HEAD_SIZE)
    versions = {
        "bins": (in_bins(lengths), bins.spread(rows).requires_grad_()),
        "buckets": (in_buckets(lengths), rows.clone().requires_grad_()),
    }
    cells, expected = (attention(qkv, 0.0) for attention, qkv in versions.values())
    torch.testing.assert_close(pick(cells, bins.to_rows), expected, atol=2e-5, rtol=0)

    def step(attention: Callable[[Tensor, float], Tensor], qkv: Tensor) -> None:
        torch.autograd.grad(attention(qkv, dropout).sum(), qkv)

    runs = {name: partial(step, *version) for name, version in versions.items()}
    seconds = median_times(runs, repeats, time.process_time)
    return {name: 1e3 * value for name, value in seconds.items()}


def main() -> None:
    options = make_parser(__doc__, videos=2, repeats=7, dropout=0.1).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for kind, lengths in lengths_by_kind(options.videos).items():
        bins = Bins.from_lengths(lengths)
        fill = 100 * lengths.sum() / (bins.count * bins.width)
        times = measure(lengths, options.dropout, options.repeats)
        shape = f"{len(lengths)}, {lengths.min()}–{lengths.max()}"
        filled = f"{bins.count} × {bins.width}, {fill:.0f} %"
        rows.append([kind, shape, filled, *times.values(), times["buckets"] / times["bins"]])
    headers = ["", "sequences", "bins, filled", "bins (ms)", "buckets (ms)", "ratio"]
    print(tabulate(rows, headers=headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
