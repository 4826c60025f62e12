"""Horovod, imported only when its launcher has started this process."""

import os
import time
from collections.abc import Callable
from urllib.error import HTTPError

import torch
from torch import Tensor

from utils.distributed.communicator import Communicator, ReduceOp
from utils.errors import UserError
from utils.packages import require_package

POLL_SECONDS = 1e-4
BOARD = "hero-ranks"
STORE_VARIABLES = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")


class HorovodRanks(Communicator):
    """The ranks that horovodrun (or mpirun) has started.

    Collectives are polled, as Horovod's ``synchronize`` has no timeout (the stall inspector of
    0.28.1 does not know ranks that are coordinated over Gloo) and keeps a CPU core busy.
    """

    backend = "horovod"

    def __init__(self, timeout_seconds: int) -> None:
        try:
            hvd = require_package("horovod.torch")
        except UserError as error:
            raise UserError(
                f"this process was started by horovodrun or mpirun, but {error}, or start it with "
                "torchrun"
            ) from None
        hvd.init()
        super().__init__(hvd.rank(), hvd.size(), hvd.local_rank())
        self._hvd = hvd
        self._ops = {"sum": hvd.Sum, "mean": hvd.Average, "max": hvd.Max}
        self._timeout_seconds = timeout_seconds
        if all(name in os.environ for name in STORE_VARIABLES):
            self.board = HorovodBoard()

    def shutdown(self) -> None:
        """Signal to the other ranks that this one has finished."""
        super().shutdown()
        self._hvd.shutdown()

    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        handle = self._hvd.allreduce_async_(tensor, op=self._ops[op], name=name)
        deadline = time.monotonic() + self._timeout_seconds
        return lambda: self._wait(handle, deadline)

    def _broadcast(self, tensor: Tensor) -> None:
        flat = tensor.view(-1).view(torch.uint8)  # of any dtype: Horovod has no bfloat16 here
        self._wait(self._hvd.broadcast_async_(flat, 0, name="broadcast"))

    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        length = torch.tensor([flat.numel()])
        lengths = self._wait(self._hvd.allgather_async(length, name="gather_lengths"))
        gathered = self._wait(self._hvd.allgather_async(flat, name="gather"))
        return list(gathered.split(lengths.tolist()))

    def _wait(self, handle: int, deadline: float | None = None) -> Tensor:
        deadline = deadline or time.monotonic() + self._timeout_seconds
        while not self._hvd.poll(handle):
            if time.monotonic() > deadline:
                raise RuntimeError(f"timed out after {self._timeout_seconds} s")
            time.sleep(POLL_SECONDS)
        return self._hvd.synchronize(handle)


class HorovodBoard:
    """The key-value store of horovodrun; mpirun has none."""

    def __init__(self) -> None:
        from horovod.runner.http import http_client

        self._http = http_client
        self._address = [os.environ[name] for name in STORE_VARIABLES]

    def write(self, rank: int, line: str) -> None:
        """Store a rank's line."""
        self._http.put_data_into_kvstore(*self._address, BOARD, str(rank), line)

    def read(self, rank: int) -> str:
        """Read a rank's line."""
        try:
            return self._http.read_data_from_kvstore(*self._address, BOARD, str(rank))
        except RuntimeError as error:
            if isinstance(error.args[-1], HTTPError):  # the store exists, the line does not
                return ""
            raise
