"""torch.distributed: NCCL between GPUs, Gloo between CPUs."""

import gc
import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

# Imported before any process group exists: default arguments of its functions would keep the group
# that exists at import (by torch.optim, at the latest), and its threads, alive.
import torch.distributed.nn
from torch import Tensor

from utils.distributed.communicator import Communicator, ReduceOp


class TorchDistributed(Communicator):
    """The ranks that torchrun (or anything that sets the same environment) has started.

    CPU tensors are exchanged over Gloo also when there are GPUs, so that small exchanges between
    hosts never wait for the device.
    """

    backend = "torch"

    def __init__(self, timeout_seconds: int) -> None:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        super().__init__(rank, size, int(os.environ["LOCAL_RANK"]))
        timeout = timedelta(seconds=timeout_seconds)
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timeout))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
        # A separate connection, as others may wait in the first one.
        self.board = TorchBoard(store.clone())

    def shutdown(self) -> None:
        """Leave the process group.

        Gloo's threads need the interpreter to release tensors: a process in which they outlive it
        is aborted. They end with the group, which objects of its collectives would keep alive.
        """
        super().shutdown()
        if dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()

    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        reduce_op = dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM
        work = dist.all_reduce(tensor, reduce_op, async_op=True)

        def wait() -> None:
            work.wait()
            if op == "mean":  # Gloo has no average
                tensor.div_(self.size)

        return wait

    def _broadcast(self, tensor: Tensor) -> None:
        dist.broadcast(tensor, 0)

    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = flat.numel()
        dist.all_reduce(lengths)
        padded = flat.new_zeros(int(lengths.max()))
        padded[: flat.numel()] = flat
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [part[:length] for part, length in zip(parts, lengths.tolist())]


class TorchBoard:
    """The store of the ranks' rendezvous."""

    def __init__(self, store: dist.Store) -> None:
        self._store = dist.PrefixStore("hero-ranks", store)

    def write(self, rank: int, line: str) -> None:
        """Store a rank's line."""
        self._store.set(str(rank), line)

    def read(self, rank: int) -> str:
        """Read a rank's line."""
        key = str(rank)
        return self._store.get(key).decode() if self._store.check([key]) else ""
