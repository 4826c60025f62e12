"""Learning rate: linear warm-up, then linear decay to zero."""

import torch

LOWEST_LEARNING_RATE = 1e-8


def learning_rate_at(step: int, base: float, warmup: int, total: int) -> float:
    """Return the learning rate of optimizer step ``step`` (counted from 1) of ``total``.

    It rises as base·step/warmup while step < warmup, then falls as
    base·(total − step)/(total − warmup), and is never below 1e-8.
    """
    if step < warmup:
        rate = base * step / warmup
    else:
        rate = base * (total - step) / max(total - warmup, 1)
    return max(rate, LOWEST_LEARNING_RATE)


def set_learning_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group to ``rate`` times its ``lr_mul``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_mul"]
