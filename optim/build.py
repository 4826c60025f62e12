"""The optimizer of a run, from the model and its options."""

from typing import Any

import torch
from torch import nn

from config.groups import TrainingOptions
from optim.adamw import AdamW
from optim.apex_adamw import apex_adamw

ENCODER_PREFIX = "v_encoder."
NO_DECAY = ("bias", "LayerNorm.weight")


def parameter_groups(model: nn.Module, lr_mul: float, weight_decay: float) -> list[dict]:
    """Split the trainable parameters into {encoder, heads} × {decay, no decay}; no group is empty.

    Heads are the parameters outside ``v_encoder``; their learning rate is ``lr_mul`` times the
    encoder's. Parameters whose name contains ``bias`` or ``LayerNorm.weight`` do not decay. A
    tied weight appears once, under its first name.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {
        (mul, decay): {"params": [], "lr_mul": mul, "weight_decay": decay}
        for mul in (lr_mul, 1.0)
        for decay in (weight_decay, 0.0)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            mul = 1.0 if name.startswith(ENCODER_PREFIX) else lr_mul
            decay = 0.0 if any(part in name for part in NO_DECAY) else weight_decay
            groups[mul, decay]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def build_optimizer(model: nn.Module, opts: TrainingOptions) -> torch.optim.Optimizer:
    """Build the optimizer that ``opts.optim`` names, over :func:`parameter_groups`.

    ``adamw`` is :class:`optim.adamw.AdamW`, or with ``opts.apex``, where apex is installed and the
    model is on a GPU, apex's fused one (:mod:`optim.apex_adamw` lists the differences). ``adam``
    and ``adamax`` are PyTorch's, with weight decay as L2 regularisation.
    """
    groups = parameter_groups(model, opts.lr_mul, opts.weight_decay)
    for group in groups:
        group["lr"] = opts.learning_rate * group["lr_mul"]
    beta1, beta2 = opts.betas
    betas = beta1, beta2
    if opts.optim == "adamw":
        fused = apex_adamw(groups, betas) if opts.apex else None
        return fused or AdamW(groups, betas=betas)
    if opts.optim == "adam":
        return torch.optim.Adam(groups, betas=betas, foreach=True)
    return torch.optim.Adamax(groups, betas=betas, foreach=True)
