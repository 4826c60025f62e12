"""Training on several data sets: one is drawn for each optimizer step.

The draws depend on the seed and the step alone: all ranks draw alike, and so does a restarted run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np

from data.loader import BatchSampler, ItemKey, RankBatches, SamplerState, SizedDataset

DRAWN_AT_ONCE = 1024  # steps that share a random generator


@dataclass
class Part:
    """One of the data sets."""

    name: str
    dataset: SizedDataset
    weight: float  # probability to be drawn, relative to the others'
    batch_size: int | None = None  # items per batch; None: the mix's


class MixKey(NamedTuple):
    """A part, and one of its items."""

    part: int
    item: ItemKey


class TaskMix:
    """The concatenation of data sets, indexed by :class:`MixKey`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part.dataset) for part in self.parts)

    def __getitem__(self, key: MixKey) -> Any:
        return self.parts[key.part].dataset[key.item]


class MixedBatches(BatchSampler):
    """Endless batches of one rank; those of one optimizer step come from one part.

    Each part has its own order (:class:`data.loader.RankBatches`), which resumes each time the part
    is drawn. The state is the number of steps and every part's state, before the current step.

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
        self.samplers = []
        for number, part in enumerate(parts):
            own = part.batch_size or batch_size, rank, size, part_seed(seed, number)
            self.samplers.append(RankBatches(len(part.dataset), *own))

    def draw(self, step: int) -> int:
        """Return the part of a step (from 0)."""
        block, number = divmod(step, DRAWN_AT_ONCE)
        rng = np.random.default_rng([self.seed, block])
        return int(rng.choice(len(self.chances), size=DRAWN_AT_ONCE, p=self.chances)[number])

    def batches(self, state: SamplerState) -> Iterator[tuple[list[MixKey], SamplerState]]:
        """See :class:`data.loader.BatchSampler`."""
        done = {name: state.get("parts", {}).get(name, {}) for name in self.names}
        streams = [s.batches(done[name]) for s, name in zip(self.samplers, self.names, strict=True)]
        for step in count(state.get("step", 0)):
            part = self.draw(step)
            before = {"step": step, "parts": done}
            taken = list(islice(streams[part], self.accumulation))
            done = done | {self.names[part]: taken[-1][1]}
            states = [before] * (self.accumulation - 1) + [{"step": step + 1, "parts": done}]
            for (keys, _), after in zip(taken, states, strict=True):
                yield [MixKey(part, key) for key in keys], after


def part_seed(seed: int, part: int) -> int:
    """Return a part's own seed, so that two parts of the same videos differ."""
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0])
