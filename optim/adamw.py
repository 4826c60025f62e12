"""AdamW in the form of early BERT code, updating all parameters of a group in a few kernels."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay; epsilon stands outside the bias-corrected root.

    For a parameter p at its own step t, with gradient g, c1 = 1 − β1^t and c2 = 1 − β2^t::

        m ← β1·m + (1 − β1)·g        v ← β2·v + (1 − β2)·g²
        p ← p − lr·(√c2/c1)·m/(√v + eps)
        p ← p − lr·weight_decay·p

    ``torch.optim.AdamW`` adds eps to √(v/c2) instead and decays before the update, which is not
    the same in the first steps. The published recipes were trained with the form above
    (Kingma & Ba 2015, end of section 2; Loshchilov & Hutter 2019 for the decay).

    A parameter without a gradient (``grad is None``) is left alone and its t does not count.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"negative lr {lr}, eps {eps} or weight_decay {weight_decay}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), not {betas}")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict) -> None:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in parameters]
        states = [self._advance(p) for p in parameters]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]

        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)

        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        # Parameters may have joined at different steps, so each has its own factor.
        factors = [
            -group["lr"] * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
            for state in states
        ]
        torch._foreach_addcdiv_(parameters, means, denominators, factors)
        if group["weight_decay"] > 0:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])

    def _advance(self, parameter: Tensor) -> dict:
        """Raise the step count of the parameter's state, created at its first gradient."""
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state
