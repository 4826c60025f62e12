"""apex's fused AdamW, brought to the arithmetic of ``optim.adamw.AdamW``.

apex adds its epsilon to the corrected root √(v/c2); giving it eps/√c2 at each step puts epsilon
where the recipes have it. Two differences remain:

- it decays p before the update instead of after it: a difference of lr²·decay·update;
- it counts steps per group, not per parameter: one whose first gradient comes at a later step
  starts with smaller updates. With a single task all used parameters start together.
"""

from typing import Any

import torch

from utils.errors import UserError
from utils.logger import LOGGER
from utils.packages import require_package

EPS = 1e-6


def apex_adamw(groups: list[dict], betas: tuple[float, float]) -> torch.optim.Optimizer | None:
    """apex's ``FusedAdam`` over parameter groups that carry their own ``lr``.

    None, and a warning, where apex is not installed or a parameter is not on a GPU.
    """
    try:
        fused_adam: Any = require_package("apex.optimizers").FusedAdam
    except UserError as error:
        LOGGER.warning("--apex: no fused optimizer, using PyTorch's kernels: %s", error)
        return None
    if not all(parameter.is_cuda for group in groups for parameter in group["params"]):
        LOGGER.warning("--apex: its fused optimizer needs a GPU; using PyTorch's kernels")
        return None

    class ApexAdamW(fused_adam):
        """FusedAdam whose epsilon follows the bias correction."""

        def step(self, *args: Any, **kwargs: Any) -> Any:
            for group in self.param_groups:
                correction = 1 - group["betas"][1] ** (group.get("step", 0) + 1)
                group["eps"] = EPS / correction**0.5
            return super().step(*args, **kwargs)

    # Whether gradients are dropped is the trainer's: see optim.gradients.
    return ApexAdamW(groups, betas=betas, eps=EPS, adam_w_mode=True, set_grad_none=False)
