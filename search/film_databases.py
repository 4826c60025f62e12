"""Films whose features lie in a database, as an index reads them."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.annotations import get_spans, get_text
from data.prepare.extraction import read_feature_meta
from data.prepare.problems import Problem, Problems
from data.stores.lmdb_io import FeatureDb, TextDb
from search.indexing import Failure, Material
from search.store import Film, Line
from utils.decoding import decode_json
from utils.errors import RecordError, UserError
from utils.files import modified


class _Known(msgspec.Struct, frozen=True):
    """What a film of the index was made from: states of the databases, and a hash of the rest."""

    databases: str
    sha256: str


@dataclass
class FilmDatabases:
    """The films of a feature database (:class:`search.indexing.FilmSource`).

    Args:
        features: the database.
        subtitles: what is spoken; None: nothing is known of that.
        problems: where what is wrong is noted.
        paths: {film: its file}, as far as they are there.
    """

    features: FeatureDb
    subtitles: TextDb | None
    problems: Problems
    paths: Mapping[str, Path]

    def __post_init__(self) -> None:
        self.place = str(self.features.path)
        self.files = {vid: self.paths.get(vid) for vid in list(self.features.keys())}
        self.extractors: Mapping[str, Mapping[str, Any]] = (
            read_feature_meta(self.features.path).extraction or {}
        )
        places = [db.path for db in (self.features, self.subtitles) if db is not None]
        stamps = [[str(path.absolute()), *sorted(map(modified, path.iterdir()))] for path in places]
        self._state = hashlib.sha256(repr(stamps).encode()).hexdigest()

    @property
    def silent(self) -> list[str]:
        """Films that the subtitle database lacks."""
        return [] if self.subtitles is None else [v for v in self.files if v not in self.subtitles]

    def may_be_there(self, name: str) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        return False

    def is_same(self, film: Film) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        try:
            known = decode_json(film.source, _Known)
        except RecordError:
            return False
        if known.databases == self._state:
            return True
        try:
            return known.sha256 == _hash(*self._content(film.name))
        except (UserError, RecordError):
            return False

    def read(self, names: Sequence[str]) -> Iterator[Material | Failure]:
        """See :class:`search.indexing.FilmSource`."""
        for name in names:
            try:
                features, lines = self._content(name)
            except (UserError, RecordError) as error:
                self.fail(name, str(error))
                yield Failure(name)
                continue
            yield Material(
                name=name,
                features=features,
                lines=lines,
                seconds=len(features) * self.features.interval,
                file=self.files[name],
                source=msgspec.json.encode(_Known(self._state, _hash(features, lines))).decode(),
            )

    def _content(self, name: str) -> tuple[np.ndarray, list[Line]]:
        """Features and lines of a film.

        Raises:
            RecordError: its lines are malformed.
            UserError: a record is damaged, or it has no frames.
        """
        features = self.features[name].astype(np.float32, copy=False)
        if not len(features):
            raise UserError("it has no frames")
        if self.subtitles is None or name not in self.subtitles:
            return features, []
        record = self.subtitles[name]
        spans = get_spans(record)
        texts = [html.unescape(get_text(line, "text")).strip() for line in record["sub"]]
        lines = [Line(*span, text) for span, text in zip(spans, texts, strict=True)]
        return features, sorted(lines, key=lambda line: line.start)

    def fail(self, name: str, reason: str) -> None:
        """See :class:`search.indexing.FilmSource`."""
        self.problems.note(name, Problem(reason))

    def drop_gone(self) -> None:
        """See :class:`search.indexing.FilmSource`: nothing is kept."""


def _hash(features: np.ndarray, lines: Sequence[Line]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(features).data)
    digest.update(repr([(line.start, line.end, line.text) for line in lines]).encode())
    return digest.hexdigest()
