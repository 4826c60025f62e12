"""Batches as dataclasses of tensors that travel to a device together."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor


class TensorBatch:
    """Mixin for dataclasses: moves every tensor in them, also inside lists and nested batches."""

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A copy with ``function`` applied to every tensor."""
        changed = {
            field.name: _map(getattr(self, field.name), function)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # of its dataclass
        }
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """A copy on ``device``; from pinned memory the copies do not block the host."""
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

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
