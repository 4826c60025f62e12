"""Bring an index up to date: encode new and changed films, remove deleted ones.

A film is committed, whole, as soon as it is encoded, so that a kill costs one film at most. The
films come from a :class:`FilmSource`: a folder (film_folder.py) or databases (film_databases.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from search.records import Film, NewFilm
from search.scorer import Scorer, lines_within
from search.store import IndexWriter
from utils.errors import UserError, brief

SEGMENTS_AT_ONCE = 16  # that are encoded together


@dataclass(frozen=True)
class Material:
    """A film to be encoded: a record without segments, and its features (T, D) float32."""

    film: NewFilm
    features: np.ndarray


class FilmSource(ABC):
    """Where films come from.

    Attributes:
        path: of the folder or database, for messages.
        files: {name: file} of all films; None: the film is in a database.
    """

    path: str
    files: Mapping[str, Path | None]

    @abstractmethod
    def is_unchanged(self, film: Film) -> bool:
        """Return whether a film of the index would be encoded to the same again."""

    @abstractmethod
    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Material | None]]:
        """Yield films, in any order, each as soon as it is ready; None for one that cannot be
        used, after its problem was noted."""

    @abstractmethod
    def fail(self, name: str, reason: str) -> None:
        """Note why a film cannot be used."""

    def may_exist(self, name: str) -> bool:
        """Return whether a film that is not among ``files`` may exist, though it cannot be read:
        then it stays in the index."""
        return False

    def prune(self) -> None:  # noqa: B027  most sources cache nothing
        """Delete what is cached of films that no longer exist."""


@dataclass
class Summary:
    """Numbers of films that an update added or replaced, left, removed, and could not use."""

    added: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0


def cut_segments(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return (first frame, end) of the segments of a film, each of at most ``window`` frames.

    Neighbours share ``overlap`` frames at least: the last one is as long as the others, and so
    shares more.
    """
    if frames <= window:
        return [(0, frames)]
    starts = [*range(0, frames - window, window - overlap), frames - window]
    return [(start, start + window) for start in starts]


def encode_film(scorer: Scorer, material: Material) -> NewFilm:
    """Return a film with the embeddings of its segments.

    Raises:
        UserError: its features cannot be used.
    """
    interval, features, lines = scorer.maker.interval, material.features, material.film.lines
    cuts = cut_segments(len(features), scorer.window, scorer.overlap)
    segments = [
        (features[start:end], lines_within(lines, start * interval, end * interval))
        for start, end in cuts
    ]
    encoded: list[np.ndarray] = []
    for at in range(0, len(segments), SEGMENTS_AT_ONCE):
        encoded += scorer.encode_segments(segments[at : at + SEGMENTS_AT_ONCE])
    starts = (start for start, _ in cuts)
    return replace(material.film, segments=list(zip(starts, encoded, strict=True)))


def update_index(
    writer: IndexWriter, scorer: Scorer, source: FilmSource, prune: bool = False
) -> Iterator[Summary]:
    """Bring an index up to date with the films of a source.

    Yields:
        The counts so far, after every film; the work is done when the iterator ends.

    Raises:
        OSError: the disk is full; films that are in the index stay.
        UserError: more than half of the films no longer exist, without ``prune``.
    """
    known = writer.state().by_name
    missing = [name for name in known if name not in source.files and not source.may_exist(name)]
    if 2 * len(missing) > len(known) and not prune:  # another folder, or not mounted?
        raise UserError(
            f"{len(missing)} of the {len(known)} films of the index are gone from {source.path}, "
            f"such as {brief(missing[0])}: is it the right one, and mounted? --prune takes them "
            "out all the same"
        )
    unchanged = {
        name for name in source.files if name in known and source.is_unchanged(known[name])
    }
    if missing:
        writer.remove(missing)
        source.prune()
    moved = {name for name in unchanged if source.files[name] != known[name].file}
    if moved:
        writer.move({name: source.files[name] for name in moved})
    summary = Summary(unchanged=len(unchanged), removed=len(missing))
    yield summary
    for name, material in source.read([each for each in source.files if each not in unchanged]):
        if material is not None and _put(writer, scorer, source, material):
            summary.added += 1
        else:
            summary.failed += 1
            if name in known:  # the film that is there is no longer that of the file
                writer.remove([name])
        yield summary
    writer.compact()


def _put(writer: IndexWriter, scorer: Scorer, source: FilmSource, material: Material) -> bool:
    """Encode a film and put it into the index; return whether it could be encoded."""
    try:
        film = encode_film(scorer, material)
    except UserError as error:
        source.fail(material.film.name, str(error))
        return False
    writer.put(film)
    return True


def require_width(scorer: Scorer, width: int, extractors: Mapping[str, int] | None = None) -> None:
    """Refuse features of a width that the model cannot read; {extractor: width} explains it.

    Raises:
        UserError: the model reads another width.
    """
    if scorer.feature_width not in (None, width):
        parts = " + ".join(f"{name} {size}" for name, size in (extractors or {}).items())
        raise UserError(
            f"the model reads features of {scorer.feature_width} values a frame, these have {width}"
            + (f" ({parts})" if parts else "")
            + ": take the extractors whose features it learnt from"
        )
