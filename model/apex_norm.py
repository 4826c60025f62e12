"""apex's fused layer norm instead of PyTorch's."""

from torch import nn

from utils.errors import UserError
from utils.logger import LOGGER
from utils.packages import require_package


def use_fused_layer_norm(model: nn.Module) -> int:
    """Replace every layer norm by apex's ``FusedLayerNorm``; weights keep their names.

    Returns:
        How many were replaced: 0, with a warning, if apex is not installed or the model is not on
        a GPU.
    """
    try:
        norm_class = require_package("apex.normalization").FusedLayerNorm
    except UserError as error:
        LOGGER.warning("--apex: no fused layer norm, using PyTorch's: %s", error)
        return 0
    if not next(model.parameters()).is_cuda:
        LOGGER.warning("--apex: its fused layer norm needs a GPU; using PyTorch's")
        return 0
    return replace_layer_norms(model, norm_class)


def replace_layer_norms(model: nn.Module, norm_class: type[nn.Module]) -> int:
    """Replace every LayerNorm by ``norm_class(shape, eps=…)`` with the same weights; return how
    many there were."""
    count = 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.LayerNorm:
                fused = norm_class(child.normalized_shape, eps=child.eps)
                fused.weight, fused.bias = child.weight, child.bias
                setattr(parent, name, fused)
                count += 1
    return count
