"""Transformer layers made ready for inference on a processor, where weights do not change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.layers import Intermediate, ResidualNorm, SelfAttention

ROWS = 256  # of a product, for which oneDNN chooses how weights lie; the same layouts suit others


class PackedLinear(nn.Module):
    """A linear layer whose weights lie in the order in which oneDNN's products read them.

    It takes any number of rows, in single precision. (A product of few rows, one sentence, costs
    half the time, one of several hundred four fifths: the library that multiplies plain matrices
    copies them into such an order every time.)
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def pack_weights(model: nn.Module) -> None:
    """Pack the linear layers of all transformer blocks; the plain weights are given up.

    Nothing changes where there is no oneDNN, or where the model is not on a processor in single
    precision. A packed model computes what it computed, to rounding; it cannot be trained, saved or
    moved.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in model.modules():
        if type(module) is SelfAttention and _can_pack(module.query.weight):
            module.joint = PackedLinear(*module.joined())
            for name in ("query", "key", "value"):
                module.register_module(name, None)
        elif isinstance(module, Intermediate | ResidualNorm) and _can_pack(module.dense.weight):
            packed = PackedLinear(module.dense.weight, module.dense.bias)
            module.register_module("dense", packed)


def _can_pack(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
