"""The index of a search: a folder that one process writes while others read it.

<index>/index.sqlite      what made the index, films, segments, spoken lines and their full text
<index>/frames-<n>.f16    (rows, H) float16, frame embeddings, segment after segment
<index>/index.lock        held by the process that writes

The frames of a film are on the disk before the transaction that names them, and one transaction
holds all of a film: readers, and the next writer after a kill, see the old or the new state.
Readers take no lock and map the frames into memory. A removed film leaves a hole in the frames, and
its lines, until :meth:`IndexWriter.compact`, so that readers of an older state still find it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from search.database import IndexDatabase
from search.records import Film, Line, Maker, NewFilm
from utils.decoding import check
from utils.errors import RecordError, UserError
from utils.files import check_output, named_path, naming, remove_leftovers
from utils.locks import FileLock, HeldError

DATABASE, LOCK = "index.sqlite", "index.lock"
MAX_HOLES = 0.25  # share of the frames, before they are written again
_COPIED_ROWS = 1 << 14  # at once


class Index:
    """A state of an index, to read: :meth:`open` one, or make one of arrays (:class:`IndexArrays`).

    Attributes:
        folder: of the index; None: it is in memory.
        generation: number of the state; increases with every change.
        maker: the model that made it.
        films, segments: by id of the film, then by time.
    """

    def __init__(self, database: IndexDatabase, folder: Path | None) -> None:
        self.folder = folder
        self._database = database
        with database.transaction():
            facts = database.facts()
            self.films, self._revisions = database.films()
            self.segments = database.segments()
        self.generation: int = facts["generation"]
        try:
            self.maker: Maker = check(facts["maker"], Maker)
        except RecordError as error:
            raise UserError(f"{folder}: what made the index is damaged ({error})") from None
        self.rows: int = facts["rows"]
        self.frames_file: str = facts["frames"]
        self._ids = {revision: film for film, revision in self._revisions.items()}
        self._inode = None if folder is None else _inode(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the index in a folder.

        Raises:
            UserError: there is none, it is damaged, or of another version.
        """
        folder = named_path(folder)
        if not (folder / DATABASE).is_file():
            raise UserError(f"{folder} holds no index; make one with index_videos.py")
        inode = _inode(folder)  # before it is opened: the folder may be replaced meanwhile
        database = IndexDatabase(folder / DATABASE, read_only=True)
        while True:
            index = cls(database, folder)
            index._inode = inode
            with contextlib.suppress(FileNotFoundError):  # compacted meanwhile: read again
                _ = index.frames
                return index
            if database.facts()["frames"] == index.frames_file:
                raise UserError(f"{folder / index.frames_file} is missing; make the index again")

    def refresh(self) -> Self:
        """Return this state if it is the newest, else the newest; the folder may be another."""
        if self.folder is None:
            return self
        replaced = self._inode != _inode(self.folder)
        if not replaced and self._database.facts()["generation"] == self.generation:
            return self
        return type(self).open(self.folder)

    @cached_property
    def frames(self) -> np.ndarray:
        """Embeddings (rows, H) float16; rows outside the segments are undefined."""
        shape = (self.rows, self.maker.width)
        if self.folder is None or not self.rows:  # one in memory sets its own
            return np.empty(shape, np.float16)
        path = self.folder / self.frames_file
        if path.stat().st_size < self.rows * self.maker.width * 2:
            raise UserError(f"{path} was cut short; make the index again")
        return np.memmap(path, np.float16, "r", shape=shape)

    @cached_property
    def by_id(self) -> dict[int, Film]:
        """Films by id."""
        return {film.id: film for film in self.films}

    @cached_property
    def by_name(self) -> dict[str, Film]:
        """Films by name."""
        return {film.name: film for film in self.films}

    @cached_property
    def segments_of(self) -> dict[int, list[int]]:
        """Numbers of the segments of each film, by its id."""
        numbers: dict[int, list[int]] = {film.id: [] for film in self.films}
        for number, segment in enumerate(self.segments):
            numbers[segment.film].append(number)
        return numbers

    def lines(self, film: int, start: float = -np.inf, end: float = np.inf) -> list[Line]:
        """Return what is spoken in a film, by start; only what overlaps [start, end)."""
        lines = (Line(*row, film) for row in self._database.lines(self._revisions[film]))
        return [line for line in lines if line.start < end and line.end > start]

    def words(self, film: int, start: float, end: float) -> str:
        """Return what is spoken between two times, on one line."""
        return " ".join(line.text.strip() for line in self.lines(film, start, end))

    def find_words(self, words: Iterable[str], limit: int = 1000) -> list[tuple[Line, float]]:
        """Return lines with any of the words, and their BM25 score (more is better), best first."""
        query = " OR ".join('"{}"'.format(word.replace('"', '""')) for word in words)
        rows = self._database.match(query, limit) if query else []
        return [
            (Line(start, end, text, self._ids[revision]), -score)
            for revision, start, end, text, score in rows
            if revision in self._ids
        ]


