"""Weights packed for inference on a CPU, where they do not change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import Intermediate, ResidualNorm, SelfAttention

ROWS = 256  # of a product for which oneDNN chooses the layout of weights; it suits others too


class PackedLinear(nn.Module):
    """A linear layer with weights in the layout that oneDNN's products read.

    For any number of rows, in single precision. A product of few rows (one sentence) takes half the
    time, one of several hundred four fifths: plain products copy weights into such a layout at
    every call.

    Raises:
        AttributeError, RuntimeError: PyTorch lacks the operators, which are private.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def pack_weights(model: nn.Module) -> None:
    """Replace the linear layers of all transformer blocks by packed ones.

    A packed model computes the same up to rounding; it cannot be trained, saved or moved. Layers
    stay plain if they are not on a CPU in single precision, or if this PyTorch has no oneDNN or not
    its private operators.
    """
    if not _can_multiply_packed():
        return
    for module in model.modules():
        if type(module) is SelfAttention and _is_plain(module.query.weight):
            module.packed_qkv = PackedLinear(*module.qkv_weights())
            for name in ("query", "key", "value"):
                module.register_module(name, None)
        elif isinstance(module, Intermediate | ResidualNorm) and _is_plain(module.dense.weight):
            packed = PackedLinear(module.dense.weight, module.dense.bias)
            module.register_module("dense", packed)


def _can_multiply_packed() -> bool:
    """Return whether a packed layer computes what a plain one does."""
    weight, x = torch.arange(6.0, device="cpu").view(3, 2), torch.ones(1, 2, device="cpu")
    try:
        packed = PackedLinear(weight, None)(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(packed, F.linear(x, weight))


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
