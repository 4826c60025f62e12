"""Average gradients over ranks while backward is still computing the rest of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from utils.distributed.communicator import Communicator, Pending


class _Bucket(NamedTuple):
    """Parameters whose gradients travel together."""

    indices: list[int]
    parameters: list[Tensor]
    flat: Tensor

    def gradients(self) -> list[Tensor]:
        """Of every parameter; zeros where it has none yet."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


class GradientReducer:
    """Averages the gradients of ``parameters`` over the ranks of ``comm``.

    Use, on every rank alike::

        with reducer.accumulate():      # all accumulation steps but the last
            loss.backward()
        loss.backward()                 # the last: reduction starts as gradients appear
        reducer.finish()                # gradients are averages now

    Gradients travel in buckets, copied into one flat tensor each, in the order in which rank 0 got
    them in the first step; a bucket starts as soon as it is complete and those before it have
    started. Buckets hold what every rank has used in every step so far. The rest (one objective's
    head among several, a loss that a rank may skip, everything in the first step) is reduced in
    ``finish``: a missing gradient would hold up all that comes after it.

    A gradient becomes the average over all ranks, ranks without one counting as zero. A parameter
    that no rank used keeps its ``grad``: ``None`` before its first, so that the optimizer leaves it
    alone on all ranks alike. Horovod's own optimizer gives it zeros, and weight decay would move
    it; ``DistributedDataParallel`` walks the graph of every step to find it, and the two launchers
    would train in different ways.

    With one process there are no hooks and no copies.

    Args:
        bucket_mb: size of a bucket in MiB.
        overlap: False reduces everything in ``finish``, for comparison.
    """

    def __init__(
        self,
        comm: Communicator,
        parameters: Iterable[Tensor],
        bucket_mb: float = 25.0,
        overlap: bool = True,
    ) -> None:
        self._comm = comm
        self._bucket_bytes = bucket_mb * 2**20
        self._overlap = overlap
        self._accumulating = False
        self._parameters = [p for p in parameters if p.requires_grad]
        self._used: dict[int, None] = {}  # in this step, in order
        self._arrived: set[int] = set()  # in its last backward pass
        self._steady: list[int] | None = None  # None: no step has been seen yet
        self._buckets: list[_Bucket] = []
        self._started: list[tuple[_Bucket, Pending]] = []
        if comm.size > 1:
            for index, parameter in enumerate(self._parameters):
                parameter.register_post_accumulate_grad_hook(
                    lambda _, index=index: self._on_gradient(index)
                )

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Backward passes in here only add to the gradients."""
        self._accumulating = True
        try:
            yield
        finally:
            self._accumulating = False

    @torch.no_grad()
    def finish(self, stop: bool = False) -> bool:
        """Wait until every gradient is the average over ranks.

        Returns:
            Whether any rank said ``stop``.
        """
        if self._comm.size == 1:
            return stop
        self._start(self._buckets[len(self._started) :])
        # How many ranks have a gradient of each parameter; on the CPU: no device is waited for.
        mine = [int(index in self._used) for index in range(len(self._parameters))]
        exchanged = torch.tensor([*mine, int(stop)], dtype=torch.int32)
        *counts, stops = self._comm.all_reduce_(exchanged).tolist()
        steady = set(self._steady or ())
        self._start(self._split([i for i, n in enumerate(counts) if n and i not in steady]))
        for bucket, pending in self._started:
            pending.wait()
            gradients = bucket.gradients()
            parts = bucket.flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients)])
        self._keep_steady(counts)
        for of_step in (self._started, self._used, self._arrived):
            of_step.clear()
        return stops > 0

    def _on_gradient(self, index: int) -> None:
        self._used[index] = None
        if self._accumulating:
            return
        if index in self._arrived:
            raise RuntimeError(
                "two backward passes between reductions: run all but the last inside accumulate()"
            )
        self._arrived.add(index)
        # In order, so that all ranks start the same reductions one after the other.
        while self._overlap and len(self._started) < len(self._buckets):
            following = self._buckets[len(self._started)]
            if not self._arrived.issuperset(following.indices):
                return
            self._start([following])

    def _start(self, buckets: list[_Bucket]) -> None:
        for bucket in buckets:
            torch.cat([grad.reshape(-1) for grad in bucket.gradients()], out=bucket.flat)
            name = f"gradients.{len(self._started)}"
            pending = self._comm.all_reduce_async(bucket.flat, "mean", name)
            self._started.append((bucket, pending))

    def _keep_steady(self, counts: list[int]) -> None:
        """Leave out of the buckets what some rank did not use in this step."""
        order = self._steady
        if order is None:
            order = self._comm.broadcast_object(list(self._used))
        steady = [index for index in order if counts[index] == self._comm.size]
        if steady != self._steady:
            self._steady, self._buckets = steady, self._split(steady)

    def _split(self, indices: list[int]) -> list[_Bucket]:
        """Cut into buckets of one dtype and device, of about the bucket size."""
        runs: list[list[int]] = []
        filled, kind = 0, None
        for index in indices:
            parameter = self._parameters[index]
            its_kind = (parameter.dtype, parameter.device)
            if not runs or its_kind != kind or filled >= self._bucket_bytes:
                runs.append([])
                filled, kind = 0, its_kind
            runs[-1].append(index)
            filled += parameter.nbytes
        return [self._bucket(run) for run in runs]

    def _bucket(self, indices: list[int]) -> _Bucket:
        parameters = [self._parameters[index] for index in indices]
        flat = parameters[0].new_empty(sum(parameter.numel() for parameter in parameters))
        return _Bucket(indices, parameters, flat)
