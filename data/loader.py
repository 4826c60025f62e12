"""Batches in an order that depends on the seed alone, and can be taken up anywhere.

What an item draws at random comes from (seed, epoch, index), never from a worker's generator: the
number of workers and a restart change nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.batch import TensorBatch
from utils.distributed import Communicator
from utils.errors import UserError


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


class SizedDataset(Protocol):
    """Anything with a length and items by :class:`ItemKey`."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: ItemKey) -> Any: ...


class BatchSampler(Protocol):
    """Endless batches of keys for one of ``size`` ranks, from batch ``start`` on."""

    start: int
    batch_size: int
    size: int

    def __iter__(self) -> Iterator[list]: ...


class RankBatches:
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
        self.start = 0  # batches to pass over

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
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        even = np.resize(order, self.per_rank * self.size)
        return even[self.rank :: self.size]

    def __iter__(self) -> Iterator[list[ItemKey]]:
        epoch, done = divmod(self.start, self.per_epoch)
        while True:
            items = self.epoch_items(epoch)
            for number in range(done, self.per_epoch):
                chosen = items[number * self.batch_size : (number + 1) * self.batch_size]
                yield [ItemKey(int(index), epoch) for index in chosen]
            epoch, done = epoch + 1, 0


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


def _loader(dataset: SizedDataset, collate: Callable, sampler: Any, options: Any) -> DataLoader:
    return DataLoader(
        _ErrorsAsItems(dataset),
        batch_sampler=sampler,
        collate_fn=_Collate(collate),
        num_workers=options.n_workers,
        pin_memory=options.pin_mem and torch.cuda.is_available(),
        # The loader seeds its workers from this; the global generator stays the model's alone, so
        # that making a loader (at a restart, in validation) does not move dropout.
        generator=torch.Generator(),
    )


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


class LoadingRun(Protocol):
    """What loaders read of a run (:class:`utils.run.Run`)."""

    comm: Communicator
    device: torch.device
    options: Any  # train_batch_size, seed, n_workers, pin_mem


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
        run: LoadingRun,
        sampler: BatchSampler | None = None,
    ) -> None:
        size, seed = run.options.train_batch_size, run.options.seed
        self.sampler = sampler or RankBatches(
            len(dataset), size, run.comm.rank, run.comm.size, seed
        )
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
        return {"batches": self.batches, "items": self.batches * self._global_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved position; with another global batch, from about the same item."""
        same = state["items"] == state["batches"] * self._global_batch
        self.batches = state["batches"] if same else state["items"] // self._global_batch
        self._iterator = None

    @property
    def _global_batch(self) -> int:
        return self.sampler.batch_size * self.sampler.size


def evaluation_batches(
    dataset: SizedDataset,
    collate: Callable[[Sequence[Any]], TensorBatch],
    batch_size: int,
    run: LoadingRun,
) -> Iterator[TensorBatch]:
    """One pass over this rank's part (every n-th item) in order, on the device."""
    keys = [ItemKey(index) for index in range(run.comm.rank, len(dataset), run.comm.size)]
    sampler = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return DevicePrefetcher(iter(_loader(dataset, collate, sampler, run.options)), run.device)
