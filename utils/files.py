"""Files that are either whole or absent; JSON and JSON lines."""

import errno
import itertools
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from utils.decoding import DamagedError, decode_json
from utils.errors import RecordError, UserError
from utils.locks import lock_file

MAX_JSON_BYTES = 1 << 30  # the largest there are, results of a whole split, have 0.15 GB
MAX_LINE_BYTES = 256 << 20
# Names of temporary files, cut so that they are no longer than names may be.
LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp", re.DOTALL)  # names may hold line feeds
_KEPT_OF_NAME = 50
_RUST = re.compile(r"\(os error (\d+)\)")
_PROBE_BYTES = 1 << 20  # of a disk that is said to be full

_swept: set[Path] = set()  # folders that this process has looked for leftovers in


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place once the block has succeeded.

    The content reaches the disk before the rename, so a kill or a power cut at any instant leaves
    either the old file or the new one. What killed processes left in the folder is removed.

    Raises:
        OSError: the file cannot be written, whatever a library made of that; it names ``path``.
        UserError: there is something that is no file.
    """
    path = Path(path)
    with naming(path):
        _require_no_device(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_leftovers(path.parent)
        with _temporary_beside(path) as temporary:
            with naming(path, temporary):
                yield temporary
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
            temporary.replace(path)


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """Give an empty file that is locked, as a sign that its writer lives, and removed at last."""
    while True:
        unique = f"{os.getpid()}.{secrets.token_hex(4)}"
        temporary = path.with_name(f".{path.name[:_KEPT_OF_NAME]}.{unique}.tmp")
        with temporary.open("x") as file:
            if not lock_file(file, temporary):
                continue  # another process took it for a leftover
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
            return


def remove_leftovers(folder: Path, names: re.Pattern = LEFTOVER) -> None:
    """Delete the temporary files of processes that are dead, none of a living one's.

    Args:
        folder: where to look; nothing happens if it is not there.
        names: what temporary files are called.
    """
    for path in folder.glob(".*.tmp"):
        if names.fullmatch(path.name) and path.is_file():
            # Another's, gone meanwhile, or on a file system without locks: then it stays.
            with suppress(OSError), path.open("r+") as file:
                if lock_file(file, path):
                    path.unlink()


@contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
    """Let an error of the operating system in the block name ``path``.

    Args:
        path: what the user knows.
        written: the file or folder that is written in its stead. Libraries have errors of their
            own for a full disk: whether it is one shows when more is written.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename))
        ours = named in (None, path) or (written is not None and named.is_relative_to(written))
        if error.errno is None or not ours:
            raise
        raise _os_error(error.errno, path) from error
    except Exception as error:
        if written is None or (number := _number_behind(error, written)) is None:
            raise
        raise _os_error(number, path) from error


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _number_behind(error: Exception, written: Path) -> int | None:
    """The operating system's error (errno) behind a library's, if there is one.

    Rust's libraries name it; with others it is tried whether the file, or the largest of a folder,
    can grow.
    """
    if said := _RUST.search(str(error)):
        return int(said[1])
    files = [path for path in written.rglob("*") if path.is_file()] or [written / ".probe"]
    largest = written if written.is_file() else max(files, key=_size)
    try:
        with largest.open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as refusal:
        return refusal.errno
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def check_output(*paths: str | Path) -> None:
    """See that files can be written, before the work that fills them.

    Of a folder to be, check a file in it. Nothing is made.

    Raises:
        OSError: one of them cannot: names are too long, a folder is in a file's place or a file in
            a folder's, permission or space is missing.
        UserError: one of them is a device, or empty.
    """
    for path in map(named_path, paths):
        folder = _deepest_folder(path.absolute())
        if path.is_dir():
            raise _os_error(errno.EISDIR, path)
        _require_no_device(path)
        before = folder.stat()
        with (
            naming(path, folder),
            _temporary_beside(folder / path.name) as probe,
            probe.open("wb") as file,
        ):
            file.write(bytes(_PROBE_BYTES >> 8))
            os.fsync(file.fileno())
        with suppress(OSError):  # to look is no change, which others would follow
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def named_path(path: str | Path) -> Path:
    """Return a path that was typed: an empty one, as of a variable that is not set, means nothing.

    Raises:
        UserError: it is empty.
    """
    if path == "":
        raise UserError("the name of an output is empty: was a variable not set?")
    return Path(path)


def _deepest_folder(path: Path) -> Path:
    """The last folder that is there on the way to ``path``, if those below it can be made."""
    folder = Path(path.anchor)
    for place in path.parents[-2::-1] if len(path.parents) > 1 else ():
        if place.is_dir():
            folder = place
        elif os.path.lexists(place):
            raise _os_error(errno.ENOTDIR, place)
    for name in path.relative_to(folder).parts:
        with suppress(FileNotFoundError):
            os.lstat(folder / name)  # says so where the name is too long
    return folder


def _require_no_device(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no file: it would be replaced by one; name another output")


def modified(path: Path) -> int:
    """Return when a file was changed last, in nanoseconds.

    A date in the future, which a file may bring from elsewhere, counts as the time when it came
    here: nothing could ever be made from it that is newer.
    """
    known = path.stat()
    return min(known.st_mtime_ns, known.st_ctime_ns)


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
        raise UserError(f"{path}: {error}; fix the file, or make it again") from None


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
        with open(path, "rb", opener=_open_at_once) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a named pipe, too, without waiting for somebody to write into it: then it is empty."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


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
                raise _long_line(path, number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number} is no UTF-8 text ({error.reason}, byte {error.start}); "
                    "convert it"
                ) from None
            if text.strip():
                yield number, text


def count_lines(path: str | Path) -> tuple[int, int]:
    """Return how many lines, blank ones too, and how many bytes a file has.

    Raises:
        UserError: it cannot be read, or a line is as long as no line is.
    """
    lines = size = end = 0
    with _open(path) as file:
        while block := file.read(1 << 20):
            lines += (ends := block.count(b"\n"))
            size += len(block)
            end = size if ends else end
            if size - end > MAX_LINE_BYTES:
                raise _long_line(path, lines + 1)
    return lines, size


def _long_line(path: str | Path, number: int) -> UserError:
    return UserError(f"{path}:{number} is longer than {MAX_LINE_BYTES >> 20} MiB")


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
