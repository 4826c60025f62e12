"""The index of a search: films, the embeddings of their frames, and what is spoken in them.

<index>/index.sqlite      what made the index, films, segments, spoken lines and their full text
<index>/frames-<n>.f16    (rows, width) float16, frame embeddings, segment after segment
<index>/index.lock        held by the one process that writes

SQLite is the one source of truth. The frames of a film are on the disk before the transaction that
names them, and one transaction holds all of a film, so a reader and whoever comes after a kill see
the old or the new state. Readers take no lock and map the frames into memory. What was removed
leaves a hole behind, and spoken lines that nobody names, until :meth:`IndexWriter.compact`: a
reader that still has the state of before finds all of it (lines, for an hour at least).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from utils.decoding import decode_json
from utils.errors import RecordError, UserError, shorten
from utils.files import check_output, named_path, naming, remove_leftovers
from utils.locks import FileLock, HeldError

DATABASE, LOCK = "index.sqlite", "index.lock"
FORMAT = 1
WAIT_SECONDS = 30.0  # for the moment in which a writer commits
MOST_HOLES = 0.25  # of the frames' file, before it is written again
KEPT_SECONDS = 3600.0  # what was spoken in a film that was replaced
_COPIED_ROWS = 1 << 14  # at once
_OWN = "own."  # before the names of facts that others keep

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE films (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE NOT NULL, file BLOB,
    seconds REAL NOT NULL, note TEXT, source TEXT NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE segments (
    revision INTEGER NOT NULL, first_row INTEGER NOT NULL, rows INTEGER NOT NULL,
    first_frame INTEGER NOT NULL, PRIMARY KEY (revision, first_frame)) WITHOUT ROWID;
CREATE TABLE lines (
    id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, start REAL NOT NULL, stop REAL NOT NULL,
    text TEXT NOT NULL);
CREATE INDEX lines_of ON lines (revision, start);
CREATE TABLE replaced (revision INTEGER PRIMARY KEY, time REAL NOT NULL);
CREATE VIRTUAL TABLE spoken USING fts5 (text, content='lines', content_rowid='id');
"""


@dataclass(frozen=True)
class Maker:
    """What an index is made by.

    Attributes:
        kind: "hero", or "clip" for an image–text model.
        model_sha256: of the file of weights; None: they are random.
        interval: seconds that a frame covers.
        width: of a frame's embedding.
        tokenizer: fingerprint of the tokenizer.
        video_only: what is spoken is not encoded with the frames.
        extractors: {name: provenance}, what made the features; {} where that is not known.
        settings: further options that embeddings depend on.
        opened_by: how the model was named, with absolute paths; may change.
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
        """Extractors without trained weights: their features mean nothing."""
        return tuple(
            name for name, made in self.extractors.items() if made.get("weights", "?") is None
        )

    def differences(self, wanted: Maker) -> list[str]:
        """Return how what is wanted differs, of what both know; weights may be renamed, not
        changed."""
        found = []
        for title, own, other in zip(_TITLES, self._compared(), wanted._compared(), strict=True):
            if own != other and own not in (None, {}) and other not in (None, {}):
                found.append(f"{title} {_shown(own)}, not {_shown(other)}")
        return found

    def _compared(self) -> tuple[Any, ...]:
        made = {
            name: {key: value for key, value in entry.items() if key != "weights"}
            for name, entry in self.extractors.items()
        }
        own = (self.kind, self.model_sha256, self.tokenizer, self.interval, self.width)
        return (*own, self.video_only, made, dict(self.settings))


_TITLES = (
    *("a model of kind", "the model of SHA-256", "the tokenizer of fingerprint", "the interval"),
    *("the width", "video_only", "the extractors", "the settings"),
)


def _shown(value: object) -> str:
    return shorten(value, 12) if isinstance(value, str) else shorten(value, 120)


@dataclass(frozen=True)
class Film:
    """A film of the index.

    Attributes:
        id: never changes while the film is in the index, and is never given again.
        name: its path below the folder of films, or its name in a database.
        file: where it lies; None if it came from a database.
        seconds: how long it is.
        note: what is wrong with it, though it could be used.
        source: tells whether it, or its subtitles, have changed.
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
        film: its id.
        first_row: in the index's frames.
        rows: how many.
        first_frame: of the film; frame f covers [f·i, (f+1)·i) seconds.
    """

    film: int
    first_row: int
    rows: int
    first_frame: int


@dataclass(frozen=True)
class Line:
    """What is spoken, and when, in seconds from the film's start; ``film`` is its id."""

    start: float
    end: float
    text: str
    film: int = 0


