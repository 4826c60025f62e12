"""Horovod, imported only when its launcher has started this process."""

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from utils.distributed.communicator import Communicator, ReduceOp
from utils.errors import UserError

POLL_SECONDS = 1e-4
# How often a rank that waits looks whether another has given up, so that all fail together.
LOOK_SECONDS = 1.0


class HorovodRanks(Communicator):
    """The ranks that horovodrun (or mpirun) has started.

    Waiting is done here rather than by Horovod's ``synchronize``: that has no time limit (the stall
    inspector of 0.28.1 knows no ranks when they are coordinated over Gloo) and keeps a CPU core
    busy.
    """

    backend = "horovod"

    def __init__(self, timeout_seconds: int) -> None:
        try:
            import horovod.torch as hvd
        except ImportError as error:
            raise UserError(
                f"this process was started by horovodrun or mpirun, but Horovod cannot be imported "
                f"({error}); run scripts/install_horovod.sh, or start with torchrun"
            ) from None
        hvd.init()
        super().__init__(hvd.rank(), hvd.size(), hvd.local_rank())
        self._hvd = hvd
        self._ops = {"sum": hvd.Sum, "mean": hvd.Average, "max": hvd.Max}
        self._timeout_seconds = timeout_seconds
        # Address and port of the key-value store that horovodrun keeps; mpirun keeps none.
        names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
        self._store = [os.environ[name] for name in names if name in os.environ]

    def shutdown(self) -> None:
        """Tell the other ranks that this one has finished."""
        self._hvd.shutdown()

    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], None]:
        handle = self._hvd.allreduce_async_(tensor, op=self._ops[op], name=name)
        deadline = time.monotonic() + self._timeout_seconds
        return lambda: self._wait(handle, deadline)

    def _broadcast(self, tensor: Tensor, root: int) -> None:
        self._wait(self._hvd.broadcast_async_(tensor, root, name="broadcast"))

    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        length = torch.tensor([flat.numel()])
        lengths = self._wait(self._hvd.allgather_async(length, name="gather_lengths"))
        gathered = self._wait(self._hvd.allgather_async(flat, name="gather"))
        return list(gathered.split(lengths.tolist()))

    def _wait(self, handle: int, deadline: float | None = None) -> Tensor:
        now = time.monotonic()
        deadline = deadline or now + self._timeout_seconds
        next_look = now + LOOK_SECONDS
        while not self._hvd.poll(handle):
            now = time.monotonic()
            if now > deadline:
                raise RuntimeError(f"timed out after {self._timeout_seconds} s")
            if now > next_look:
                if self._store and self._is_stored("anyone"):
                    raise RuntimeError("another rank failed in it")
                next_look = now + LOOK_SECONDS
            time.sleep(POLL_SECONDS)
        return self._hvd.synchronize(handle)

    def _report_failure(self) -> None:
        from horovod.runner.http.http_client import put_data_into_kvstore

        if not self._store:
            raise RuntimeError("mpirun keeps no store")
        for key in (str(self.rank), "anyone"):
            put_data_into_kvstore(*self._store, "hero-failed", key, "failed")

    def _has_reported(self, rank: int) -> bool:
        return self._is_stored(str(rank))

    def _is_stored(self, key: str) -> bool:
        from horovod.runner.http.http_client import read_data_from_kvstore

        try:
            read_data_from_kvstore(*self._store, "hero-failed", key)
        except RuntimeError:  # what Horovod makes of "not found"
            return False
        return True
