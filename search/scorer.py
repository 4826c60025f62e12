"""The interface of models to search with: one class for HERO, one for image–text models.

A scorer encodes films as frame embeddings and sentences as queries, and finds candidates for a
sentence among all frames. The engine does the rest: overlapping moments, doubt, times, words.

Letters: N queries · S segments of all films · T frames of a segment · D width of features · H width
of frame embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from data.prepare.extraction import Provenance
    from model.extractors.extractor import FeatureExtractor
    from search.records import Line, Maker
    from search.scan import Corpus


@dataclass(frozen=True)
class Queries:
    """Encoded sentences; a subclass may hold more.

    Attributes:
        sentences: as they were typed.
        vectors: (N, H) float32, which are compared with frames.
    """

    sentences: tuple[str, ...]
    vectors: Tensor


@dataclass(frozen=True)
class Candidates:
    """Moments found for one sentence, best first, which may overlap; arrays (n,).

    Attributes:
        segment: its number in the index's list of segments.
        first, last: frames within the segment, both inclusive.
        scores: ≥ 0, comparable between all sentences and films of an index; higher is better.
    """

    segment: np.ndarray
    first: np.ndarray
    last: np.ndarray
    scores: np.ndarray


class Scorer(Protocol):
    """A model to search with.

    Attributes:
        maker: of an index of this model, without extractors.
        feature_width: D of the features that :meth:`encode_segments` reads; None: any.
        window: most frames of a segment; a longer film is cut into several.
        overlap: frames that consecutive segments share at least.
        label: names the model in every answer, where it is not HERO.
    """

    window: int
    overlap: int

    @property
    def maker(self) -> Maker: ...

    @property
    def feature_width(self) -> int | None: ...

    @property
    def label(self) -> str: ...

    def encode_segments(
        self, segments: Sequence[tuple[np.ndarray, Sequence[Line]]]
    ) -> list[np.ndarray]:
        """Return the frame embeddings (T, H) float16 of each segment.

        Args:
            segments: features (T, D) float32, and spoken lines by start, with times from the
                segment's first frame (see :func:`lines_within`).

        Raises:
            UserError: they are not finite in half precision.
        """

    def encode_queries(self, sentences: Sequence[str]) -> Queries:
        """Encode sentences, none of which is empty."""

    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """Return the best ``count`` candidates of each query, exact over all frames."""

    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """Return (N, T) how well each frame of a segment fits each query."""


@runtime_checkable
class OwnFeatures(Protocol):
    """A scorer whose own network extracts its features."""

    def extraction(self, half: bool = False) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        """Return the extractor, and {extractor: provenance}."""


def lines_within(lines: Sequence[Line], start: float, end: float) -> list[Line]:
    """Return the lines between two times of a film, in seconds from the first of them; a line that
    extends beyond keeps its length."""
    return [
        replace(line, start=line.start - start, end=line.end - start)
        for line in lines
        if line.start < end and line.end > start
    ]
