"""Communication between the ranks of a run, independent of the launcher."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from utils.distributed.watch import Board, RankWatch
from utils.signals import postponed_signals

ReduceOp = Literal["sum", "mean", "max"]


class CollectiveError(RuntimeError):
    """A collective failed or timed out; names it and, if known, the ranks that caused it."""


@dataclass(frozen=True)
class Pending:
    """A collective in progress; ``wait()`` returns when its result is available (on CUDA: to work
    that this stream queues next)."""

    wait: Callable[[], object]


class Communicator(ABC):
    """The ranks of one run. Every rank must start the same collectives in the same order.

    Tensors may be on the CPU or on the rank's own device; they must be contiguous. A back-end
    implements ``_start_all_reduce``, ``_broadcast`` and ``_gather_bytes``, and has a board if its
    launcher has a store.

    Attributes:
        step: optimizer steps done, for messages.
    """

    backend: str
    step: int = 0
    board: Board | None = None
    _watch: RankWatch | None = None

    def __init__(self, rank: int, size: int, local_rank: int) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._started = 0

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and logs."""
        return self.rank == 0

    def all_reduce_(self, tensor: Tensor, op: ReduceOp = "sum") -> Tensor:
        """Reduce ``tensor`` over the ranks, in place, and return it."""
        self.all_reduce_async(tensor, op, name=f"{op}.{tensor.dtype}").wait()
        return tensor

    def all_reduce_async(
        self, tensor: Tensor, op: ReduceOp = "sum", name: str | None = None
    ) -> Pending:
        """Start reducing ``tensor`` in place; do not use it before ``.wait()``.

        Args:
            name: the same on all ranks, and of no other collective in progress. Names that are used
                again in every step save Horovod a negotiation.
        """
        named = self._named(f"all_reduce {op}", tensor)
        with self._explained(*named):
            wait = self._start_all_reduce(tensor, op, name or f"unnamed.{self._started}")

        def wait_explained() -> None:
            with self._explained(*named):
                wait()

        return Pending(wait_explained)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Overwrite ``tensor`` with rank 0's, which has the same shape, and return it."""
        with self._explained(*self._named("broadcast from rank 0", tensor)):
            self._broadcast(tensor)
        return tensor

    def all_gather_parts(self, tensor: Tensor) -> list[Tensor]:
        """Return all ranks' tensors in rank order, detached; their first dimensions may differ."""
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        with self._explained(*self._named("all_gather", tensor)):
            parts = self._gather_bytes(flat)
        return [part.view(tensor.dtype).reshape(-1, *tensor.shape[1:]) for part in parts]

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return all ranks' tensors concatenated along the first dimension, which may differ."""
        return torch.cat(self.all_gather_parts(tensor))

    def all_gather_object(self, obj: Any) -> list[Any]:
        """Return every rank's picklable object, in rank order."""
        content = torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)
        return [pickle.loads(part.numpy().data) for part in self.all_gather_parts(content)]

    def broadcast_object(self, obj: Any) -> Any:
        """Return rank 0's picklable object."""
        return self.all_gather_object(obj if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        self.all_reduce_(torch.zeros(1))

    def shutdown(self) -> None:
        """Leave the run; no collective may follow."""
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def watch_ranks(self, seconds: float) -> None:
        """End the run if a rank gives no sign of life for ``seconds``."""
        if self.board is not None and self.size > 1:
            self._watch = RankWatch(
                self.board, self.rank, self.size, lambda: (self.step, self._started), seconds
            )

    @abstractmethod
    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        """Start the reduction and return a function that waits for it."""

    @abstractmethod
    def _broadcast(self, tensor: Tensor) -> None: ...

    @abstractmethod
    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        """Return every rank's bytes; ``flat`` is a uint8 vector of any length."""

    def _named(self, what: str, tensor: Tensor) -> tuple[int, str]:
        """Return number and description of a new collective."""
        self._started += 1
        dtype = str(tensor.dtype).removeprefix("torch.")
        return self._started, f"{what} of {dtype} {tuple(tensor.shape)}"

    @contextmanager
    def _explained(self, number: int, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            with postponed_signals():  # of the launcher, which ends all ranks when one is gone
                absent = f" ({self._watch.absent(number)})" if self._watch else ""
            raise CollectiveError(
                f"rank {self.rank} of {self.size}, after step {self.step}: collective {number}, "
                f"{what} failed{absent}: {error}"
            ) from error


class SingleProcess(Communicator):
    """One process without a launcher: every collective returns its input."""

    backend = "single"

    def __init__(self) -> None:
        super().__init__(rank=0, size=1, local_rank=0)

    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        return lambda: None

    def _broadcast(self, tensor: Tensor) -> None:
        pass

    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        return [flat]
