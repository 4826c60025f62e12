"""An optimizer's state in a restore point, by parameter name.

With names instead of positions, moments are restored into other groups too, after a change of
``lr_mul`` or weight decay. Hyperparameters are always those of the resumed run's options.
"""

from typing import Any

import torch
from torch import Tensor, nn

from utils.logger import LOGGER


def parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in the order of its state's numbers."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return PyTorch's state with the optimizer's class and parameter names."""
    names = parameter_names(model, optimizer)
    return {**optimizer.state_dict(), "kind": type(optimizer).__name__, "names": names}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]
) -> None:
    """Restore the moments; groups and hyperparameters stay as they are.

    Moments of another class of optimizer (``optim``, ``apex``) are not restored, with a warning.

    Args:
        saved: from :func:`optimizer_state`; or PyTorch's own state dict, as in older restore
            points, if groups are still the same.

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
    moments = {saved_names[number]: state for number, state in saved["state"].items()}
    own["state"] = {number: moments[name] for number, name in enumerate(names) if name in moments}
    _check_shapes(dict(model.named_parameters()), moments)
    # apex counts steps in its groups, all of which have the same count.
    steps = [group["step"] for group in saved["param_groups"] if "step" in group]
    for group in own["param_groups"]:
        group.update({"step": max(steps)} if steps else {})
    optimizer.load_state_dict(own)


def _check_shapes(parameters: dict[str, Tensor], moments: dict[str, dict[str, Any]]) -> None:
    """Check the shapes of moments: PyTorch would fail only at the first step."""
    for name in parameters.keys() & moments.keys():
        for key, value in moments[name].items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            if shape not in ((), tuple(parameters[name].shape)):
                raise ValueError(f"the optimizer's {key} of {name} has the shape {shape}")


def _sizes(state: dict[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _kind(saved: dict[str, Any]) -> str:
    """Return the class of the optimizer, which older restore points show by their moments."""
    if "kind" in saved:
        return saved["kind"]
    moments = next(iter(saved["state"].values()))
    if "exp_inf" in moments:
        return "Adamax"
    if "step" not in moments:
        return "ApexAdamW"
    return "Adam" if isinstance(moments["step"], Tensor) else "AdamW"
