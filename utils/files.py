"""JSON and JSON-lines files that are either whole or absent."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from utils.decoding import DamagedError, decode_json
from utils.errors import RecordError, UserError

MAX_JSON_BYTES = 1 << 30  # the largest there are, results of a whole split, have 0.15 GB
MAX_LINE_BYTES = 256 << 20


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place once the block has succeeded.

    The content reaches the disk before the rename, so a kill or a power cut at any instant leaves
    either the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | Path, kind: Any = Any) -> Any:
    """Return the value of a JSON file, of type ``kind`` (see :mod:`utils.decoding`).

    Raises:
        UserError: the file is missing, too large, no valid JSON, or holds something else.
    """
    data = read_bytes(path, MAX_JSON_BYTES)
    try:
        return decode_json(data, kind)
    except DamagedError as error:
        raise UserError(f"{path} is not valid JSON ({error}); was it cut short?") from None
    except RecordError as error:
        raise UserError(f"{path}: {error}; mend the file, or make it again") from None


def read_bytes(path: str | Path, limit: int) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: it is missing, cannot be read, or has more than ``limit`` bytes.
    """
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > limit or len(data := file.read(limit + 1)) > limit:
            raise UserError(f"{path} has more than {limit >> 20} MiB: it is no such file")
        return data


@contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to read; UserError if that, or reading, fails."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file; blank ones are passed over.

    A byte order mark in front is no part of the text.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, or a line is endless.
    """
    with _open(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES)
            if not line:
                return
            if len(line) == MAX_LINE_BYTES:
                raise UserError(f"{path}:{number} is longer than {MAX_LINE_BYTES >> 20} MiB")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number} is no UTF-8 text ({error.reason}, byte {error.start}); "
                    "convert it"
                ) from None
            if text.strip():
                yield number, text


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, record) of a JSON-lines file; blank lines are passed over.

    Raises:
        UserError: the file cannot be read, or a line is no JSON object (names file and line).
    """
    for number, text in text_lines(path):
        try:
            yield number, decode_json(text, dict)
        except RecordError as error:
            raise UserError(f"{path}:{number} is not a JSON object: {error}") from None


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
