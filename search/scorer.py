"""What a model must do to be searched with: one class for HERO, one for an image–text model.

A scorer turns films into frame embeddings (the index keeps them in half precision) and sentences
into queries, and finds candidates for a sentence among all frames. What follows — one moment seen
from two windows, doubt, times, spoken words, answers — is the engine's and the same for all.

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
    """Sentences, encoded. A scorer may keep more than this in a subclass.

    Attributes:
        sentences: as they were typed.
        vectors: (N, H) float32, what is compared with frames.
    """

    sentences: tuple[str, ...]
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.sentences)


@dataclass(frozen=True)
class Candidates:
    """Moments found for one sentence, best first, overlapping ones among them; arrays (n,).

    Attributes:
        segment: place in the index's list of segments.
        first, last: frames within the segment, both inclusive.
        scores: comparable between all sentences and films of an index; higher is better, not
            negative.
    """

    segment: np.ndarray
    first: np.ndarray
    last: np.ndarray
    scores: np.ndarray


class Scorer(Protocol):
    """A model to search with.

    Attributes:
        maker: what an index must have been made by.
        feature_width: D of the features that :meth:`encode_segments` takes; None: any.
        window: most frames that are encoded together; a longer film is cut into segments.
        overlap: frames that two segments of a film have in common.
        label: what answers are by, where not by HERO; said with every answer.
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
            segments: features (T, D) float32, and what is spoken: times in seconds from the
                segment's first frame, by their start (see :func:`lines_within`).

        Raises:
            UserError: they are not finite in half precision.
        """

    def encode_queries(self, sentences: Sequence[str]) -> Queries:
        """Encode sentences; each has a letter at least.

        Raises:
            UserError: one is no text.
        """

    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """Return the best ``count`` candidates of each query, exact over all frames."""

    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """Return (N, T) how well each frame of a segment fits each query."""


@runtime_checkable
class OwnFeatures(Protocol):
    """A scorer that brings the network of its features along."""

    def extraction(self, half: bool = False) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        """Return what makes the features of films, and how they are described."""


def lines_within(lines: Sequence[Line], start: float, end: float) -> list[Line]:
    """Return what is spoken between two times of a film, in seconds from the first of them; a line
    that begins before it or ends after it keeps its length."""
    return [
        replace(line, start=line.start - start, end=line.end - start)
        for line in lines
        if line.start < end and line.end > start
    ]
