"""Several data sets trained in turn: one is drawn for each optimizer step.

Everything follows from the seed and the number of the step, so all ranks draw alike, and a
restarted run draws what the unbroken one would have drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from data.loader import EvenBatches, ItemKey, RankBatches, SizedDataset

DRAWN_AT_ONCE = 1024  # steps: a restart counts the draws before it without making each alone


@dataclass
class Part:
    """One of the data sets."""

    name: str
    dataset: SizedDataset
    weight: float  # chance to be drawn, relative to the others'


class MixKey(NamedTuple):
    """Which part, and which of its items."""

    part: int
    item: ItemKey


class TaskMix:
    """Data sets as one, whose items are asked for by :class:`MixKey`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part.dataset) for part in self.parts)

    def __getitem__(self, key: MixKey) -> Any:
        return self.parts[key.part].dataset[key.item]


class MixedBatches(EvenBatches):
    """Endless batches of one rank; those of one optimizer step come from one part.

    Each part has an order of its own (:class:`data.loader.RankBatches`), which goes on where it
    was when the part was last drawn.

    Args:
        parts: the data sets.
        batch_size: items per batch.
        accumulation: batches per optimizer step.
        rank, size: of the ranks.
        seed: of the draws and orders.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        batch_size: int,
        accumulation: int = 1,
        rank: int = 0,
        size: int = 1,
        seed: int = 0,
    ) -> None:
        self.batch_size, self.size, self.seed = batch_size, size, seed
        self.accumulation = accumulation
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        self.chances = weights / weights.sum()
        self.samplers = [
            RankBatches(len(part.dataset), batch_size, rank, size, part_seed(seed, number))
            for number, part in enumerate(parts)
        ]

    def draws(self, block: int) -> np.ndarray:
        """Parts drawn for the steps block · 1024 … block · 1024 + 1023 (steps count from 0)."""
        rng = np.random.default_rng([self.seed, block])
        return rng.choice(len(self.chances), size=DRAWN_AT_ONCE, p=self.chances)

    def drawn_before(self, step: int) -> np.ndarray:
        """How often each part was drawn in the steps 0 … step − 1."""
        counts = np.zeros(len(self.chances), dtype=np.int64)
        blocks, rest = divmod(step, DRAWN_AT_ONCE)
        for block in range(blocks + 1):
            drawn = self.draws(block)[: None if block < blocks else rest]
            counts += np.bincount(drawn, minlength=len(counts))
        return counts

    def __iter__(self) -> Iterator[list[MixKey]]:
        first = self.start // self.accumulation
        for sampler, drawn in zip(self.samplers, self.drawn_before(first), strict=True):
            sampler.start = int(drawn) * self.accumulation
        streams = [iter(sampler) for sampler in self.samplers]
        for part in self._parts_from(first):
            for _ in range(self.accumulation):
                yield [MixKey(part, key) for key in next(streams[part])]

    def _parts_from(self, step: int) -> Iterator[int]:
        block, done = divmod(step, DRAWN_AT_ONCE)
        for number in count(block):
            yield from self.draws(number)[done:].tolist()
            done = 0


def part_seed(seed: int, part: int) -> int:
    """A seed of its own for each part, so that two parts of the same videos differ."""
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0])
