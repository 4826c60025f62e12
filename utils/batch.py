"""Batches as dataclasses of tensors that travel to a device together."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return the tensor on ``device``; the host does not wait until it is there.

    On a GPU it goes by way of page-locked memory: from any other a copy waits for all that the
    device has to do before.
    """
    if torch.device(device).type == "cuda" and tensor.is_cpu and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class TensorBatch:
    """Mixin for dataclasses: moves every tensor in them, also inside lists and nested batches."""

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A copy with ``function`` applied to every tensor."""
        changed = {
            field.name: _map(getattr(self, field.name), function)
            for field in dataclasses.fields(self)
        }
        return dataclasses.replace(self, **changed)

    def to(self, device: torch.device | str) -> Self:
        """A copy on ``device``; the host does not wait for it."""
        return self.map_tensors(lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (``DataLoader(pin_memory=True)`` calls this)."""
        return self.map_tensors(Tensor.pin_memory)

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Tell the allocator that ``stream`` uses these tensors (made on a copy stream)."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.map_tensors(record)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, TensorBatch):
        return value.map_tensors(function)
    if isinstance(value, list):
        return [_map(item, function) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    return value
