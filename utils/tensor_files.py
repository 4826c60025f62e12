"""Files of tensors: read to the CPU without executing anything, or found damaged."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Where training code keeps the weights beside its own state.
WRAPPERS = ("model_state_dict", "model_state", "state_dict", "model")


class UnreadableFileError(ValueError):
    """Why a file cannot be read: a few words on one line."""


def load_tensors(path: str | Path, mapped: bool = False) -> Any:
    """What ``torch.save`` or safetensors wrote (by the ending ``.safetensors``).

    Args:
        path: a file.
        mapped: read a tensor's values only when they are used: for a look at the names.

    Raises:
        UnreadableFileError: it is damaged, cut short, or holds more than tensors and plain
            containers.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # Of a damaged pickle; the error that follows says enough.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            mapped = mapped and not is_unzipped(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file makes the unpickler raise all sorts
        raise UnreadableFileError(_reason(error)) from error


def _reason(error: Exception) -> str:
    message = str(error)
    if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it holds a {foreign[1]}, not only tensors and plain values"
    return message.splitlines()[0] if message else type(error).__name__


def is_unzipped(path: str | Path) -> bool:
    """Whether ``torch.save`` wrote the file in its old format, which has no checksums."""
    return Path(path).suffix != ".safetensors" and not zipfile.is_zipfile(path)


def holds_tensors(content: Any) -> bool:
    """Whether it is a dictionary with a tensor among its values."""
    return isinstance(content, Mapping) and any(isinstance(v, Tensor) for v in content.values())


def unwrap(content: Any) -> tuple[Any, list[str]]:
    """The weights out of what training code saved with its own state, and the keys that led there.

    Returns:
        The dictionary of tensors below :data:`WRAPPERS`; ``content`` itself where there is none.
    """
    for key in WRAPPERS if isinstance(content, Mapping) else ():
        inner, keys = unwrap(content.get(key))
        if holds_tensors(inner):
            return inner, [key, *keys]
    return content, []
