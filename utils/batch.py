"""Batches as dataclasses of tensors that travel to a device together."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

LARGEST_BY_VALUE = 1 << 20  # bytes of a tensor; index tensors of a batch are smaller


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
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # of its dataclass
        }
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """A copy on ``device``; the host does not wait for it.

        Half precision travels as it is and becomes single precision there.
        """

        def move(tensor: Tensor) -> Tensor:
            moved = to_device(tensor, device)
            return moved.float() if moved.dtype == torch.float16 else moved

        return self.map_tensors(move)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: small tensors by value, large ones in memory that both see.

        PyTorch would open a file and a connection for every one of them.
        """
        return _map(dict(self.__dict__), _by_value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(_map(state, _received, _Sent))

    def pin_memory(self) -> Self:
        """A copy in page-locked memory (``DataLoader(pin_memory=True)`` calls this)."""
        return self.map_tensors(Tensor.pin_memory)

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Tell the allocator that ``stream`` uses these tensors (made on a copy stream)."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.map_tensors(record)


@dataclasses.dataclass
class _Sent:
    """A small tensor on its way."""

    values: np.ndarray


def _by_value(tensor: Tensor) -> Tensor | _Sent:
    small = tensor.device.type == "cpu" and tensor.nbytes <= LARGEST_BY_VALUE
    return _Sent(tensor.numpy()) if small else tensor


def _received(sent: _Sent) -> Tensor:
    return torch.from_numpy(sent.values)


def _map(value: Any, function: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """A copy with ``function`` applied to all of a kind, also inside lists and nested batches."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, TensorBatch):
        return value.map_tensors(function) if kind is Tensor else value
    if isinstance(value, list):
        return [_map(item, function, kind) for item in value]
    if isinstance(value, dict):
        return {key: _map(item, function, kind) for key, item in value.items()}
    return value
