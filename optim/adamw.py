"""AdamW in the form of early BERT code, with one kernel for all parameters of a group."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay; epsilon is added outside the bias-corrected root.

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
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; return the loss of ``closure``, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: Sequence[tuple[Tensor, Tensor]], group: dict) -> None:
        """Update parameters of equal step count, which mostly are all, in one fused kernel."""
        together = defaultdict(list)
        for parameter, gradient in parameters:
            state = self._advance(parameter)
            if gradient.stride() != parameter.stride():  # the kernel goes by memory order
                gradient = torch.empty_like(parameter).copy_(gradient)
            kind = (state["step"], parameter.device, parameter.dtype)
            together[kind].append((parameter, gradient, state))
        for (step, device, _), members in together.items():
            values, gradients, states = zip(*members, strict=True)
            torch._fused_adamw_(
                values,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [torch.full((), step, dtype=torch.float32, device=device)] * len(members),
                **_fused_settings(group, step),
            )

    def _advance(self, parameter: Tensor) -> dict:
        """Return the parameter's state, created at its first gradient, with its step counted."""
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        return state


def _fused_settings(group: dict, step: int) -> dict[str, Any]:
    """Return the settings with which PyTorch's fused AdamW computes :class:`AdamW`'s update.

    It adds eps to √(v/c2), and decays before the update: p·(1 − lr·decay) − update. Ours is
    (p − update)·(1 − lr·decay), hence the smaller rate, and the larger decay to compensate.
    """
    beta1, beta2 = group["betas"]
    kept = 1 - group["lr"] * group["weight_decay"]
    return {
        "lr": group["lr"] * kept,
        "beta1": beta1,
        "beta2": beta2,
        "weight_decay": group["weight_decay"] / kept,
        "eps": group["eps"] / math.sqrt(1 - beta2**step),
        "amsgrad": False,
        "maximize": False,
    }
