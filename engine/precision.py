"""Number format of a run: fp32, bf16 or fp16 with dynamic loss scaling.

Parameters stay fp32; autocast chooses per operation. Losses, softmax and normalisations that need
fp32 have it (autocast's lists, and ``.float()`` in the models).
"""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from config.groups import PrecisionOptions
from utils.errors import UserError
from utils.logger import LOGGER

Mode = Literal["fp32", "bf16", "fp16"]

FIRST_LOSS_SCALE = 2.0**16
MOST_OVERFLOWS_IN_A_ROW = 30  # from 2^16 down to 2^-14: no scale would help


class Precision:
    """Autocast, loss scaling and the optimizer step of one number format.

    Args:
        mode: number format.
        device: of the run.
    """

    def __init__(self, mode: Mode, device: torch.device) -> None:
        _check_device(mode, device)
        self.mode = mode
        self.device = device
        self.overflows = 0  # in a row
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=FIRST_LOSS_SCALE, enabled=mode == "fp16"
        )

    @classmethod
    def from_options(cls, options: PrecisionOptions, device: torch.device) -> "Precision":
        """From ``bf16`` and ``fp16`` (None: where there is CUDA), which a CPU does without."""
        on_gpu = device.type == "cuda"
        if options.fp16 and not on_gpu:
            LOGGER.warning(
                "fp16 needs a CUDA device: computing in fp32 (--bf16 works on a CPU too)"
            )
        fp16 = on_gpu and (options.fp16 is None or options.fp16)
        return cls("bf16" if options.bf16 else "fp16" if fp16 else "fp32", device)

    def autocast(self) -> AbstractContextManager:
        """Context in which models and losses are computed."""
        dtype = torch.float16 if self.mode == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.mode != "fp32")

    @property
    def loss_scale(self) -> float:
        """Present factor on the loss (1 unless fp16)."""
        return self._scaler.get_scale()

    def backward(self, loss: Tensor) -> None:
        """Backward of the (scaled) loss."""
        self._scaler.scale(loss).backward()

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the loss scale out of the gradients, after they were reduced over ranks."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Step the optimizer; False where gradients overflowed (fp16) and nothing was updated.

        All ranks hold the same reduced gradients, so they skip alike.

        Raises:
            UserError: too many overflows in a row.
        """
        # Asked of the optimizer, not of the scale: reading that would wait for the device.
        taken: list[bool] = []
        hook = optimizer.register_step_post_hook(lambda *_: taken.append(True))
        self._scaler.step(optimizer)
        hook.remove()
        self._scaler.update()
        if taken:
            self.overflows = 0
            return True
        self.overflows += 1
        if self.overflows >= MOST_OVERFLOWS_IN_A_ROW:
            raise UserError(
                f"fp16 gradients overflowed {self.overflows} times in a row; train with --bf16, or "
                "lower learning_rate"
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """Loss scale and overflow count."""
        return {"scaler": self._scaler.state_dict(), "overflows": self.overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved loss scale."""
        if self._scaler.is_enabled() and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.overflows = state["overflows"]


def _check_device(mode: Mode, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    if mode == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        LOGGER.warning("this GPU computes bf16 without its tensor cores; --fp16 is faster")
