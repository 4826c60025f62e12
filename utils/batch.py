"""Batches: dataclasses of tensors that are moved to a device together."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

LARGEST_BY_VALUE = 1 << 20  # bytes of a tensor; index tensors of a batch are smaller


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return the tensor on ``device``, without waiting for the copy.

    For a GPU it is copied to page-locked memory first: a copy from other memory would wait for all
    work that is queued on the device.
    """
    if torch.device(device).type == "cuda" and tensor.is_cpu and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class TensorBatch:
    """A mixin for dataclasses that moves all their tensors, also in lists and nested batches."""

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with ``function`` applied to every tensor."""
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        changed = {name: map_values(getattr(self, name), function) for name in names}
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on ``device``, without waiting; half precision becomes single there."""

        def move(tensor: Tensor) -> Tensor:
            moved = to_device(tensor, device)
            return moved.float() if moved.dtype == torch.float16 else moved

        return self.map_tensors(move)

    def __getstate__(self) -> dict[str, Any]:
        """Send small tensors to another process by value, large ones in shared memory.

        PyTorch would open a file and a connection for every one of them.
        """
        return map_values(dict(self.__dict__), _by_value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(map_values(state, lambda sent: torch.from_numpy(sent.values), _Sent))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory (``DataLoader(pin_memory=True)`` calls this)."""
        return self.map_tensors(Tensor.pin_memory)

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Tell the allocator that ``stream`` uses these tensors, made on a copy stream."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.map_tensors(record)


@dataclasses.dataclass
class _Sent:
    """A small tensor as it is sent to another process."""

    values: np.ndarray


def _by_value(tensor: Tensor) -> Tensor | _Sent:
    small = tensor.device.type == "cpu" and tensor.nbytes <= LARGEST_BY_VALUE
    return _Sent(tensor.numpy()) if small else tensor


def map_values(value: Any, function: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """Return a copy with ``function`` applied to all values of a class in lists, dictionaries and
    batches."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, TensorBatch):
        return value.map_tensors(function) if kind is Tensor else value
    if isinstance(value, list):
        return [map_values(item, function, kind) for item in value]
    if isinstance(value, dict):
        return {key: map_values(item, function, kind) for key, item in value.items()}
    return value
