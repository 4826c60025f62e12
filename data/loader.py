"""Batches in an order that depends on the seed alone and can be resumed at any batch.

An item's random draws come from (seed, epoch, index), never from a worker's generator: the number
of workers and a restart change nothing.
"""

import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from config.groups import LoaderOptions, TrainingOptions
from utils.batch import TensorBatch
from utils.distributed import Communicator
from utils.errors import UserError
from utils.processes import follow_parent

Item = TypeVar("Item")
OptionsT = TypeVar("OptionsT", bound=LoaderOptions, covariant=True)
KeyT = TypeVar("KeyT", contravariant=True)
BatchT = TypeVar("BatchT", bound=TensorBatch)
SamplerState = dict[str, Any]


class ItemKey(NamedTuple):
    """Which item, and in which epoch it is drawn."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which no key needs
    epoch: int = 0

    @classmethod
    def of(cls, key: "ItemKey | int") -> "ItemKey":
        """Accept plain indices too (epoch 0)."""
        return key if isinstance(key, ItemKey) else cls(key)

    def generator(self, seed: int) -> np.random.Generator:
        """Return the item's own random generator."""
        return np.random.default_rng([seed, self.epoch, self.index])


class KeyedDataset(Protocol[KeyT]):
    """A sized data set whose items are read by key."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: KeyT, /) -> Any: ...


SizedDataset = KeyedDataset[ItemKey]


class BatchSampler(ABC):
    """Endless batches of keys for one of ``size`` ranks.

    Its state is its progress, in plain values that can be saved. It counts items of all ranks, so
    that a run can resume with another batch size or number of ranks. The first state is ``{}``.
    """

    batch_size: int
    size: int

    @abstractmethod
    def batches(self, state: SamplerState) -> Iterator[tuple[list, SamplerState]]:
        """Yield the batches from ``state`` on, each with the state after it."""


class RankBatches(BatchSampler):
    """Endless batches of item keys for one rank; the state is an epoch and the items done.

    Each epoch all ranks shuffle alike and take every n-th item; the order wraps around so that all
    ranks have equally many. Together, the ranks' k-th batches are the k-th batch of one process
    with ``size`` times the batch size.
    """

    def __init__(
        self, count: int, batch_size: int, rank: int = 0, size: int = 1, seed: int = 0
    ) -> None:
        self.count, self.batch_size, self.rank, self.size = count, batch_size, rank, size
        self.seed = seed

    def rows(self, epoch: int, done: int = 0) -> np.ndarray:
        """Return (n, size) items of every rank, in an epoch of which ``done`` items are done."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        left = math.ceil((self.count - done) / self.size) * self.size
        return order.take(np.arange(done, done + left), mode="wrap").reshape(-1, self.size)

    def ends(self, rows: np.ndarray) -> Iterator[int]:
        """Yield where batches end among an epoch's rows."""
        for end in range(self.batch_size, len(rows) + self.batch_size, self.batch_size):
            yield min(end, len(rows))

    def batches(self, state: SamplerState) -> Iterator[tuple[list[ItemKey], SamplerState]]:
        """See :class:`BatchSampler`."""
        done = state.get("items", 0)
        for epoch in itertools.count(state.get("epoch", 0)):
            rows, start = self.rows(epoch, done), 0
            for end in self.ends(rows):
                keys = [ItemKey(int(index), epoch) for index in rows[start:end, self.rank]]
                items, over = done + end * self.size, end == len(rows)
                yield keys, {"epoch": epoch + over, "items": 0 if over else items}
                start = end
            done = 0


class BudgetBatches(RankBatches):
    """Batches bounded by the positions that the cross-modal transformer sees, not by items.

    All ranks end a batch as soon as one of them would exceed the budget, so that they do the same
    number of steps. An item that exceeds it alone is a batch of its own.

    Args:
        positions: (count,) of every item.
        budget: positions of a rank's batch.
        rank, size, seed: as for :class:`RankBatches`.
    """

    def __init__(
        self, positions: np.ndarray, budget: int, rank: int = 0, size: int = 1, seed: int = 0
    ) -> None:
        super().__init__(len(positions), 1, rank, size, seed)
        self.positions = np.asarray(positions, dtype=np.int64)
        self.budget = budget

    def ends(self, rows: np.ndarray) -> Iterator[int]:
        """See :class:`RankBatches`."""
        used = self.positions[rows.T].cumsum(axis=1)  # (size, n)
        end, before = 0, np.zeros(self.size, dtype=np.int64)
        while end < len(rows):
            fits = map(partial(np.searchsorted, side="right"), used, before + self.budget)
            end = max(int(min(fits)), end + 1)
            before = used[:, end - 1]
            yield end


@dataclass
class LoadingRun(Generic[OptionsT]):
    """The part of a run (:class:`engine.run.Run`) that loaders read."""

    options: OptionsT
    comm: Communicator
    device: torch.device


