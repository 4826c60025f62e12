"""The words of the synthetic corpus, and their directions in frame features."""

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

RESNET_WIDTH = 2048
SLOWFAST_WIDTH = 2304
_UNITS_PER_WORD = 40  # active units of a word in each extractor


@dataclass(frozen=True)
class Verb:
    """A verb in the forms the sentences need."""

    base: str
    third: str
    gerund: str


PERSONS = ("Ada", "Bruno", "Celia", "Dario", "Elsa", "Felix", "Greta", "Hugo", "Iris", "Jonas")
VERBS = (
    Verb("carry", "carries", "carrying"),
    Verb("clean", "cleans", "cleaning"),
    Verb("count", "counts", "counting"),
    Verb("drop", "drops", "dropping"),
    Verb("fold", "folds", "folding"),
    Verb("hide", "hides", "hiding"),
    Verb("kick", "kicks", "kicking"),
    Verb("lift", "lifts", "lifting"),
    Verb("paint", "paints", "painting"),
    Verb("wash", "washes", "washing"),
)
THINGS = (
    *("basket", "bicycle", "candle", "clock", "guitar", "kettle", "ladder"),
    *("lantern", "letter", "mirror", "pillow", "suitcase", "trumpet", "violin"),
)
PLACES = (
    *("attic", "bakery", "cellar", "garden", "harbour"),
    *("kitchen", "library", "market", "office", "station"),
)
ADJECTIVES = ("blue", "broken", "dusty", "golden", "green", "heavy", "red", "tiny", "wooden")
TOPICS = (
    *("accident", "birthday", "concert", "election", "exam", "holiday"),
    *("lottery", "marathon", "picnic", "robbery", "storm", "wedding"),
)


def stable_hash(text: str) -> int:
    """Return a hash that is the same in every process (``hash`` is not)."""
    return zlib.crc32(text.encode("utf-8"))


@dataclass(frozen=True)
class WordLook:
    """The units of one extractor that a word activates, and their activations."""

    units: np.ndarray  # (K,) int
    strengths: np.ndarray  # (K,) float32


@cache
def word_look(word: str, extractor: str, width: int, seed: int) -> WordLook:
    """Return a word's fixed random direction in the ``width`` units of an extractor."""
    rng = np.random.default_rng([seed, stable_hash(word.lower()), stable_hash(extractor)])
    units = rng.choice(width, _UNITS_PER_WORD, replace=False)
    strengths = rng.uniform(0.5, 1.5, _UNITS_PER_WORD).astype(np.float32)
    return WordLook(units, strengths)
