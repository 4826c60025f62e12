"""An optimizer's state in a restore point, by parameter name.

Names, not places: other groups, as another ``lr_mul`` or weight decay makes them, then take up the
moments all the same. Hyperparameters are always those of the options that the run goes on with.
"""

from typing import Any

import torch
from torch import Tensor, nn

from utils.logger import LOGGER


def parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's parameters, in the order in which its state numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what :func:`load_optimizer_state` takes up: PyTorch's state, its kind and its
    names."""
    names = parameter_names(model, optimizer)
    return {**optimizer.state_dict(), "kind": type(optimizer).__name__, "names": names}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]
) -> None:
    """Take up the moments, and leave groups and hyperparameters as they are.

    Where another kind of optimizer (``optim``, ``apex``) saved them, moments start again, with a
    warning.

    Args:
        model: whose parameters the optimizer has.
        optimizer: of the options to go on with.
        saved: from :func:`optimizer_state`; PyTorch's own state dict, as older restore points have
            it, is taken where groups are still the same.

    Raises:
        ValueError: there are no moments, or they are of parameters of other shapes.
    """
    if not saved["state"]:
        raise ValueError("its optimizer has no moments")
    own, names = optimizer.state_dict(), parameter_names(model, optimizer)
    saved_names = saved.get("names") or (names if _sizes(saved) == _sizes(own) else None)
    before, now = _kind(saved), type(optimizer).__name__
    if before != now or saved_names is None:
        reason = f"of {before}, this is {now}" if before != now else "of other parameter groups"
        LOGGER.warning("the optimizer's moments start again: the restore point's are %s", reason)
        return
    moments = {saved_names[place]: state for place, state in saved["state"].items()}
    own["state"] = {place: moments[name] for place, name in enumerate(names) if name in moments}
    _check_shapes(dict(model.named_parameters()), moments)
    # apex counts steps in its groups; the groups of a run count alike.
    steps = [group["step"] for group in saved["param_groups"] if "step" in group]
    for group in own["param_groups"]:
        group.update({"step": max(steps)} if steps else {})
    optimizer.load_state_dict(own)


def _check_shapes(parameters: dict[str, Tensor], moments: dict[str, dict[str, Any]]) -> None:
    """PyTorch itself takes moments of any shape, and fails at the first step."""
    for name in parameters.keys() & moments.keys():
        for key, value in moments[name].items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            if shape not in ((), tuple(parameters[name].shape)):
                raise ValueError(f"the optimizer's {key} of {name} has the shape {shape}")


def _sizes(state: dict[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _kind(saved: dict[str, Any]) -> str:
    """Class of the optimizer; older restore points do not name it, but their moments show it."""
    moments: dict[str, Any] = next(iter(saved["state"].values()), {})
    if "kind" in saved:
        return saved["kind"]
    if "exp_inf" in moments:
        return "Adamax"
    if "step" not in moments:
        return "ApexAdamW"
    return "Adam" if isinstance(moments["step"], Tensor) else "AdamW"
