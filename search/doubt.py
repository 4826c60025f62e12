"""When nothing was found: what sentences that fit no film in particular score on the same index.

A best moment there always is. It says something only where its score is above what unrelated
sentences reach, so those of a fixed set are searched for once in a state of an index, and their
best scores kept beside it; a few films more or less do not change them much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from utils.decoding import Finite
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.logger import LOGGER

FILE = "unrelated.json"  # in the index's folder
PERCENTILE = 90.0
MOST_CHANGES = 0.1  # of the films, before scores are computed again

UNRELATED = (
    "The central bank left its interest rate unchanged this quarter.",
    "A prime number has exactly two divisors.",
    "The treaty was ratified by all but three of the member states.",
    "Sodium chloride dissolves in water but not in oil.",
    "The library catalogue lists each title under its author.",
    "Shareholders approved the merger at the annual meeting.",
    "The comet returns to the inner solar system every seventy-six years.",
    "An astronaut repairs the antenna outside the space station.",
    "A submarine surfaces among the ice floes at dawn.",
    "Two knights in armour ride across a drawbridge.",
    "A sculptor polishes a block of white marble.",
    "The volcano throws ash high above the island.",
    "A camel caravan crosses the dunes at noon.",
    "A judge in a wig reads the verdict to a silent court.",
    "Penguins slide down a slope of snow.",
    "A glassblower turns a glowing vase at the furnace.",
    "A surgeon asks the nurse for a scalpel.",
    "The orchestra tunes before the conductor enters.",
    "A beekeeper lifts a frame out of the hive.",
    "Miners push a wagon of coal along the rails.",
    "A hot-air balloon drifts over the vineyards.",
    "A fencing master parries and touches her pupil.",
    "Sailors haul up the anchor of a tall ship.",
    "A potter shapes a bowl on a spinning wheel.",
    "A tailor measures a customer for a new suit.",
    "Firefighters climb a ladder to the burning attic.",
    "A chess player topples his king and stands up.",
    "A shepherd shears a sheep in the barn.",
    "The telescope dome opens under the stars.",
    "A blacksmith hammers a red-hot horseshoe.",
    "A tightrope walker balances above the square.",
    "Divers find a chest in a sunken ship.",
    "A falcon returns to the glove of its keeper.",
    "An elephant sprays its calf by the river.",
    "Workers paint the cables of a suspension bridge.",
    "A printer inks the letters of an old press.",
    "Snow ploughs clear the mountain pass at night.",
    "A watchmaker sets a tiny wheel with tweezers.",
    "A magician pulls a dove out of a silk scarf.",
    "The referee shows the goalkeeper a red card.",
)


@dataclass(frozen=True)
class State:
    """What scores are of: the model, and how an index was.

    Attributes:
        model: its SHA-256; None: its weights are random.
        generation: number of the index's state.
        films: how many.
    """

    model: str | None
    generation: int
    films: int

    def is_near(self, other: Self) -> bool:
        """Return whether so little lies between two states that scores of one serve for the
        other."""
        apart = max(abs(self.generation - other.generation), abs(self.films - other.films))
        return self.model == other.model and apart <= MOST_CHANGES * self.films


class _Kept(msgspec.Struct):
    model: str | None
    generation: int
    films: int
    scores: dict[str, Finite]


class UnrelatedScores:
    """Best scores of :data:`UNRELATED`, and the state of an index that they were computed in.

    Args:
        folder: of the index, where they are kept; None: it is in memory, and so are they.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._known: tuple[State, np.ndarray] | None = None

    def threshold(
        self,
        state: State,
        percentile: float,
        best_scores: Callable[[Sequence[str]], Sequence[float]],
    ) -> float:
        """Return the score below which a moment is doubtful.

        Args:
            state: of the index.
            percentile: of the unrelated sentences' best scores.
            best_scores: searches for sentences; called where no scores of such a state are known.
        """
        if self._known is None or not state.is_near(self._known[0]):
            self._known = self._read()
        if self._known is None or not state.is_near(self._known[0]):
            scores = np.array(best_scores(UNRELATED), dtype=np.float64)
            self._write(state, scores)
            self._known = state, scores
        return float(np.percentile(self._known[1], percentile))

    def _read(self) -> tuple[State, np.ndarray] | None:
        if self._path is None or not self._path.is_file():
            return None
        try:
            kept = read_json(self._path, _Kept)
        except UserError:
            return None  # damaged: they are computed again
        if tuple(kept.scores) != UNRELATED:
            return None
        state = State(kept.model, kept.generation, kept.films)
        return state, np.array(list(kept.scores.values()))

    def _write(self, state: State, scores: np.ndarray) -> None:
        if self._path is None:
            return
        kept = asdict(state) | {"scores": dict(zip(UNRELATED, scores.tolist(), strict=True))}
        try:
            write_json(self._path, kept, indent=1)
        except OSError as error:  # somebody else's index: the next process computes them again
            LOGGER.info("%s cannot be kept (%s)", self._path, error.strerror)
