"""Files of tensors: read to the CPU without executing anything, or found damaged."""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


class UnreadableFileError(ValueError):
    """Why a file cannot be read: a few words on one line."""


def load_tensors(path: str | Path) -> Any:
    """What ``torch.save`` or safetensors wrote (by the ending ``.safetensors``).

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
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise all sorts
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableFileError(reason) from error
