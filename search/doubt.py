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

UNRELATED = tuple(Path(__file__).with_name("unrelated.txt").read_text("utf-8").splitlines())


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
        """Return the score below which a moment is doubtful: a percentile of the unrelated
        sentences' best scores, which are computed if those of no similar state are known."""
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
