"""Several data sets trained in turn: one is drawn for each optimizer step.

Everything follows from the seed and the number of the step, so all ranks draw alike, and a
restarted run draws what the unbroken one would have drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from data.loader import BatchSampler, ItemKey, Place, RankBatches, SizedDataset

DRAWN_AT_ONCE = 1024  # steps that share a random generator


@dataclass
class Part:
    """One of the data sets."""

    name: str
    dataset: SizedDataset
    weight: float  # chance to be drawn, relative to the others'
    batch_size: int | None = None  # items per batch, None: as the others have


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


class MixedBatches(BatchSampler):
    """Endless batches of one rank; those of one optimizer step come from one part.

    Each part has an order of its own (:class:`data.loader.RankBatches`), which goes on where it
    was when the part was last drawn. A place is the number of steps and every part's place; within
    a step it is that before the step.

    Args:
        parts: the data sets.
        batch_size: items per batch, of parts that have none of their own.
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
        self.names = [part.name for part in parts]
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        self.chances = weights / weights.sum()
        self.samplers = [
            RankBatches(
                len(part.dataset),
                part.batch_size or batch_size,
                rank,
                size,
                part_seed(seed, number),
            )
            for number, part in enumerate(parts)
        ]

    def draw(self, step: int) -> int:
        """The part of a step (they count from 0)."""
        block, number = divmod(step, DRAWN_AT_ONCE)
        rng = np.random.default_rng([self.seed, block])
        return int(rng.choice(len(self.chances), size=DRAWN_AT_ONCE, p=self.chances)[number])

    def batches(self, place: Place) -> Iterator[tuple[list[MixKey], Place]]:
        """See :class:`data.loader.BatchSampler`."""
        done = {name: place.get("parts", {}).get(name, {}) for name in self.names}
        streams = [s.batches(done[name]) for s, name in zip(self.samplers, self.names, strict=True)]
        for step in count(place.get("step", 0)):
            part = self.draw(step)
            before = {"step": step, "parts": done}
            taken = list(islice(streams[part], self.accumulation))
            done = done | {self.names[part]: taken[-1][1]}
            behind = [before] * (self.accumulation - 1) + [{"step": step + 1, "parts": done}]
            for (keys, _), here in zip(taken, behind, strict=True):
                yield [MixKey(part, key) for key in keys], here


def part_seed(seed: int, part: int) -> int:
    """A seed of its own for each part, so that two parts of the same videos differ."""
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0])
