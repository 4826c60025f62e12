"""Batches in an order that depends on the seed alone, and can be taken up anywhere.

What an item draws at random comes from (seed, epoch, index), never from a worker's generator: the
number of workers and a restart change nothing.
"""

import bisect
import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from config.groups import LoaderOptions, TrainingOptions
from utils.batch import TensorBatch
from utils.distributed import Communicator
from utils.errors import UserError
from utils.processes import follow_parent

Item = TypeVar("Item")
OptionsT = TypeVar("OptionsT", bound=LoaderOptions, covariant=True)


class ItemKey(NamedTuple):
    """Which item, and in which epoch it is drawn."""

    index: int
    epoch: int = 0

    @classmethod
    def of(cls, key: "ItemKey | int") -> "ItemKey":
        """Accept plain indices too (epoch 0)."""
        return key if isinstance(key, ItemKey) else cls(key)

    def generator(self, seed: int) -> np.random.Generator:
        """The item's own source of random numbers."""
        return np.random.default_rng([seed, self.epoch, self.index])


def first_usable(index: int, count: int, make: Callable[[int], Item | None]) -> Item:
    """Return item ``index`` of ``count``, or the next, around, of which ``make`` makes something.

    A video whose features are shorter than ``id2nframe.json`` says may turn out to have nothing to
    learn from only when it is read. Every rank then takes the same one in its place.

    Raises:
        UserError: there is none.
    """
    for place in range(index, index + count):
        item = make(place % count)
        if item is not None:
            return item
    raise UserError(
        "no video has anything to learn from within its features; convert the features again"
    )


class SizedDataset(Protocol):
    """Anything with a length and items by :class:`ItemKey`."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: ItemKey) -> Any: ...


class BatchSampler(ABC):
    """Endless batches of keys for one of ``size`` ranks.

    Attributes:
        start: batches to pass over.
    """

    start: int = 0

    @abstractmethod
    def __iter__(self) -> Iterator[list]:
        """The batches from ``start`` on."""

    @abstractmethod
    def items_in(self, batches: int) -> int:
        """Items that all ranks have had after so many batches of each."""

    @abstractmethod
    def batches_for(self, items: int) -> int:
        """Batches of each rank in which about so many items were had."""


class EvenBatches(BatchSampler):
    """Batches of ``batch_size`` items on each of ``size`` ranks."""

    batch_size: int
    size: int

    def items_in(self, batches: int) -> int:
        """See :class:`BatchSampler`."""
        return batches * self.batch_size * self.size

    def batches_for(self, items: int) -> int:
        """See :class:`BatchSampler`."""
        return items // (self.batch_size * self.size)


class RankBatches(EvenBatches):
    """Endless batches of item keys for one rank.

    Each epoch all ranks shuffle alike and take every n-th item; the order wraps around so that all
    ranks have equally many. Together, the ranks' k-th batches are the k-th batch of one process
    with ``size`` times the batch size.
    """

    def __init__(
        self, count: int, batch_size: int, rank: int = 0, size: int = 1, seed: int = 0
    ) -> None:
        self.count, self.batch_size, self.rank, self.size = count, batch_size, rank, size
        self.seed = seed

    @property
    def per_epoch(self) -> int:
        """Batches of one rank in an epoch."""
        return math.ceil(self.per_rank / self.batch_size)

    @property
    def per_rank(self) -> int:
        """Items of one rank in an epoch."""
        return math.ceil(self.count / self.size)

    def epoch_items(self, epoch: int) -> np.ndarray:
        """Items of this rank in one epoch, in order."""
        return self.epoch_grid(epoch)[:, self.rank]

    def epoch_grid(self, epoch: int) -> np.ndarray:
        """(per_rank, size): what every rank takes, one after the other."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return np.resize(order, self.per_rank * self.size).reshape(-1, self.size)

    def __iter__(self) -> Iterator[list[ItemKey]]:
        epoch, done = divmod(self.start, self.per_epoch)
        while True:
            items = self.epoch_items(epoch)
            for number in range(done, self.per_epoch):
                chosen = items[number * self.batch_size : (number + 1) * self.batch_size]
                yield [ItemKey(int(index), epoch) for index in chosen]
            epoch, done = epoch + 1, 0


class BudgetBatches(RankBatches):
    """Batches bounded by the positions that the cross-modal transformer sees, not by items.

    All ranks cut their items at the same places, as soon as one of them would exceed the budget:
    they do the same number of steps. An item that exceeds it alone is a batch of its own.

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

    def cuts(self, epoch: int) -> list[int]:
        """Where batches of an epoch end among a rank's items."""
        used = self.positions[self.epoch_grid(epoch)].cumsum(axis=0)  # (per_rank, size)
        cuts, before = [], np.zeros(self.size, dtype=np.int64)
        while not cuts or cuts[-1] < self.per_rank:
            fits = min(
                int(np.searchsorted(used[:, rank], before[rank] + self.budget, side="right"))
                for rank in range(self.size)
            )
            cuts.append(max(fits, (cuts[-1] if cuts else 0) + 1))
            before = used[cuts[-1] - 1]
        return cuts

    def __iter__(self) -> Iterator[list[ItemKey]]:
        passed = 0
        for epoch in itertools.count():
            items, cuts = self.epoch_items(epoch), self.cuts(epoch)
            for start, end in itertools.pairwise([0, *cuts]):
                if passed >= self.start:
                    yield [ItemKey(int(index), epoch) for index in items[start:end]]
                passed += 1

    def items_in(self, batches: int) -> int:
        """See :class:`BatchSampler`."""
        epoch = 0
        while batches > len(cuts := self.cuts(epoch)):
            batches -= len(cuts)
            epoch += 1
        within = cuts[batches - 1] if batches else 0
        return (epoch * self.per_rank + within) * self.size

    def batches_for(self, items: int) -> int:
        """See :class:`BatchSampler`."""
        epochs, within = divmod(items // self.size, self.per_rank)
        whole = sum(len(self.cuts(epoch)) for epoch in range(epochs))
        return whole + bisect.bisect_right(self.cuts(epochs), within)


class _ErrorsAsItems(Dataset):
    """Hands a :class:`UserError` over as an item.

    A loader would re-raise a worker's exception with the worker's traceback as its message; this
    way the user's one line arrives as it was written.
    """

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: ItemKey) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


