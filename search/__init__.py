"""Search films for the moments that sentences describe."""

from importlib import import_module
from typing import Any

__all__ = ["Moment", "MomentSearch"]
_HOMES = {"Moment": "search.answers", "MomentSearch": "search.engine"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: PyTorch takes a second, and an index can be read without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
