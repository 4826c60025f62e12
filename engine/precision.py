"""Number format of a run: fp32, bf16 or fp16 with dynamic loss scaling.

Parameters stay fp32; autocast chooses the format per operation. Losses, softmax and normalisations
that need fp32 have it (autocast's lists, and ``.float()`` in the models).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from config.groups import PrecisionOptions
from utils.errors import UserError
from utils.logger import LOGGER

Mode = Literal["fp32", "bf16", "fp16"]

FIRST_LOSS_SCALE = 2.0**16
MOST_OVERFLOWS_IN_A_ROW = 30  # from 2^16 down to 2^-14: no scale would help


@dataclass
class LossScale:
    """A dynamic factor on losses, and how often in a row their gradients overflowed."""

    scaler: torch.amp.GradScaler
    overflows: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`."""
        return {"scaler": self.scaler.state_dict(), "overflows": self.overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved scale."""
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.overflows = state["overflows"]


class Precision:
    """Autocast, loss scaling and the optimizer step of one number format.

    Tasks that are trained in turn may have a loss scale each (:meth:`choose_scale`); ``scale`` is
    the current one.
    """

    def __init__(self, mode: Mode, device: torch.device) -> None:
        _check_device(mode, device)
        self.mode = mode
        self.device = device
        self._scales: dict[str, LossScale] = {}
        self.choose_scale("")

    @classmethod
    def from_options(cls, options: PrecisionOptions, device: torch.device) -> "Precision":
        """Choose the format by ``bf16`` and ``fp16`` (None: on CUDA); fp16 needs CUDA."""
        on_gpu = device.type == "cuda"
        if options.fp16 and not on_gpu:
            LOGGER.warning(
                "fp16 needs a CUDA device: computing in fp32 (--bf16 works on a CPU too)"
            )
        fp16 = on_gpu and (options.fp16 is None or options.fp16)
        return cls("bf16" if options.bf16 else "fp16" if fp16 else "fp32", device)

    def autocast(self) -> AbstractContextManager:
        """Return the context for models and losses."""
        dtype = torch.float16 if self.mode == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.mode != "fp32")

    def choose_scale(self, name: str) -> None:
        """Use the loss scale ``name`` from now on; a new one starts at FIRST_LOSS_SCALE."""
        if name not in self._scales:
            fp16 = self.mode == "fp16"
            scaler = torch.amp.GradScaler(self.device.type, FIRST_LOSS_SCALE, enabled=fp16)
            self._scales[name] = LossScale(scaler)
        self.scale = self._scales[name]

    @property
    def loss_scales(self) -> dict[str, float]:
        """All factors by name; "" where there is only one."""
        named = {name: scale for name, scale in self._scales.items() if name} or self._scales
        return {name: scale.scaler.get_scale() for name, scale in named.items()}

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the (scaled) loss."""
        self.scale.scaler.scale(loss).backward()

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide gradients by the loss scale, after they were reduced over ranks."""
        self.scale.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Step the optimizer; False if gradients overflowed (fp16) and nothing was updated.

        All ranks have the same reduced gradients, so all of them skip or none.

        Raises:
            UserError: too many overflows in a row.
        """
        # A hook of the optimizer tells, as reading the scale would wait for the device.
        taken: list[bool] = []
        hook = optimizer.register_step_post_hook(lambda *_: taken.append(True))
        scale = self.scale
        scale.scaler.step(optimizer)
        hook.remove()
        scale.scaler.update()
        if taken:
            scale.overflows = 0
            return True
        scale.overflows += 1
        if scale.overflows >= MOST_OVERFLOWS_IN_A_ROW:
            raise UserError(
                f"fp16 gradients overflowed {scale.overflows} times in a row; train with --bf16, "
                "or lower learning_rate"
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return loss scales and overflow counts."""
        first, *others = self._scales.items()
        return first[1].state_dict() | {"scales": {n: each.state_dict() for n, each in others}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore saved loss scales; earlier restore points have only one."""
        for name, saved in {"": state, **state.get("scales", {})}.items():
            self.choose_scale(name)
            self.scale.load_state_dict(saved)
        self.choose_scale("")


def _check_device(mode: Mode, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    if mode == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        LOGGER.warning("this GPU computes bf16 without its tensor cores; --fp16 is faster")