class Index:
    """A state of an index, to read: :meth:`open` one, or make one of arrays (:class:`IndexArrays`).

    Attributes:
        folder: None: it lies in memory.
        generation: number of the state; grows with every change.
        maker: what made it.
        films: by their id.
        segments: of all films.
        frames: (rows, width) float16; rows that no segment names mean nothing.
        facts: what :meth:`IndexWriter.set_fact` kept.
    """

    def __init__(self, tables: _Tables, folder: Path | None) -> None:
        self.folder = folder
        self._tables = tables
        with tables.transaction():
            facts = tables.facts()
            self.films, self._revisions = tables.films()
            self.segments = tables.segments()
        self.generation: int = facts["generation"]
        self.maker = _as_maker(facts["maker"], folder)
        self.facts = {name[len(_OWN) :]: facts[name] for name in facts if name.startswith(_OWN)}
        self._rows: int = facts["rows"]
        self._frames_file: str = facts["frames"]
        self._ids = {revision: film for film, revision in self._revisions.items()}

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the index in a folder.

        Raises:
            UserError: there is none, it is damaged, or of another version.
        """
        folder = named_path(folder)
        if not (folder / DATABASE).is_file():
            raise UserError(f"{folder} holds no index; make one with index_videos.py")
        tables = _Tables.connect(folder / DATABASE, read_only=True)
        while True:
            index = cls(tables, folder)
            with contextlib.suppress(FileNotFoundError):  # compacted in between: look again
                _ = index.frames
                return index
            if tables.facts()["frames"] == index._frames_file:
                raise UserError(f"{folder / index._frames_file} is missing; make the index again")

    def refresh(self) -> Self:
        """Return this state if it is the newest, else the newest."""
        if self.folder is None or self._tables.facts()["generation"] == self.generation:
            return self
        return type(self).open(self.folder)

    @cached_property
    def frames(self) -> np.ndarray:
        """See the class."""
        shape = (self._rows, self.maker.width)
        if self.folder is None or not self._rows:  # one in memory sets its own
            return np.empty(shape, np.float16)
        path = self.folder / self._frames_file
        if path.stat().st_size < self._rows * self.maker.width * 2:
            raise UserError(f"{path} was cut short; make the index again")
        return np.memmap(path, np.float16, "r", shape=shape)

    @cached_property
    def by_id(self) -> dict[int, Film]:
        """Films by their id."""
        return {film.id: film for film in self.films}

    @cached_property
    def by_name(self) -> dict[str, Film]:
        """Films by their name."""
        return {film.name: film for film in self.films}

    def lines(self, film: int, start: float = -np.inf, end: float = np.inf) -> list[Line]:
        """Return what is spoken in a film, by its start; only what overlaps [start, end)."""
        return [
            Line(*found, film)
            for found in self._tables.lines(self._revisions[film])
            if found[0] < end and found[1] > start
        ]

    def words(self, film: int, start: float, end: float) -> str:
        """Return what is spoken between two times, on one line."""
        return " ".join(line.text.strip() for line in self.lines(film, start, end))

    def find_words(self, words: Iterable[str], limit: int = 1000) -> list[tuple[Line, float]]:
        """Return lines with any of the words, and their BM25 score (more is better), best first."""
        wanted = " OR ".join('"{}"'.format(word.replace('"', '""')) for word in words)
        found = self._tables.match(wanted, limit) if wanted else []
        return [
            (Line(start, end, text, self._ids[revision]), -score)
            for revision, start, end, text, score in found
            if revision in self._ids
        ]


class IndexArrays(Index):
    """An index in memory, of arrays.

    Args:
        maker: what made the embeddings.
        films: name, file, segments (first frame, (T, width) float16), lines, seconds of each.
    """

    def __init__(self, maker: Maker, films: Iterable[NewFilm]) -> None:
        tables = _Tables.connect(":memory:", read_only=False)
        tables.create(maker, "")
        parts: list[np.ndarray] = [np.empty((0, maker.width), np.float16)]
        rows = 0
        with tables.transaction():
            for film in films:
                arrays = _checked(film, maker.width)
                tables.put(film, _placed(film.segments, rows))
                rows += sum(map(len, arrays))
                parts += arrays
            tables.changed(rows=rows)
        super().__init__(tables, None)
        self.frames = np.concatenate(parts)


@dataclass(frozen=True)
class NewFilm:
    """A film to be put into an index; see :class:`Film` and :class:`Segment`.

    Attributes:
        segments: first frame and embeddings (T, width) float16 of each, by their first frame.
    """

    name: str
    seconds: float
    segments: Sequence[tuple[int, np.ndarray]]
    lines: Sequence[Line] = ()
    file: Path | None = None
    note: str | None = None
    source: str = ""


class IndexWriter:
    """Writes an index; one process at a time. Use it as a context.

    Args:
        folder: made if it is not there.
        maker: of the index; an index by another is refused.

    Raises:
        OSError: it cannot be written.
        UserError: another process writes to it, or it was made otherwise.
    """

    def __init__(self, folder: str | Path, maker: Maker) -> None:
        self.folder = named_path(folder)
        self.maker = maker
        check_output(self.folder / DATABASE)
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire()
        except HeldError as holder:
            raise UserError(f"{self.folder} is being written by {holder}; wait for it") from None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Begin with what was committed last; what killed processes left beside it goes."""
        for folder, _, _ in os.walk(self.folder):
            remove_leftovers(Path(folder))
        self._tables = _Tables.connect(self.folder / DATABASE, read_only=False)
        if self._tables.is_new():
            self._tables.create(self.maker, _frames_name(0))
        state = self.state()
        require_maker(state, self.maker)
        if state.maker != self.maker:  # another name of the same
            with self._tables.transaction():
                kept = self.maker.extractors or state.maker.extractors
                self.maker = dataclasses.replace(self.maker, extractors=kept)
                self._tables.set_facts(maker=dataclasses.asdict(self.maker))
        _ = state.frames if state._rows else None
        self._frames = self.folder / state._frames_file
        self._rows = state._rows
        for path in self.folder.glob("frames-*.f16"):
            if path != self._frames:
                path.unlink()
        self._cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index."""
        if tables := getattr(self, "_tables", None):
            tables.close()
        self._lock.release()

    def state(self) -> Index:
        """Return what was committed last."""
        return Index(self._tables, self.folder)

    def put(self, film: NewFilm) -> None:
        """Add a film, or replace that of its name, whose id it takes.

        Raises:
            OSError: the disk is full; the index is as before.
        """
        arrays = _checked(film, self.maker.width)
        added = sum(map(len, arrays))
        try:
            self._append(arrays)
            with self._tables.transaction():
                self._tables.put(film, _placed(film.segments, self._rows))
                self._tables.changed(rows=self._rows + added)
        except BaseException:
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self._rows += added

    def _append(self, arrays: Sequence[np.ndarray]) -> None:
        with naming(self._frames), self._frames.open("ab") as file:
            for values in arrays:
                file.write(np.ascontiguousarray(values).data)
            file.flush()
            os.fsync(file.fileno())

    def _cut(self) -> None:
        """Cut off frames that nothing names; readers have none of them."""
        with naming(self._frames), self._frames.open("ab") as file:
            file.truncate(self._rows * self.maker.width * 2)

    def remove(self, names: Iterable[str]) -> None:
        """Take films out, all at once; names that are not in it are passed over."""
        with self._tables.transaction():
            for name in names:
                self._tables.remove(name)
            self._tables.changed()

    def move(self, files: Mapping[str, Path | None]) -> None:
        """Note where films lie now, by their name."""
        with self._tables.transaction():
            self._tables.move(files)
            self._tables.changed()

    def set_fact(self, name: str, value: Any) -> None:
        """Keep a JSON value in the index, in :attr:`Index.facts`."""
        with self._tables.transaction():
            self._tables.set_facts(**{_OWN + name: value})
            self._tables.changed()

    def compact(self, most_holes: float = MOST_HOLES) -> bool:
        """Write the frames again, without holes, if more of them than ``most_holes`` are holes.

        Readers keep the file that they have. What was spoken in films that were replaced more than
        :data:`KEPT_SECONDS` ago goes too.

        Raises:
            OSError: the disk is full; the index is as before.
        """
        state = self.state()
        used = sum(segment.rows for segment in state.segments)
        if self._rows - used <= most_holes * self._rows:
            return False
        number = int(self._frames.stem.partition("-")[2]) + 1
        path = self.folder / _frames_name(number)
        try:
            self._copy(state, path)
            with self._tables.transaction():
                self._tables.repack()
                self._tables.changed(rows=used, frames=path.name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        old, self._frames, self._rows = self._frames, path, used
        old.unlink()
        return True

    def _copy(self, state: Index, path: Path) -> None:
        with naming(path), path.open("wb") as file:
            for segment in state.segments:
                for at in range(0, segment.rows, _COPIED_ROWS):
                    first = segment.first_row + at
                    stop = segment.first_row + min(segment.rows, at + _COPIED_ROWS)
                    file.write(state.frames[first:stop].tobytes())
            file.flush()
            os.fsync(file.fileno())


def require_maker(index: Index, wanted: Maker) -> None:
    """Refuse an index that was made otherwise.

    Raises:
        UserError: it was.
    """
    if differences := index.maker.differences(wanted):
        raise UserError(
            f"{index.folder or 'the index'} was made with {'; '.join(differences)}: name what it "
            "was made with, or another --index"
        )


def _frames_name(number: int) -> str:
    return f"frames-{number}.f16"


def _checked(film: NewFilm, width: int) -> list[np.ndarray]:
    """The embeddings of a film's segments; ValueError if they are no such thing."""
    arrays = [np.asarray(values) for _, values in film.segments]
    for values in arrays:
        if values.dtype != np.float16 or values.ndim != 2 or values.shape[1] != width:
            raise ValueError(f"{film.name}: embeddings {values.shape} {values.dtype}")
        if not len(values):
            raise ValueError(f"{film.name}: a segment without frames")
    return arrays


