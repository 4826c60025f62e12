"""The SQLite database of an index: films, segments, spoken lines and their full text."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.records import Film, Maker, NewFilm, Segment
from utils.errors import UserError

FORMAT = 1
BUSY_SECONDS = 30.0  # to wait while a writer commits
KEPT_SECONDS = 3600.0  # for the spoken lines of a film that was replaced

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


class IndexDatabase:
    """The SQL of an index; threads take turns.

    A film has a new revision each time it is put; segments and lines belong to revisions, so that
    readers of an older state still find its lines. Changes need a :meth:`transaction`.

    Args:
        path: of the database, or ":memory:".
        read_only: refuse changes, except to roll back those of a killed writer.
    """

    def __init__(self, path: Path | str, read_only: bool) -> None:
        self._path = str(path)
        mode = "rw" if read_only else "rwc"
        name = path if path == ":memory:" else f"{Path(path).absolute().as_uri()}?mode={mode}"
        with _errors_translated(self._path):
            self._connection = sqlite3.connect(
                name, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
            )
            if read_only:
                self._connection.execute("PRAGMA query_only = 1")
        self._lock = threading.RLock()
        # The connection is part of a cycle, its cache of statements: it would stay open for long.
        weakref.finalize(self, self._connection.close)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _run(self, statement: str, *values: Any) -> list[tuple]:
        with self._lock, _errors_translated(self._path):
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Change all or nothing in the block, and read one state."""
        with self._lock:
            self._run("BEGIN")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error, UserError, OSError):
                    self._run("ROLLBACK")
                raise

    def create(self, maker: Maker, frames: str) -> None:
        """Create tables, if there are none; ``frames`` is the name of the file of frames."""
        if self._run("SELECT 1 FROM sqlite_master WHERE name = 'facts'"):
            return
        with self.transaction():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._run(statement)
            self.set_facts(format=FORMAT, maker=asdict(maker), frames=frames)
            self.set_facts(rows=0, generation=0, revision=0)

    def facts(self) -> dict[str, Any]:
        """Return what is known of the whole index.

        Raises:
            UserError: the index has another format.
        """
        facts = {name: json.loads(v) for name, v in self._run("SELECT name, value FROM facts")}
        if facts.get("format") != FORMAT:
            raise UserError(f"{self._path} is of another version; make the index again")
        return facts

    def set_facts(self, **facts: Any) -> None:
        """Set JSON values."""
        for name, value in facts.items():
            self._run("REPLACE INTO facts VALUES (?, ?)", name, json.dumps(value))

    def begin_generation(self, **facts: Any) -> None:
        """Number the state that this transaction leads to, and set facts of it."""
        self._increment("generation")
        self.set_facts(**facts)

    def _increment(self, fact: str) -> int:
        ((value,),) = self._run("SELECT value FROM facts WHERE name = ?", fact)
        self.set_facts(**{fact: int(value) + 1})
        return int(value) + 1

    def films(self) -> tuple[list[Film], dict[int, int]]:
        """Return the films, and {id of a film: its revision}."""
        films, revisions = [], {}
        for id_, name, file, *rest, revision in self._run(
            "SELECT id, name, file, seconds, note, source, revision FROM films ORDER BY id"
        ):
            path = None if file is None else Path(os.fsdecode(file))
            films.append(Film(id_, os.fsdecode(name), path, *rest))
            revisions[id_] = revision
        return films, revisions

    def segments(self) -> list[Segment]:
        """Return the segments in the order of films, then of time."""
        rows = self._run(
            "SELECT films.id, first_row, rows, first_frame"
            " FROM segments JOIN films USING (revision) ORDER BY films.id, first_frame"
        )
        return [Segment(*row) for row in rows]

    def lines(self, revision: int) -> list[tuple[float, float, str]]:
        """Return start, end and text of the lines of a revision, by start."""
        return self._run(
            "SELECT start, stop, text FROM lines WHERE revision = ? ORDER BY start, id", revision
        )

    def match(self, query: str, limit: int) -> list[tuple]:
        """Return (revision, start, end, text, negative BM25) of the lines that match best."""
        return self._run(
            "SELECT revision, start, stop, lines.text, bm25(spoken) AS score FROM spoken"
            " JOIN lines ON lines.id = spoken.rowid WHERE spoken MATCH ?"
            " ORDER BY score, lines.id LIMIT ?",
            *(query, limit),
        )

    def put(self, film: NewFilm, first_row: int) -> int:
        """Add a film, or replace that of its name; return the row after its last."""
        name = os.fsencode(film.name)
        self._retire(name)
        revision = self._increment("revision")
        self._run(
            "INSERT INTO films (name, file, seconds, note, source, revision)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET file = excluded.file,"
            " seconds = excluded.seconds, note = excluded.note, source = excluded.source,"
            " revision = excluded.revision",
            *(name, _encode(film.file), film.seconds, film.note, film.source, revision),
        )
        for first_frame, values in film.segments:
            segment = (revision, first_row, len(values), first_frame)
            self._run("INSERT INTO segments VALUES (?, ?, ?, ?)", *segment)
            first_row += len(values)
        for line in film.lines:
            text = line.text.encode("utf-8", "replace").decode()
            self._run(
                "INSERT INTO lines (revision, start, stop, text) VALUES (?, ?, ?, ?)",
                *(revision, float(line.start), float(line.end), text),
            )
        self._run(
            "INSERT INTO spoken (rowid, text) SELECT id, text FROM lines WHERE revision = ?",
            revision,
        )
        return first_row

    def _retire(self, name: bytes) -> None:
        """Delete a film's segments, and its lines from the full text, but not yet the lines."""
        for (revision,) in self._run("SELECT revision FROM films WHERE name = ?", name):
            self._run(
                "INSERT INTO spoken (spoken, rowid, text)"
                " SELECT 'delete', id, text FROM lines WHERE revision = ?",
                revision,
            )
            self._run("DELETE FROM segments WHERE revision = ?", revision)
            self._run("INSERT INTO replaced VALUES (?, ?)", revision, time.time())

    def remove(self, name: str) -> None:
        """Remove a film, if it is there."""
        self._retire(os.fsencode(name))
        self._run("DELETE FROM films WHERE name = ?", os.fsencode(name))

    def move(self, files: Mapping[str, Path | None]) -> None:
        """Set the paths of films, by name."""
        for name, file in files.items():
            self._run("UPDATE films SET file = ? WHERE name = ?", _encode(file), os.fsencode(name))

    def repack(self) -> None:
        """Number rows without holes, in the order of :meth:`segments`, and delete old lines."""
        row = 0
        _, revisions = self.films()
        for segment in self.segments():
            self._run(
                "UPDATE segments SET first_row = ? WHERE revision = ? AND first_frame = ?",
                *(row, revisions[segment.film], segment.first_frame),
            )
            row += segment.rows
        oldest = time.time() - KEPT_SECONDS
        old = "SELECT revision FROM replaced WHERE time <= ?"
        self._run(f"DELETE FROM lines WHERE revision IN ({old})", oldest)
        self._run("DELETE FROM replaced WHERE time <= ?", oldest)


def _encode(path: Path | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


@contextlib.contextmanager
def _errors_translated(path: str) -> Iterator[None]:
    """Raise errors of SQLite as those of the operating system, or a user's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = _ERRORS.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF)
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
