"""Films whose features are in a database, as an index reads them."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from data.annotations import get_spans, get_text
from data.prepare.extraction import read_feature_meta
from data.prepare.problems import Problem, Problems
from data.stores.lmdb_io import FeatureDb, TextDb
from search.indexing import FilmSource, Material
from search.records import Film, Line, NewFilm
from utils.decoding import decode_json
from utils.errors import RecordError, UserError
from utils.files import modified


class _Source(msgspec.Struct, frozen=True):
    """Hashes of the databases' states, and of the features and lines of a film of the index."""

    databases: str
    sha256: str


class FilmDatabases(FilmSource):
    """The films of a feature database.

    Args:
        features: the database.
        subtitles: of the films; None: without.
        problems: takes the problems of films.
        paths: {film: its file}, as far as they exist.

    Attributes:
        extractors: {extractor: provenance} of the features; {} where it is not known.
    """

    def __init__(
        self,
        features: FeatureDb,
        subtitles: TextDb | None,
        problems: Problems,
        paths: Mapping[str, Path],
    ) -> None:
        self.features, self.subtitles, self.problems = features, subtitles, problems
        self.path = str(features.path)
        self.files = {vid: paths.get(vid) for vid in list(features.keys())}
        self.extractors = read_feature_meta(features.path).extraction or {}
        folders = [db.path for db in (features, subtitles) if db is not None]
        stamps = [
            [str(path.absolute()), *sorted(map(modified, path.iterdir()))] for path in folders
        ]
        self._state = hashlib.sha256(repr(stamps).encode()).hexdigest()

    @property
    def without_subtitles(self) -> list[str]:
        """Films that the subtitle database lacks."""
        return [] if self.subtitles is None else [v for v in self.files if v not in self.subtitles]

    def is_unchanged(self, film: Film) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        try:
            known = decode_json(film.source, _Source)
            if known.databases == self._state:
                return True
            return known.sha256 == _hash(*self._content(film.name))
        except (UserError, RecordError):
            return False

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Material | None]]:
        """See :class:`search.indexing.FilmSource`."""
        for name in names:
            try:
                features, lines = self._content(name)
            except (UserError, RecordError) as error:
                self.fail(name, str(error))
                yield name, None
                continue
            source = msgspec.json.encode(_Source(self._state, _hash(features, lines))).decode()
            seconds = len(features) * self.features.interval
            film = NewFilm(name, seconds, lines=lines, file=self.files[name], source=source)
            yield name, Material(film, features)

    def _content(self, name: str) -> tuple[np.ndarray, list[Line]]:
        """Return features and lines of a film; RecordError or UserError if they are damaged."""
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
        """Note why a film cannot be used."""
        self.problems.note(name, Problem(reason))


def _hash(features: np.ndarray, lines: Sequence[Line]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(features).data)
    digest.update(repr([(line.start, line.end, line.text) for line in lines]).encode())
    return digest.hexdigest()
