"""Operations on gradients between backward and the optimizer step."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set all gradients to None: the first backward pass then sets them instead of adding."""
    for parameter in _parameters(optimizer):
        parameter.grad = None


def fill_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set missing gradients of parameters that have moments to zero.

    A parameter that once had a gradient keeps moving by its moments in steps that do not use it, as
    when tasks alternate; one that never had a gradient is left alone.
    """
    for parameter in _parameters(optimizer):
        if parameter.grad is None and optimizer.state.get(parameter):
            parameter.grad = torch.zeros_like(parameter)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm`` (−1: no clipping).

    Returns:
        The norm before clipping, a scalar on the gradients' device (the host does not wait).
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm > 0:
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
    return norm
