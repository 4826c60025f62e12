"""Validation of any task: mean losses, and several splits at a time."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from utils.distributed import Communicator


@torch.no_grad()
def mean_losses(
    model: nn.Module, batches: Iterable[Any], weights: Mapping[str, float], comm: Communicator
) -> dict[str, float]:
    """Return weighted losses averaged over all ranks' items, as ``loss/name``, and their sum.

    Args:
        model: in evaluation mode its losses are sums or one value per item.
        batches: this rank's share; items are counted by ``ids``.
        weights: factor of every loss.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    items = 0
    for batch in batches:
        items += len(batch.ids)
        for name, loss in model(batch).items():
            sums[name] += loss.float().sum().item()
    shares = comm.all_gather_object((dict(sums), items))
    total = max(1, sum(items for _, items in shares))
    means = {
        name: weights[name] * sum(share.get(name, 0.0) for share, _ in shares) / total
        for name in weights
    }
    means["total"] = sum(means.values())
    return {f"loss/{name}": mean for name, mean in means.items()}


def validate_splits(
    splits: Mapping[str, Callable[[int], Mapping[str, float | str]]], step: int
) -> dict[str, float | str]:
    """Return the metrics of several splits' validation functions, which get the step.

    Metrics of ``val`` keep their names, others are called ``split/name``.
    """
    return {
        name if split == "val" else f"{split}/{name}": value
        for split, validate in splits.items()
        for name, value in validate(step).items()
    }


def split_label(split: str, step: int) -> str:
    """Return the label of a validation's files: ``{step}`` for ``val``, else ``{split}_{step}``."""
    return str(step) if split == "val" else f"{split}_{step}"
