"""Which answers are doubtful: those that score no better than sentences unrelated to the films.

There is always a best moment. A fixed set of unrelated sentences is therefore searched for once in
a state of an index, and their best scores are kept with it: a few films more or less hardly change
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
MAX_CHANGES = 0.1  # of the films, before scores are computed again

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


class State(msgspec.Struct, frozen=True):
    """What the scores of an index depend on.

    Attributes:
        model: SHA-256 of the model; None: its weights are random.
        generation: number of the index's state.
        films: their number.
    """

    model: str | None
    generation: int
    films: int

    def is_near(self, other: Self) -> bool:
        """Return whether the scores of one state hold for the other."""
        changes = max(abs(self.generation - other.generation), abs(self.films - other.films))
        return self.model == other.model and changes <= MAX_CHANGES * self.films


class _ScoredState(State, frozen=True):
    """A state, and the best score of each sentence in it."""

    scores: dict[str, Finite]


class UnrelatedScores:
    """Best scores of :data:`UNRELATED` in a state of an index.

    Args:
        folder: of the index, where they are kept; None: they are kept in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._known: _ScoredState | None = None

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
            best_scores: returns the best score of each sentence; called if those of no similar
                state are known.
        """
        known = self._known
        if known is None or not state.is_near(known):
            known = self._read()
        if known is None or not state.is_near(known):
            scores = dict(zip(UNRELATED, best_scores(UNRELATED), strict=True))
            known = _ScoredState(state.model, state.generation, state.films, scores)
            self._write(known)
        self._known = known
        return float(np.percentile(list(known.scores.values()), percentile))

    def _read(self) -> _ScoredState | None:
        if self._path is None or not self._path.is_file():
            return None
        try:
            known: _ScoredState = read_json(self._path, _ScoredState)
        except UserError:
            return None  # damaged: they are computed again
        return known if tuple(known.scores) == UNRELATED else None

    def _write(self, known: _ScoredState) -> None:
        if self._path is None:
            return
        try:
            write_json(self._path, msgspec.structs.asdict(known), indent=1)
        except OSError as error:  # the index may be read-only: every process computes them
            LOGGER.info("%s cannot be kept (%s)", self._path, error.strerror)
