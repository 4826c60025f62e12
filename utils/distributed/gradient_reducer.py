"""Average gradients over ranks while backward computes the others."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from utils.distributed.communicator import Communicator, Pending


class _Bucket(NamedTuple):
    """Parameters whose gradients are reduced together."""

    indices: list[int]
    parameters: list[Tensor]
    flat: Tensor

    def gradients(self) -> list[Tensor]:
        """Return the gradient of every parameter, set to zeros where it is None."""
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

    Gradients are copied into flat buckets, in the order in which rank 0 got them in the first step;
    a bucket starts as soon as it is complete and the previous ones have started. Buckets hold the
    parameters that every rank has used in every step so far. The others (one objective's head among
    several, a loss that a rank may skip, all in the first step) are reduced in ``finish``, as a
    missing gradient would delay the following buckets.

    The average is over all ranks; a rank without a gradient counts as zero. A parameter that no
    rank used keeps its ``grad``, which is None before its first gradient, so that the optimizer
    does not change it. With zeros, as from Horovod's own optimizer, weight decay would change it;
    ``DistributedDataParallel`` would search the graph of every step for it, and the two launchers
    would train differently.

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
        self._steady: list[int] | None = None  # None before the first step
        self._buckets: list[_Bucket] = []
        self._started: list[tuple[_Bucket, Pending]] = []
        if comm.size > 1:
            for index, parameter in enumerate(self._parameters):
                parameter.register_post_accumulate_grad_hook(
                    lambda _, index=index: self._on_gradient(index)
                )

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Only add to the gradients in backward passes of this context."""
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
        # How many ranks have a gradient of each parameter; on the CPU, not to wait for a device.
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
        # In order, so that all ranks start the same reductions in turn.
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
        """Remove from the buckets the parameters that a rank did not use in this step."""
        order = self._steady
        if order is None:
            order = self._comm.broadcast_object(list(self._used))
        steady = [index for index in order if counts[index] == self._comm.size]
        if steady != self._steady:
            self._steady, self._buckets = steady, self._split(steady)

    def _split(self, indices: list[int]) -> list[_Bucket]:
        """Return buckets of one dtype and device each, of about the bucket size."""
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
        buckets = []
        for run in runs:
            parameters = [self._parameters[index] for index in run]
            flat = parameters[0].new_empty(sum(parameter.numel() for parameter in parameters))
            buckets.append(_Bucket(run, parameters, flat))
        return buckets