def _placed(segments: Sequence[tuple[int, np.ndarray]], row: int) -> Iterator[tuple[int, int, int]]:
    """First row, rows, and first frame of segments that lie one after the other from ``row``."""
    for first_frame, values in segments:
        yield row, len(values), first_frame
        row += len(values)


def _as_maker(value: dict[str, Any], folder: Path | None) -> Maker:
    try:
        return decode_json(json.dumps(value), Maker)
    except RecordError as error:
        raise UserError(f"{folder}: what made the index is damaged ({error})") from None


class _Tables:
    """The SQL of an index; threads take turns.

    Args:
        connection: to the database.
        path: for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._turn = threading.RLock()
        # A connection is part of a cycle, its cache of statements: it would stay open for long.
        weakref.finalize(self, connection.close)

    @classmethod
    def connect(cls, path: Path | str, read_only: bool) -> Self:
        """Open a database; whoever reads only may still roll back what a killed writer left."""
        mode = "rw" if read_only else "rwc"
        name = path if path == ":memory:" else f"{Path(path).absolute().as_uri()}?mode={mode}"
        with _errors_named(str(path)):
            connection = sqlite3.connect(
                name, WAIT_SECONDS, isolation_level=None, check_same_thread=False, uri=True
            )
            if read_only:
                connection.execute("PRAGMA query_only = 1")
        return cls(connection, str(path))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _run(self, statement: str, *values: Any) -> list[tuple]:
        with self._turn, _errors_named(self._path):
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block, or nothing; what is read in it is of one state."""
        with self._turn:
            self._run("BEGIN")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error, UserError, OSError):
                    self._run("ROLLBACK")
                raise

    def is_new(self) -> bool:
        """Return whether there is nothing yet."""
        return not self._run("SELECT 1 FROM sqlite_master WHERE name = 'facts'")

    def create(self, maker: Maker, frames: str) -> None:
        """Make the tables of an empty index."""
        with self.transaction():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._run(statement)
            self.set_facts(format=FORMAT, maker=dataclasses.asdict(maker), frames=frames)
            self.set_facts(rows=0, generation=0, revision=0)

    def facts(self) -> dict[str, Any]:
        """Return what is kept as JSON, of this version of the index."""
        facts = {name: json.loads(v) for name, v in self._run("SELECT name, value FROM facts")}
        if facts.get("format") != FORMAT:
            raise UserError(f"{self._path} is of another version; make the index again")
        return facts

    def set_facts(self, **facts: Any) -> None:
        """Keep JSON values."""
        for name, value in facts.items():
            self._run("REPLACE INTO facts VALUES (?, ?)", name, json.dumps(value))

    def _number(self, fact: str) -> int:
        ((value,),) = self._run("SELECT value FROM facts WHERE name = ?", fact)
        return int(value)

    def changed(self, **facts: Any) -> None:
        """Count a new state, with these facts."""
        self.set_facts(generation=self._number("generation") + 1, **facts)

    def films(self) -> tuple[list[Film], dict[int, int]]:
        """Films, and {film: its revision}."""
        films, revisions = [], {}
        columns = "id, name, file, seconds, note, source, revision"
        for id_, name, file, *rest, revision in self._run(
            f"SELECT {columns} FROM films ORDER BY id"
        ):
            path = None if file is None else Path(os.fsdecode(file))
            films.append(Film(id_, os.fsdecode(name), path, *rest))
            revisions[id_] = revision
        return films, revisions

    def segments(self) -> list[Segment]:
        """Segments in the order of films, then of time."""
        found = self._run(
            "SELECT films.id, first_row, rows, first_frame"
            " FROM segments JOIN films USING (revision) ORDER BY films.id, first_frame"
        )
        return [Segment(*row) for row in found]

    def lines(self, revision: int) -> list[tuple[float, float, str]]:
        """Lines of a revision of a film."""
        return self._run(
            "SELECT start, stop, text FROM lines WHERE revision = ? ORDER BY start, id", revision
        )

    def match(self, wanted: str, limit: int) -> list[tuple]:
        """(revision, start, end, text, negative BM25) of the lines that match best."""
        return self._run(
            "SELECT revision, start, stop, lines.text, bm25(spoken) AS score FROM spoken"
            " JOIN lines ON lines.id = spoken.rowid WHERE spoken MATCH ?"
            " ORDER BY score, lines.id LIMIT ?",
            *(wanted, limit),
        )

    def put(self, film: NewFilm, segments: Iterable[tuple[int, int, int]]) -> None:
        """Add a film, or replace that of its name."""
        name = os.fsencode(film.name)
        self._retire(name)
        revision = self._number("revision") + 1
        self.set_facts(revision=revision)
        file = None if film.file is None else os.fsencode(film.file)
        self._run(
            "INSERT INTO films (name, file, seconds, note, source, revision)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET file = excluded.file,"
            " seconds = excluded.seconds, note = excluded.note, source = excluded.source,"
            " revision = excluded.revision",
            *(name, file, film.seconds, film.note, film.source, revision),
        )
        for segment in segments:
            self._run("INSERT INTO segments VALUES (?, ?, ?, ?)", revision, *segment)
        for line in film.lines:
            text = line.text.encode("utf-8", "replace").decode()
            times = (float(line.start), float(line.end))
            self._run(
                "INSERT INTO lines (revision, start, stop, text) VALUES (?, ?, ?, ?)",
                *(revision, *times, text),
            )
        self._run(
            "INSERT INTO spoken (rowid, text) SELECT id, text FROM lines WHERE revision = ?",
            revision,
        )

    def _retire(self, name: bytes) -> None:
        """No longer find what is spoken in a film, nor its frames; who has them keeps them."""
        for (revision,) in self._run("SELECT revision FROM films WHERE name = ?", name):
            self._run(
                "INSERT INTO spoken (spoken, rowid, text)"
                " SELECT 'delete', id, text FROM lines WHERE revision = ?",
                revision,
            )
            self._run("DELETE FROM segments WHERE revision = ?", revision)
            self._run("INSERT INTO replaced VALUES (?, ?)", revision, time.time())

    def remove(self, name: str) -> None:
        """Take a film out."""
        self._retire(os.fsencode(name))
        self._run("DELETE FROM films WHERE name = ?", os.fsencode(name))

    def move(self, files: Mapping[str, Path | None]) -> None:
        """Set where films lie."""
        for name, file in files.items():
            new = None if file is None else os.fsencode(file)
            self._run("UPDATE films SET file = ? WHERE name = ?", new, os.fsencode(name))

    def repack(self) -> None:
        """Number rows again, without holes, in the order of :meth:`segments`."""
        rows = 0
        revisions = self.films()[1]
        for segment in self.segments():
            self._run(
                "UPDATE segments SET first_row = ? WHERE revision = ? AND first_frame = ?",
                *(rows, revisions[segment.film], segment.first_frame),
            )
            rows += segment.rows
        before = time.time() - KEPT_SECONDS
        old = "SELECT revision FROM replaced WHERE time <= ?"
        self._run(f"DELETE FROM lines WHERE revision IN ({old})", before)
        self._run("DELETE FROM replaced WHERE time <= ?", before)


@contextlib.contextmanager
def _errors_named(path: str) -> Iterator[None]:
    """Errors of SQLite as those of the operating system, or a user's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        number = _ERRORS.get(code)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), path) from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        raise UserError(f"{path} is damaged ({error}); make the index again") from None


_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
