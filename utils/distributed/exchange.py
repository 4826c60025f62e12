"""Whole-module and differentiable exchanges built from a communicator's collectives."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from utils.distributed.communicator import Communicator

BROADCAST_BYTES = 64 * 2**20


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, comm: Communicator) -> Tensor:
        parts = comm.all_gather_parts(tensor)
        ctx.start = sum(len(part) for part in parts[: comm.rank])
        ctx.length = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.narrow(0, ctx.start, ctx.length), None


def gather_with_grad(comm: Communicator, tensor: Tensor) -> Tensor:
    """Concatenate all ranks' tensors along the first dimension, which may differ.

    For a loss that every rank computes alike from the gathered tensor (the ranking losses over all
    ranks' queries and videos). Backward hands each of the R ranks its own slice of the loss's
    gradient: a parameter θ behind the gathered tensors gets ∂L/∂slice_r·∂slice_r/∂θ on rank r, and
    the average over ranks is 1/R of the gradient of one process with the whole batch, as in the
    published training. Parameters between the gathered tensor and the loss would have their full
    gradient; the ranking losses have none there. No communication takes place in backward.
    """
    if comm.size == 1:
        return tensor
    return _Gather.apply(tensor, comm)


def broadcast_parameters(comm: Communicator, module: nn.Module, root: int = 0) -> None:
    """Overwrite the parameters and buffers of all ranks with rank ``root``'s."""
    _broadcast_tensors(comm, [*module.parameters(), *module.buffers()], root)


def broadcast_state(comm: Communicator, state: Any, root: int = 0) -> Any:
    """Return rank ``root``'s state: dictionaries and lists of tensors and other picklable values.

    Tensors lie on the CPU; they travel some megabytes at a time.
    """
    on_root = comm.rank == root
    outline = _map_tensors(lambda tensor: tensor.to("meta"), state) if on_root else None
    outline = comm.broadcast_object(outline, root)
    if not on_root:
        state = _map_tensors(lambda tensor: torch.empty_like(tensor, device="cpu"), outline)
    tensors: list[Tensor] = []
    _map_tensors(tensors.append, state)
    _broadcast_tensors(comm, tensors, root)
    return state


def _map_tensors(make: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return make(value)
    if isinstance(value, dict):
        return {key: _map_tensors(make, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(make, entry) for entry in value)
    return value


@torch.no_grad()
def _broadcast_tensors(comm: Communicator, tensors: list[Tensor], root: int) -> None:
    if comm.size == 1:
        return
    for chunk in _chunks(tensors):
        flat = comm.broadcast_(torch.cat([tensor.reshape(-1) for tensor in chunk]), root)
        for tensor, values in zip(chunk, flat.split([tensor.numel() for tensor in chunk])):
            tensor.copy_(values.view_as(tensor))


def _chunks(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbouring tensors of one dtype and device, some megabytes at a time."""
    for _, group in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        chunk: list[Tensor] = []
        for tensor in group:
            chunk.append(tensor)
            if sum(t.nbytes for t in chunk) >= BROADCAST_BYTES:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
