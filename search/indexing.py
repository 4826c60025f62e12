"""From films to an index: what is new or changed is encoded, what is gone goes.

Where films and their features come from is a :class:`FilmSource`'s affair (search/film_sources.py).
A film is in the index, whole, as soon as it is encoded, so that whatever ends the work ends it
between two films.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from search.records import Film, Line, NewFilm
from search.scorer import Scorer, lines_within
from search.store import IndexWriter
from utils.errors import UserError, brief

SEGMENTS_AT_ONCE = 16  # that are encoded together


@dataclass(frozen=True)
class Material:
    """What a film is encoded from.

    Attributes:
        name: of the film in the index.
        features: (T, D) float32.
        lines: what is spoken, by its start.
        seconds: how long the film is.
        file: where it lies; None if it came from a database.
        note: what is wrong with it, though it can be used.
        source: what :meth:`FilmSource.is_same` knows it by.
    """

    name: str
    features: np.ndarray
    lines: Sequence[Line]
    seconds: float
    file: Path | None = None
    note: str | None = None
    source: str = ""


@dataclass(frozen=True)
class Failure:
    """A film that cannot be used; the source has noted why."""

    name: str


class FilmSource(Protocol):
    """Where films come from.

    Attributes:
        place: for messages.
        files: {name: where the film lies} of all films that there are; None: in a database.
        extractors: what made, or makes, the features; {} where that is not known.
    """

    place: str
    extractors: Mapping[str, Mapping[str, Any]]

    @property
    def files(self) -> Mapping[str, Path | None]: ...

    def may_be_there(self, name: str) -> bool:
        """Return whether a film that is not among ``files`` may be there, though nobody can tell:
        then what the index has of it stays."""

    def is_same(self, film: Film) -> bool:
        """Return whether a film of the index would become the same again."""

    def read(self, names: Sequence[str]) -> Iterator[Material | Failure]:
        """Read films, in any order, each as soon as it is there."""

    def fail(self, name: str, reason: str) -> None:
        """Note why a film cannot be used."""

    def drop_gone(self) -> None:
        """Drop what is kept of films that are gone."""


@dataclass
class Summary:
    """How many films an update put in, left as they were, took out, and could not use."""

    made: int = 0
    same: int = 0
    gone: int = 0
    failed: int = 0


def cut_segments(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """(first frame, end) of the segments of a film, each of at most ``window`` frames.

    Neighbours share ``overlap`` frames at least: the last one is as long as the others, and so
    shares more.
    """
    if frames <= window:
        return [(0, frames)]
    step = window - overlap
    starts = [*range(0, frames - window, step), frames - window]
    return [(start, start + window) for start in starts]


def encode_film(scorer: Scorer, material: Material) -> NewFilm:
    """Return a film as the index takes it.

    Raises:
        UserError: its features cannot be used.
    """
    interval, features = scorer.maker.interval, material.features
    segments = []
    for start, end in cut_segments(len(features), scorer.window, scorer.overlap):
        spoken = lines_within(material.lines, start * interval, end * interval)
        segments.append((features[start:end], spoken))
    encoded: list[np.ndarray] = []
    for at in range(0, len(segments), SEGMENTS_AT_ONCE):
        encoded += scorer.encode_segments(segments[at : at + SEGMENTS_AT_ONCE])
    firsts = (start for start, _ in cut_segments(len(features), scorer.window, scorer.overlap))
    return NewFilm(
        name=material.name,
        seconds=material.seconds,
        segments=list(zip(firsts, encoded, strict=True)),
        lines=material.lines,
        file=material.file,
        note=material.note,
        source=material.source,
    )


def update_index(
    writer: IndexWriter, scorer: Scorer, source: FilmSource, prune: bool = False
) -> Iterator[Summary]:
    """Bring an index up to date with the films that there are.

    Args:
        writer: of the index.
        scorer: the model.
        source: of the films.
        prune: also if more than half of the index's films are gone.

    Yields:
        How far it is, after every film; at last, when all is done.

    Raises:
        OSError: the disk is full; films that are in the index stay.
        UserError: more than half of the films are gone.
    """
    there = writer.state().by_name
    gone = [name for name in there if name not in source.files and not source.may_be_there(name)]
    if not prune:
        _require_half(source, there, gone)
    same = {name for name in source.files if name in there and source.is_same(there[name])}
    if gone:
        writer.remove(gone)
        source.drop_gone()
    moved = {name: file for name in same if (file := source.files[name]) != there[name].file}
    if moved:
        writer.move(moved)
    summary = Summary(same=len(same), gone=len(gone))
    yield summary
    for found in source.read([name for name in source.files if name not in same]):
        if isinstance(found, Failure) or not _put(writer, scorer, source, found):
            summary.failed += 1
            if found.name in there:  # it was another film
                writer.remove([found.name])
        else:
            summary.made += 1
        yield summary
    writer.compact()


def _put(writer: IndexWriter, scorer: Scorer, source: FilmSource, material: Material) -> bool:
    """Put a film into the index; whether it could be encoded."""
    try:
        film = encode_film(scorer, material)
    except UserError as error:
        source.fail(material.name, str(error))
        return False
    writer.put(film)
    return True


def _require_half(source: FilmSource, there: Iterable[str], gone: Sequence[str]) -> None:
    """Refuse to take out more than half of the films: the folder may be another, or not mounted.

    Raises:
        UserError: so many would go.
    """
    total = len(list(there))
    if 2 * len(gone) > total:
        raise UserError(
            f"{len(gone)} of the {total} films of the index are gone from {source.place}, such as "
            f"{brief(gone[0])}: is it the right one, and mounted? --prune takes them out all the "
            "same"
        )


def require_width(scorer: Scorer, extractors: Mapping[str, int], width: int) -> None:
    """Refuse features that the model cannot read.

    Args:
        scorer: the model.
        extractors: {extractor: width}, or what is known of them.
        width: of the features.

    Raises:
        UserError: they are of another width than the model's.
    """
    if scorer.feature_width not in (None, width):
        which = " + ".join(f"{name} {size}" for name, size in extractors.items())
        raise UserError(
            f"the model reads features of {scorer.feature_width} values a frame, these have {width}"
            + (f" ({which})" if which else "")
            + ": take the extractors whose features it learnt from"
        )
