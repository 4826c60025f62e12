"""Validation of several objectives: losses, metrics and throughput."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from utils.distributed import Communicator
from utils.logger import LOGGER

Sums = tuple[int, dict[str, Tensor]]  # a count, and fp64 scalars on the device


@dataclass
class Measured:
    """One loader's result over all ranks."""

    count: int
    means: dict[str, float]
    rate: float  # counted things per second


@torch.no_grad()
def measure(sums_of: Callable[[Any], Sums], batches: Iterable[Any], comm: Communicator) -> Measured:
    """Return the means over all ranks' batches, given this rank's share."""
    start = time.perf_counter()
    count = 0
    sums: dict[str, Tensor] = {}
    for batch in batches:
        number, parts = sums_of(batch)
        count += number
        sums |= {name: sums.get(name, 0) + value for name, value in parts.items()}
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
        sums_of: gives the sums of a batch, the model being in evaluation mode.
        loaders: each starts one pass over this rank's share, by name.

    Returns:
        Means as ``{loader}/{name}``. Rates are in the table only: metrics are reproducible.
    """
    results = {name: measure(sums_of, batches(), comm) for name, batches in loaders.items()}
    LOGGER.info("validation\n%s", format_table(results))
    return {
        f"{loader}/{name}": value
        for loader, result in results.items()
        for name, value in result.means.items()
    }


def format_table(results: Mapping[str, Measured]) -> str:
    """Return a table with one line per loader and one column per measure."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.means))
    rows = [
        [loader, result.count, *[result.means.get(name) for name in names], result.rate]
        for loader, result in results.items()
    ]
    headers = ["loader", "count", *names, "per second"]
    digits = (None, None, *[".4f"] * len(names), ".0f")
    return tabulate(rows, headers=headers, floatfmt=digits)
