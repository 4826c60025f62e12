"""Validation of several objectives: losses, how good the answers are, and how fast they come."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from utils.distributed import Communicator
from utils.logger import LOGGER

Sums = tuple[int, dict[str, Tensor]]  # of how many things; fp64 scalars on the device


@dataclass
class Measured:
    """One loader's result over all ranks."""

    count: int
    means: dict[str, float]
    rate: float  # things asked for per second


@torch.no_grad()
def measure(sums_of: Callable[[Any], Sums], batches: Iterable[Any], comm: Communicator) -> Measured:
    """Means over all ranks' batches.

    Args:
        sums_of: one batch.
        batches: this rank's share.
        comm: the ranks.
    """
    start = time.perf_counter()
    count = 0
    sums: dict[str, Tensor] = {}
    for batch in batches:
        asked, parts = sums_of(batch)
        count += asked
        for name, value in parts.items():
            sums[name] = sums[name] + value if name in sums else value
    own = {name: value.item() for name, value in sums.items()}
    shares = comm.all_gather_object((count, own, time.perf_counter() - start))
    total = sum(count for count, _, _ in shares)
    names = dict.fromkeys(name for _, values, _ in shares for name in values)
    means = {
        name: sum(values.get(name, 0.0) for _, values, _ in shares) / max(1, total)
        for name in names
    }
    return Measured(total, means, total / max(seconds for _, _, seconds in shares))


def validate_objectives(
    sums_of: Callable[[Any], Sums],
    loaders: Mapping[str, Callable[[], Iterable[Any]]],
    comm: Communicator,
) -> dict[str, float]:
    """Validate every loader; log one table.

    Args:
        sums_of: one batch, the model being in evaluation mode.
        loaders: one pass over this rank's share of each loader, by name.
        comm: the ranks.

    Returns:
        Means as ``{loader}/{name}``. Rates (things asked for, in a second) are in the table only:
        metrics are the same in every repetition of a run.
    """
    results = {name: measure(sums_of, batches(), comm) for name, batches in loaders.items()}
    LOGGER.info("validation\n%s", format_table(results))
    return {
        f"{loader}/{name}": value
        for loader, result in results.items()
        for name, value in result.means.items()
    }


def format_table(results: Mapping[str, Measured]) -> str:
    """One line per loader, one column per measure."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.means))
    rows = [
        [loader, result.count, *[result.means.get(name) for name in names], result.rate]
        for loader, result in results.items()
    ]
    headers = ["loader", "count", *names, "per second"]
    digits = (None, None, *[".4f"] * len(names), ".0f")
    return tabulate(rows, headers=headers, floatfmt=digits)