class IndexArrays(Index):
    """An index in memory, of films with their embeddings."""

    def __init__(self, maker: Maker, films: Iterable[NewFilm]) -> None:
        database = IndexDatabase(":memory:", read_only=False)
        database.create(maker, "")
        arrays: list[np.ndarray] = [np.empty((0, maker.width), np.float16)]
        rows = 0
        with database.transaction():
            for film in films:
                arrays += film.arrays(maker.width)
                rows = database.put(film, rows)
            database.begin_generation(rows=rows)
        super().__init__(database, None)
        self.frames = np.concatenate(arrays)


class IndexWriter:
    """Writes an index, a new one if the folder does not exist. Use it as a context.

    Raises:
        OSError: it cannot be written.
        UserError: another process writes to it, or another model made it.
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
        """Start from the last commit, and remove what killed processes left."""
        for folder, _, _ in os.walk(self.folder):
            remove_leftovers(Path(folder))
        self._database = IndexDatabase(self.folder / DATABASE, read_only=False)
        self._database.create(self.maker, _frames_name(0))
        state = self.state()
        require_maker(state, self.maker)
        if state.maker != self.maker:  # the same model under another name
            with self._database.transaction():
                extractors = self.maker.extractors or state.maker.extractors
                self.maker = replace(self.maker, extractors=extractors)
                self._database.set_facts(maker=asdict(self.maker))
        _ = state.frames  # UserError if they are cut short
        self._frames = self.folder / state.frames_file
        self._rows = state.rows
        for path in self.folder.glob("frames-*.f16"):
            if path != self._frames:
                path.unlink()
        self._truncate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close and unlock the index."""
        if database := getattr(self, "_database", None):
            database.close()
        self._lock.release()

    def state(self) -> Index:
        """Return the last commit."""
        return Index(self._database, self.folder)

    def put(self, film: NewFilm) -> None:
        """Add a film, or replace that of its name, whose id it takes.

        Raises:
            OSError: the disk is full; the index is as before.
        """
        arrays = film.arrays(self.maker.width)
        try:
            _write_arrays(self._frames, "ab", arrays)
            with self._database.transaction():
                rows = self._database.put(film, self._rows)
                self._database.begin_generation(rows=rows)
        except BaseException:
            with contextlib.suppress(OSError):
                self._truncate()
            raise
        self._rows = rows

    def _truncate(self) -> None:
        """Cut off frames that no film has; no reader has them either."""
        with naming(self._frames), self._frames.open("ab") as file:
            file.truncate(self._rows * self.maker.width * 2)

    def remove(self, names: Iterable[str]) -> None:
        """Remove films, all at once; names that are not in the index are ignored."""
        with self._database.transaction():
            for name in names:
                self._database.remove(name)
            self._database.begin_generation()

    def move(self, files: Mapping[str, Path | None]) -> None:
        """Set the paths of films, by name."""
        with self._database.transaction():
            self._database.move(files)
            self._database.begin_generation()

    def compact(self, max_holes: float = MAX_HOLES) -> bool:
        """Write the frames again, without holes, if holes are more than ``max_holes`` of them.

        Readers keep the file that they have open. Spoken lines that no film of the last hour has
        are deleted too.

        Raises:
            OSError: the disk is full; the index is as before.
        """
        state = self.state()
        used = sum(segment.rows for segment in state.segments)
        if self._rows - used <= max_holes * self._rows:
            return False
        number = int(self._frames.stem.partition("-")[2]) + 1
        path = self.folder / _frames_name(number)
        parts = (
            state.frames[first : min(first + _COPIED_ROWS, segment.first_row + segment.rows)]
            for segment in state.segments
            for first in range(segment.first_row, segment.first_row + segment.rows, _COPIED_ROWS)
        )
        try:
            _write_arrays(path, "wb", parts)
            with self._database.transaction():
                self._database.repack()
                self._database.begin_generation(rows=used, frames=path.name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        old, self._frames, self._rows = self._frames, path, used
        old.unlink()
        return True


def require_maker(index: Index, wanted: Maker) -> None:
    """Refuse an index that another model made.

    Raises:
        UserError: it did.
    """
    if differences := index.maker.differences(wanted):
        raise UserError(
            f"{index.folder or 'the index'} was made with {'; '.join(differences)}: name what it "
            "was made with, or another --index"
        )


def _inode(folder: Path) -> tuple[int, int] | None:
    """Return what identifies the file of an index's database; None if it does not exist."""
    try:
        status = (folder / DATABASE).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _frames_name(number: int) -> str:
    return f"frames-{number}.f16"


def _write_arrays(path: Path, mode: str, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays to a file, and wait until they are on the disk."""
    with naming(path), path.open(mode) as file:
        for values in arrays:
            file.write(np.ascontiguousarray(values).data)
        file.flush()
        os.fsync(file.fileno())
