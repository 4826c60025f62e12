"""What is done to gradients between backward and the optimizer step."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Forget all gradients: the first backward pass then sets them, and need not add to zeros."""
    for parameter in _parameters(optimizer):
        parameter.grad = None


def fill_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Give a zero gradient to what has moments, and got none in this step.

    A parameter that has once had a gradient keeps moving by its moments in steps that do not use
    it, as when tasks alternate. The others stay without.
    """
    for parameter in _parameters(optimizer):
        if parameter.grad is None and optimizer.state.get(parameter):
            parameter.grad = torch.zeros_like(parameter)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm`` (−1: no clipping).

    Returns:
        The norm before clipping, a scalar on the gradients' device: the host does not wait for it.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm > 0:
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
    return norm
