"""What an index records: the model it was made with, films, segments and spoken lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import shorten


@dataclass(frozen=True)
class Maker:
    """The model, and the features, that an index was made with.

    Attributes:
        kind: "hero", or "clip" for an image–text model.
        model_sha256: of the file of weights; None: they are random.
        interval: seconds that a frame covers.
        width: H of the frame embeddings.
        tokenizer: fingerprint of the tokenizer.
        video_only: whether frames are encoded without the spoken lines.
        extractors: {extractor: provenance} of the features; {} where it is not known.
        settings: further options that embeddings depend on.
        opened_by: where the model was; that may change.
    """

    kind: str
    model_sha256: str | None
    interval: float
    width: int
    tokenizer: str | None = None
    video_only: bool = False
    extractors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    opened_by: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Extractors without trained weights: their features carry no information."""
        return tuple(
            name for name, made in self.extractors.items() if made.get("weights", "?") is None
        )

    def differences(self, wanted: Maker) -> list[str]:
        """Return in what this differs from ``wanted``, where both are known; a file of weights may
        be renamed, but not changed."""
        unknown: tuple[object, ...] = (None, {})
        return [
            f"{title} {_excerpt(own)}, not {_excerpt(other)}"
            for title, own, other in zip(_TITLES, self._facts(), wanted._facts(), strict=True)
            if own != other and own not in unknown and other not in unknown
        ]

    def _facts(self) -> tuple[Any, ...]:
        extractors = {
            name: {key: value for key, value in entry.items() if key != "weights"}
            for name, entry in self.extractors.items()
        }
        facts = (self.kind, self.model_sha256, self.tokenizer, self.interval, self.width)
        return (*facts, self.video_only, extractors, dict(self.settings))


_TITLES = (
    *("a model of kind", "the model of SHA-256", "the tokenizer of fingerprint", "the interval"),
    *("the width", "video_only", "the extractors", "the settings"),
)


def _excerpt(value: object) -> str:
    return shorten(value, 12 if isinstance(value, str) else 120)


@dataclass(frozen=True)
class Film:
    """A film of the index.

    Attributes:
        id: constant while the film is in the index, and never used again.
        name: its path below the folder of films, or its name in a database.
        file: its path; None if it came from a database.
        seconds: its length.
        note: a defect of the file, though it could be used.
        source: identifies the contents of the film and its subtitles, to detect changes.
    """

    id: int
    name: str
    file: Path | None
    seconds: float
    note: str | None = None
    source: str = ""


@dataclass(frozen=True)
class Segment:
    """Frames of a film that were encoded together; those of a long film overlap.

    Attributes:
        film: id of the film.
        first_row: in the frames of the index.
        rows: their number.
        first_frame: of the film; frame f covers [f·i, (f+1)·i) seconds.
    """

    film: int
    first_row: int
    rows: int
    first_frame: int


@dataclass(frozen=True)
class Line:
    """A spoken line: times in seconds from the film's start, and the film's id."""

    start: float
    end: float
    text: str
    film: int = 0


@dataclass(frozen=True)
class NewFilm:
    """A film to be put into an index; see :class:`Film`.

    Attributes:
        segments: first frame and embeddings (T, H) float16 of each, by first frame.
        lines: what is spoken, by start.
    """

    name: str
    seconds: float
    segments: Sequence[tuple[int, np.ndarray]] = ()
    lines: Sequence[Line] = ()
    file: Path | None = None
    note: str | None = None
    source: str = ""

    def arrays(self, width: int) -> list[np.ndarray]:
        """Return the embeddings of the segments.

        Raises:
            ValueError: they are not (T > 0, ``width``) float16.
        """
        arrays = [np.asarray(values) for _, values in self.segments]
        for values in arrays:
            if values.dtype != np.float16 or values.ndim != 2 or values.shape[1] != width:
                raise ValueError(f"{self.name}: embeddings {values.shape} {values.dtype}")
            if not len(values):
                raise ValueError(f"{self.name}: a segment without frames")
        return arrays
