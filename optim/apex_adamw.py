"""apex's fused AdamW with the arithmetic of ``optim.adamw.AdamW``.

apex adds epsilon to the corrected root √(v/c2); with eps/√c2 at each step the update is that of the
recipes. Two differences remain:

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
    """Return apex's ``FusedAdam`` over parameter groups with their own ``lr``.

    Returns:
        None, with a warning, if apex is not installed or a parameter is not on a GPU.
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

    # The trainer resets gradients: see optim.gradients.
    return ApexAdamW(groups, betas=betas, eps=EPS, adam_w_mode=True, set_grad_none=False)
