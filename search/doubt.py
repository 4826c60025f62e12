"""When nothing was found: what sentences that fit no film in particular score on the same index.

A best moment there always is. It says something only where its score is above what unrelated
sentences reach, so those of a fixed set are searched for once in every state of an index, and their
best scores kept beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, read_json
from utils.logger import LOGGER

FILE = "unrelated.json"  # in the index's folder
PERCENTILE = 90.0

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


class UnrelatedScores:
    """Best scores of :data:`UNRELATED`, of the state of an index that they were computed for.

    Args:
        folder: of the index, where they are kept; None: it is in memory, and so are they.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._known: tuple[str, np.ndarray] | None = None

    def threshold(
        self,
        state: str,
        percentile: float,
        best_scores: Callable[[Sequence[str]], Sequence[float]],
    ) -> float:
        """Return the score below which a moment is doubtful.

        Args:
            state: tells one state of the index, and its model, from all others.
            percentile: of the unrelated sentences' best scores.
            best_scores: searches for sentences; called where the state's scores are not known yet.
        """
        state = hashlib.sha256(json.dumps([state, UNRELATED]).encode()).hexdigest()
        if self._known is None or self._known[0] != state:
            scores = self._read(state)
            if scores is None:
                scores = np.array(best_scores(UNRELATED), dtype=np.float64)
                self._write(state, scores)
            self._known = state, scores
        scores = self._known[1]
        return float(np.percentile(scores, percentile)) if len(scores) else 0.0

    def _read(self, state: str) -> np.ndarray | None:
        if self._path is None or not self._path.is_file():
            return None
        try:
            kept = read_json(self._path, dict)
            if kept.get("state") != state:
                return None
            return np.array(list(kept["scores"].values()), dtype=np.float64)
        except (UserError, KeyError, AttributeError, TypeError, ValueError):
            return None  # damaged: computed again

    def _write(self, state: str, scores: np.ndarray) -> None:
        if self._path is None:
            return
        kept = {"state": state, "scores": dict(zip(UNRELATED, scores.tolist()))}
        try:
            with atomic_write(self._path) as temporary:
                temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        except OSError as error:  # somebody else's index: the next process computes them again
            LOGGER.info("%s cannot be kept (%s)", self._path, error.strerror)