def _load(
    dataset: KeyedDataset[KeyT],
    collate: Callable[[Sequence[Any]], BatchT],
    batches: Iterable[list[KeyT]],
    run: LoadingRun[LoaderOptions],
) -> Iterator[BatchT]:
    # Batches do not depend on the number of workers: no more than cores or batches are of use.
    workers = min(run.options.n_workers, len(os.sched_getaffinity(0)))
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # PyTorch needs no Dataset, only its methods
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=min(workers, len(batches)) if isinstance(batches, list) else workers,
        pin_memory=run.options.pin_mem and torch.cuda.is_available(),
        # Workers are not seeded from the global generator: making a loader (at a restart, in
        # validation) must not change dropout.
        generator=torch.Generator(),
        # PyTorch's own watchdog starts with the worker: too late if the parent is killed then.
        worker_init_fn=_start_worker,
    )
    return _on_device(_with_plain_errors(iter(loader)), run.device)


def _start_worker(number: int) -> None:
    follow_parent()


def _with_plain_errors(batches: Iterator[Item]) -> Iterator[Item]:
    """Yield the batches; a worker's UserError, to whose message the loader adds the worker's
    traceback, is raised with the original message."""
    try:
        yield from batches
    except UserError as error:
        name = f"{UserError.__module__}.{UserError.__qualname__}: "
        raise UserError(str(error).rpartition(name)[2].rstrip()) from None


def _on_device(batches: Iterator[BatchT], device: torch.device) -> Iterator[BatchT]:
    """Yield the batches on the device; to a GPU, the next is copied while this one is computed."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copies = torch.cuda.Stream(device)

    def copy_next() -> BatchT | None:
        batch = next(batches, None)
        with torch.cuda.stream(copies):
            return None if batch is None else batch.to(device)

    ahead = copy_next()
    while (batch := ahead) is not None:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copies)
        batch.record_stream(computing)
        ahead = copy_next()
        yield batch


def _sampler(dataset: KeyedDataset[Any], run: LoadingRun[TrainingOptions]) -> BatchSampler:
    options = run.options
    ranks = run.comm.rank, run.comm.size, options.seed
    if options.token_budget is None:
        return RankBatches(len(dataset), options.train_batch_size, *ranks)
    positions = getattr(dataset, "positions", None)
    if positions is None:
        raise TypeError(f"{type(dataset).__name__} has no positions: it takes no token_budget")
    return BudgetBatches(positions(), options.token_budget, *ranks)


class TrainLoader:
    """Endless training batches of this rank, on the device; its state can be saved.

    Args:
        dataset: items by :class:`ItemKey`; with a token budget it has ``positions()`` (items,).
        collate: items → batch.
        run: rank, device, batch size, seed of the order, workers.
        sampler: batches of keys; None = all items in a new order each epoch.
    """

    def __init__(
        self,
        dataset: KeyedDataset[Any],
        collate: Callable[[Sequence[Any]], TensorBatch],
        run: LoadingRun[TrainingOptions],
        sampler: BatchSampler | None = None,
    ) -> None:
        self.dataset, self.collate, self.run = dataset, collate, run
        self.sampler = sampler or _sampler(dataset, run)
        self.state: SamplerState = {}
        self._batches: Iterator[TensorBatch] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TensorBatch:
        if self._batches is None:
            # Two views of one stream: workers prefetch keys.
            ahead, self._returned = itertools.tee(self.sampler.batches(self.state))
            keys = (batch for batch, _ in ahead)
            self._batches = _load(self.dataset, self.collate, keys, self.run)
        batch = next(self._batches)
        _, self.state = next(self._returned)
        return batch

    def state_dict(self) -> SamplerState:
        """Return the state after the last batch returned."""
        return self.state

    def load_state_dict(self, state: SamplerState) -> None:
        """Resume from a saved state, also with another batch size or number of ranks."""
        # Earlier restore points count batches of all epochs, and items as if all were full.
        self.state = self._state_after(state["items"]) if "batches" in state else state
        if self.state:
            next(self.sampler.batches(self.state))  # raises for a malformed state
        self._batches = None

    def _state_after(self, items: int) -> SamplerState:
        state: SamplerState = {}
        batches = self.sampler.batches(state)
        while items > 0:
            keys, state = next(batches)
            items -= max(len(keys), self.sampler.batch_size) * self.sampler.size
        return state


def evaluation_batches(
    dataset: SizedDataset,
    collate: Callable[[Sequence[Any]], BatchT],
    batch_size: int,
    run: LoadingRun[LoaderOptions],
    progress: str = "evaluation",
) -> Iterator[BatchT]:
    """Return one pass over this rank's part, on the device; rank 0 shows a ``progress`` bar.

    A rank takes every n-th of the batches that one process would make, so that each result is
    bitwise the same on any number of ranks.
    """
    keys = [ItemKey(index) for index in range(len(dataset))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    part = batches[run.comm.rank :: run.comm.size]
    return _shown(_load(dataset, collate, part, run), progress, len(part), run.comm.is_main)


def _shown(batches: Iterable[Item], name: str, total: int, is_main: bool) -> Iterator[Item]:
    """Yield batches; from the first to the last a progress bar is shown."""
    yield from tqdm(
        batches, name, total, leave=False, unit="batch", disable=not is_main, dynamic_ncols=True
    )
