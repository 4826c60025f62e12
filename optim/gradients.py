"""What is done to gradients between backward and the optimizer step."""

from collections.abc import Iterable

import torch
from torch import Tensor


def zero_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set gradients to zero, in place.

    They are not dropped: a parameter that has once had a gradient keeps moving by its moments in
    steps that do not use it, as when tasks alternate. For the same reason a parameter with moments
    but no gradient, as after restoring, gets a zero one; the others stay without.
    """
    gradients = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                gradients.append(parameter.grad)
            elif optimizer.state.get(parameter):
                parameter.grad = torch.zeros_like(parameter)
    if gradients:
        torch._foreach_zero_(gradients)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm`` (−1: no clipping).

    Returns:
        The norm before clipping, a scalar on the gradients' device: the host does not wait for it.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm > 0 and gradients:
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
    return norm
