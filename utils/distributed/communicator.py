"""What the ranks of a run say to each other, whatever launched them."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from utils.distributed.watch import Board, RankWatch
from utils.signals import postponed_signals

ReduceOp = Literal["sum", "mean", "max"]


class CollectiveError(RuntimeError):
    """A collective failed or ran out of time; names it and, where known, the ranks to blame."""


class Pending:
    """A collective under way."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def wait(self) -> None:
        """Return when the result is there (on CUDA: for what this stream does next)."""
        self._wait()


class Communicator(ABC):
    """The ranks of one run. Every rank must start the same collectives in the same order.

    Tensors may lie on the CPU or on the rank's own device; they must be contiguous. A back-end
    provides the three primitives ``_start_all_reduce``, ``_broadcast`` and ``_gather_bytes``, and a
    board where its launcher keeps one.

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
        """Whether this is the rank that writes files and logs."""
        return self.rank == 0

    def all_reduce_(self, tensor: Tensor, op: ReduceOp = "sum") -> Tensor:
        """Reduce ``tensor`` over the ranks, in place, and return it."""
        self.all_reduce_async(tensor, op, name=f"{op}.{tensor.dtype}").wait()
        return tensor

    def all_reduce_async(
        self, tensor: Tensor, op: ReduceOp = "sum", name: str | None = None
    ) -> Pending:
        """Start reducing ``tensor`` in place; do not touch it before ``.wait()``.

        Args:
            name: the same on all ranks, used by no other collective under way. Names that come
                back from step to step save Horovod a negotiation.
        """
        named = self._named(f"all_reduce {op}", tensor)
        with self._explained(*named):
            wait = self._start_all_reduce(tensor, op, name or f"unnamed.{self._started}")

        def wait_explained() -> None:
            with self._explained(*named):
                wait()

        return Pending(wait_explained)

    def broadcast_(self, tensor: Tensor, root: int = 0) -> Tensor:
        """Overwrite ``tensor`` with rank ``root``'s, which has the same shape, and return it."""
        with self._explained(*self._named(f"broadcast from rank {root}", tensor)):
            self._broadcast(tensor, root)
        return tensor

    def all_gather_parts(self, tensor: Tensor) -> list[Tensor]:
        """All ranks' tensors in rank order; their first dimensions may differ. No gradient."""
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        with self._explained(*self._named("all_gather", tensor)):
            parts = self._gather_bytes(flat)
        return [part.view(tensor.dtype).reshape(-1, *tensor.shape[1:]) for part in parts]

    def all_gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors concatenated along the first dimension, which may differ."""
        return torch.cat(self.all_gather_parts(tensor))

    def all_gather_object(self, obj: Any) -> list[Any]:
        """Every rank's picklable object, in rank order."""
        return [pickle.loads(part.numpy().data) for part in self.all_gather_parts(_to_bytes(obj))]

    def broadcast_object(self, obj: Any, root: int = 0) -> Any:
        """Rank ``root``'s picklable object."""
        content = _to_bytes(obj) if self.rank == root else torch.empty(0, dtype=torch.uint8)
        length = self.broadcast_(torch.tensor([content.numel()]), root)
        if self.rank != root:
            content = torch.empty(int(length), dtype=torch.uint8)
        return pickle.loads(self.broadcast_(content, root).numpy().data)

    def barrier(self) -> None:
        """Return when every rank has come here."""
        self.all_reduce_(torch.zeros(1))

    def shutdown(self) -> None:
        """Leave the run; no collective may follow."""
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def watch_ranks(self, seconds: float) -> None:
        """End the run where a rank gives no sign of life for so long."""
        if self.board is not None and self.size > 1:
            self._watch = RankWatch(
                self.board, self.rank, self.size, lambda: (self.step, self._started), seconds
            )

    @abstractmethod
    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        """Start the reduction; the function returned waits for it."""

    @abstractmethod
    def _broadcast(self, tensor: Tensor, root: int) -> None: ...

    @abstractmethod
    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        """Every rank's bytes; ``flat`` is a uint8 vector of any length."""

    def _named(self, what: str, tensor: Tensor) -> tuple[int, str]:
        """Number of the collective to begin, and what it is."""
        self._started += 1
        dtype = str(tensor.dtype).removeprefix("torch.")
        return self._started, f"{what} of {dtype} {tuple(tensor.shape)}"

    @contextmanager
    def _explained(self, number: int, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            with postponed_signals():  # the launcher's, which ends all ranks when one is gone
                absent = f" ({self._watch.absent(number)})" if self._watch else ""
            raise CollectiveError(
                f"rank {self.rank} of {self.size}, after step {self.step}: collective {number}, "
                f"{what} failed{absent}: {error}"
            ) from error


class SingleProcess(Communicator):
    """One process, no launcher: every collective returns what it was given."""

    backend = "single"

    def __init__(self) -> None:
        super().__init__(rank=0, size=1, local_rank=0)

    def _start_all_reduce(self, tensor: Tensor, op: ReduceOp, name: str) -> Callable[[], object]:
        return lambda: None

    def _broadcast(self, tensor: Tensor, root: int) -> None:
        pass

    def _gather_bytes(self, flat: Tensor) -> list[Tensor]:
        return [flat]


def _to_bytes(obj: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)
