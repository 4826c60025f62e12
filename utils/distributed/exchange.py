"""Whole-module and differentiable exchanges built from a communicator's collectives."""

from collections.abc import Iterator
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


@torch.no_grad()
def broadcast_parameters(comm: Communicator, module: nn.Module, root: int = 0) -> None:
    """Overwrite the parameters and buffers of all ranks with rank ``root``'s."""
    if comm.size == 1:
        return
    tensors = [*module.parameters(), *module.buffers()]
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
