"""Average gradients over ranks while backward is still computing the rest of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from utils.distributed.communicator import Communicator, Pending


class _Bucket:
    """Parameters whose gradients are views of one flat tensor, reduced together."""

    def __init__(self, indices: list[int], parameters: list[Tensor]) -> None:
        self.indices = indices
        first = parameters[indices[0]]
        sizes = [parameters[index].numel() for index in indices]
        self.flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        self.views = {
            index: part.view_as(parameters[index])
            for index, part in zip(indices, self.flat.split(sizes))
        }
        self.arrived: set[int] = set()
        self.pending: Pending | None = None

    def adopt(self, index: int, parameter: Tensor) -> None:
        """Make the parameter's gradient a view of the flat tensor, keeping its values."""
        view = self.views[index]
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)
        parameter.grad = view


class GradientReducer:
    """Averages the gradients of ``parameters`` over the ranks of ``comm``.

    Use, on every rank alike::

        with reducer.accumulate():      # all accumulation steps but the last
            loss.backward()
        loss.backward()                 # the last: reduction starts as gradients appear
        reducer.finish()                # gradients are averages now

    Parameters that have had a gradient on every rank in every step so far are reduced in flat
    buckets, in the order in which rank 0 got the gradients of the first step, each bucket as soon
    as it is complete. The others (one task's head among several tasks, a loss that a rank may skip,
    everything in the first step) are reduced in ``finish``.

    A gradient becomes the average over all ranks, ranks without one counting as zero. A parameter
    that no rank used keeps its ``grad``: ``None`` before its first, so that the optimizer leaves it
    alone on all ranks alike.

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
        self._touched: dict[int, None] = {}  # in this step, in order
        self._steady: list[int] | None = None  # None: no step has been seen yet
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[int, _Bucket] = {}
        self._launched = 0
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
    def finish(self) -> None:
        """Wait until every gradient is the average over ranks."""
        if self._comm.size == 1:
            return
        for bucket in self._buckets:
            for index in bucket.indices:
                if index not in bucket.arrived:
                    bucket.adopt(index, self._parameters[index])
        self._launch(self._buckets[self._launched :])
        counts = self._count_ranks()
        self._reduce_loose([i for i, count in enumerate(counts) if count])
        for bucket in self._buckets:
            bucket.pending.wait()
            bucket.pending = None
            bucket.arrived.clear()
        self._launched = 0
        self._keep_steady({i for i, count in enumerate(counts) if count == self._comm.size})
        self._touched.clear()

    def _count_ranks(self) -> list[int]:
        """How many ranks have a gradient of each parameter in this step."""
        # On the CPU, so that no device is waited for.
        mine = [int(index in self._touched) for index in range(len(self._parameters))]
        return self._comm.all_reduce_(torch.tensor(mine, dtype=torch.int32)).tolist()

    def _on_gradient(self, index: int) -> None:
        self._touched[index] = None
        bucket = self._bucket_of.get(index)
        if self._accumulating or bucket is None:
            return
        if index in bucket.arrived:
            raise RuntimeError(
                "two backward passes between reductions: run all but the last inside accumulate()"
            )
        bucket.adopt(index, self._parameters[index])
        bucket.arrived.add(index)
        if not self._overlap:
            return
        # In order, so that all ranks start the same reductions one after the other.
        for ready in self._buckets[self._launched :]:
            if len(ready.arrived) < len(ready.indices):
                break
            self._launch([ready])

    def _launch(self, buckets: list[_Bucket]) -> None:
        for bucket in buckets:
            name = f"gradients.{self._launched}"
            bucket.pending = self._comm.all_reduce_async(bucket.flat, "mean", name)
            self._launched += 1

    def _reduce_loose(self, used: list[int]) -> None:
        """Reduce what some rank used and no bucket holds."""
        loose = [index for index in used if index not in self._bucket_of]
        started = []
        for number, indices in enumerate(self._split(loose)):
            parameters = [self._parameters[index] for index in indices]
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in parameters]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            pending = self._comm.all_reduce_async(flat, "mean", f"loose_gradients.{number}")
            started.append((gradients, flat, pending))
        for gradients, flat, pending in started:
            pending.wait()
            parts = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients)])

    def _keep_steady(self, used_by_all: set[int]) -> None:
        """Drop from the buckets what some rank did not use in this step."""
        before = self._steady
        if before is None:
            before = self._comm.broadcast_object(list(self._touched))
        steady = [index for index in before if index in used_by_all]
        if steady == self._steady:
            return
        self._steady = steady
        self._buckets = [_Bucket(indices, self._parameters) for indices in self._split(steady)]
        self._bucket_of = {index: bucket for bucket in self._buckets for index in bucket.indices}
        for index, bucket in self._bucket_of.items():
            bucket.adopt(index, self._parameters[index])
        # What left the buckets must not keep the old flat tensors alive.
        for index, parameter in enumerate(self._parameters):
            if index not in self._bucket_of and parameter.grad is not None:
                parameter.grad = parameter.grad.clone()

    def _split(self, indices: list[int]) -> list[list[int]]:
        """Cut into runs of one dtype and device, of about the bucket size."""
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
        return runs
