"""Exchanges of modules, states and differentiable tensors between ranks."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from utils.batch import map_values
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

    For a loss that all ranks compute from the same gathered tensor (the ranking losses over all
    ranks' queries and videos). Backward gives each of the R ranks its own slice of the loss's
    gradient, without communication: a parameter θ before the gathering gets ∂L/∂slice_r·∂slice_r/∂θ
    on rank r, and the average over ranks is 1/R of the gradient of one process with the whole
    batch, as in the published training. The ranking losses have no parameters after the gathering.
    """
    return tensor if comm.size == 1 else _Gather.apply(tensor, comm)


def broadcast_parameters(comm: Communicator, module: nn.Module) -> None:
    """Overwrite the parameters and buffers of all ranks with rank 0's."""
    _broadcast_tensors(comm, [*module.parameters(), *module.buffers()])


def broadcast_state(comm: Communicator, state: Any) -> Any:
    """Return rank 0's state: dictionaries and lists of CPU tensors and other picklable values.

    Tensors are sent some megabytes at a time.
    """
    outline = map_values(state, lambda tensor: tensor.to("meta")) if comm.is_main else None
    outline = comm.broadcast_object(outline)
    if not comm.is_main:
        state = map_values(outline, lambda tensor: torch.empty_like(tensor, device="cpu"))
    tensors: list[Tensor] = []
    map_values(state, tensors.append)
    _broadcast_tensors(comm, tensors)
    return state


@torch.no_grad()
def _broadcast_tensors(comm: Communicator, tensors: list[Tensor]) -> None:
    if comm.size == 1:
        return
    for chunk in _chunks(tensors):
        flat = comm.broadcast_(torch.cat([tensor.reshape(-1) for tensor in chunk]))
        for tensor, values in zip(chunk, flat.split([tensor.numel() for tensor in chunk])):
            tensor.copy_(values.view_as(tensor))


def _chunks(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield consecutive tensors of one dtype and device, some megabytes at a time."""
    for _, group in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        chunk: list[Tensor] = []
        for tensor in group:
            chunk.append(tensor)
            if sum(t.nbytes for t in chunk) >= BROADCAST_BYTES:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