class _Collate:
    def __init__(self, collate: Callable[[Sequence[Any]], TensorBatch]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> TensorBatch | UserError:
        for item in items:
            if isinstance(item, UserError):
                return item
        return self.collate(items)


def _loader(
    dataset: SizedDataset, collate: Callable, sampler: Any, options: LoaderOptions
) -> DataLoader:
    return DataLoader(
        _ErrorsAsItems(dataset),
        batch_sampler=sampler,
        collate_fn=_Collate(collate),
        # More processes than cores only take turns; what they load does not depend on their number.
        num_workers=min(options.n_workers, len(os.sched_getaffinity(0))),
        pin_memory=options.pin_mem and torch.cuda.is_available(),
        # The loader seeds its workers from this; the global generator stays the model's alone, so
        # that making a loader (at a restart, in validation) does not move dropout.
        generator=torch.Generator(),
        # PyTorch's own watch over the parent begins when a worker has started: too late where the
        # parent is killed at that very moment.
        worker_init_fn=_start_worker,
    )


def _start_worker(number: int) -> None:
    follow_parent()


def _raised(batch: TensorBatch | UserError) -> TensorBatch:
    if isinstance(batch, UserError):
        raise batch
    return batch


class DevicePrefetcher:
    """Copies the next batch to the device while the present one is being computed."""

    def __init__(self, batches: Iterator[Any], device: torch.device) -> None:
        self.batches = batches
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.ahead: TensorBatch | None = None
        if self.stream is not None:
            self._copy_next()

    def _copy_next(self) -> None:
        batch = next(self.batches, None)
        if batch is not None:
            with torch.cuda.stream(self.stream):
                batch = _raised(batch).to(self.device)
        self.ahead = batch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TensorBatch:
        if self.stream is None:
            return _raised(next(self.batches)).to(self.device)
        if self.ahead is None:
            raise StopIteration
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        batch = self.ahead
        batch.record_stream(torch.cuda.current_stream(self.device))
        self._copy_next()
        return batch


@dataclass
class LoadingRun(Generic[OptionsT]):
    """What loaders read of a run (:class:`engine.run.Run`)."""

    options: OptionsT
    comm: Communicator
    device: torch.device


def _sampler(dataset: SizedDataset, run: LoadingRun[TrainingOptions]) -> BatchSampler:
    options = run.options
    ranks = run.comm.rank, run.comm.size, options.seed
    if options.token_budget is None:
        return RankBatches(len(dataset), options.train_batch_size, *ranks)
    return BudgetBatches(dataset.positions(), options.token_budget, *ranks)


class TrainLoader:
    """Endless training batches of this rank, on the device; its position can be saved.

    Args:
        dataset: items by :class:`ItemKey`.
        collate: items → batch.
        run: rank, device, batch size, seed of the order, workers.
        sampler: batches of keys; None = all items in a new order each epoch.
    """

    def __init__(
        self,
        dataset: SizedDataset,
        collate: Callable[[Sequence[Any]], TensorBatch],
        run: LoadingRun[TrainingOptions],
        sampler: BatchSampler | None = None,
    ) -> None:
        self.sampler = sampler or _sampler(dataset, run)
        self.loader = _loader(dataset, collate, self.sampler, run.options)
        self.device = run.device
        self.batches = 0  # handed out so far
        self._iterator: DevicePrefetcher | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TensorBatch:
        if self._iterator is None:
            self.sampler.start = self.batches
            self._iterator = DevicePrefetcher(iter(self.loader), self.device)
        batch = next(self._iterator)
        self.batches += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Position in the data."""
        return {"batches": self.batches, "items": self.sampler.items_in(self.batches)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved position; with another global batch, from about the same item."""
        same = state["items"] == self.sampler.items_in(state["batches"])
        self.batches = state["batches"] if same else self.sampler.batches_for(state["items"])
        self._iterator = None


def evaluation_batches(
    dataset: SizedDataset,
    collate: Callable[[Sequence[Any]], TensorBatch],
    batch_size: int,
    run: LoadingRun[LoaderOptions],
    progress: str = "evaluation",
) -> Iterator[TensorBatch]:
    """One pass over this rank's part, on the device; rank 0 shows a bar called ``progress``.

    A rank takes every n-th of the batches that one process would make: what is computed together,
    and so each result to its last bit, is the same on any number of ranks.
    """
    keys = [ItemKey(index) for index in range(len(dataset))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    sampler = batches[run.comm.rank :: run.comm.size]
    loaded = DevicePrefetcher(iter(_loader(dataset, collate, sampler, run.options)), run.device)
    return _shown(loaded, progress, len(sampler), run.comm.is_main)


def _shown(
    batches: Iterable[TensorBatch], name: str, total: int, is_main: bool
) -> Iterator[TensorBatch]:
    """Batches, and from the first on a bar that is gone after the last."""
    yield from tqdm(
        batches, name, total, leave=False, unit="batch", disable=not is_main, dynamic_ncols=True
    )
