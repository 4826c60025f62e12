"""Files that are written completely or not at all; JSON and JSON lines."""

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

MAX_JSON_BYTES = 1 << 30  # the largest, results of a split, have 0.15 GB
MAX_LINE_BYTES = 256 << 20
# Names of temporary files: the start of the file's name, which may hold line feeds.
LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_KEPT_OF_NAME = 50
_RUST = re.compile(r"\(os error (\d+)\)")
_PROBE_BYTES = 1 << 20  # to test whether a disk is full

_swept: set[Path] = set()  # folders in which this process has removed leftovers


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` once the block has succeeded.

    The content is on disk before the rename: a kill or a power cut at any instant leaves either the
    old file or the new one. Temporary files of killed processes in the folder are removed.

    Raises:
        OSError: the file cannot be written; the error names ``path``, also if a library raised it.
        UserError: ``path`` is something other than a file.
    """
    path = Path(path)
    with naming(path):
        _require_no_device(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_leftovers(path.parent)
        with _temporary_next_to(path) as temporary:
            with naming(path, temporary):
                yield temporary
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
            temporary.replace(path)


@contextmanager
def _temporary_next_to(path: Path) -> Iterator[Path]:
    """Yield an empty file that is locked while its writer lives, and removed in the end."""
    while True:
        unique = f"{os.getpid()}.{secrets.token_hex(4)}"
        temporary = path.with_name(f".{path.name[:_KEPT_OF_NAME]}.{unique}.tmp")
        with temporary.open("x") as file:
            if not lock_file(file, temporary):
                continue  # another process removed it as a leftover
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
            return


def remove_leftovers(folder: Path, names: re.Pattern = LEFTOVER) -> None:
    """Delete the temporary files of dead processes in a folder, which may be missing."""
    for path in folder.glob(".*.tmp"):
        if names.fullmatch(path.name) and path.is_file():
            # It stays if it is another user's or on a file system without locks.
            with suppress(OSError), path.open("r+") as file:
                if lock_file(file, path):
                    path.unlink()


@contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
    """Make errors of the operating system in the block name ``path``.

    Args:
        path: known to the user.
        written: temporary file or folder that is written instead. For a library's own error it is
            tested whether the disk is full.
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
    """Return the operating system's error (errno) behind a library's, if there is one.

    Rust's libraries name it; for others, try to extend the file, or the largest of a folder.
    """
    if named := _RUST.search(str(error)):
        return int(named[1])
    files = [path for path in written.rglob("*") if path.is_file()] or [written / ".probe"]
    size = {path: path.stat().st_size if path.exists() else 0 for path in files}
    largest = written if written.is_file() else max(files, key=size.__getitem__)
    try:
        with largest.open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as refusal:
        return refusal.errno
    return None


def check_output(*paths: str | Path) -> None:
    """Check that files can be written, before the work that produces them; create nothing.

    For a folder that will be made, pass a file in it.

    Raises:
        OSError: a name is too long, a folder is in a file's place or a file in a folder's,
            permission or space is missing.
        UserError: one of them is a device, or an empty name.
    """
    for path in map(named_path, paths):
        folder = _deepest_folder(path.absolute())
        if path.is_dir():
            raise _os_error(errno.EISDIR, path)
        _require_no_device(path)
        before = folder.stat()
        with (
            naming(path, folder),
            _temporary_next_to(folder / path.name) as probe,
            probe.open("wb") as file,
        ):
            file.write(bytes(_PROBE_BYTES >> 8))
            os.fsync(file.fileno())
        with suppress(OSError):  # to others the folder must not look changed
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def named_path(path: str | Path) -> Path:
    """Return a path from the command line.

    Raises:
        UserError: it is empty, as from an unset variable.
    """
    if path == "":
        raise UserError("the name of an output is empty: was a variable not set?")
    return Path(path)


def _deepest_folder(path: Path) -> Path:
    """Return the deepest existing parent folder of ``path``, if those below it can be made."""
    folder = Path(path.anchor)
    for parent in reversed(path.parents):
        if parent.is_dir():
            folder = parent
        elif os.path.lexists(parent):
            raise _os_error(errno.ENOTDIR, parent)
    for name in path.relative_to(folder).parts:
        with suppress(FileNotFoundError):
            os.lstat(folder / name)  # fails if the name is too long
    return folder


def _require_no_device(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no file: it would be replaced by one; name another output")


def modified(path: Path) -> int:
    """Return when a file was last changed, in nanoseconds.

    For a date in the future, which a copied file may have, this is the time of the copy: nothing
    made from the file could be newer.
    """
    stat = path.stat()
    return min(stat.st_mtime_ns, stat.st_ctime_ns)


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
    """Open a file for reading; UserError if opening or reading fails."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a named pipe, which is then empty."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file, without blank lines.

    A byte order mark at the start is not part of the text.

    Raises:
        UserError: the file cannot be read, is no UTF-8 text, or a line is too long.
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
    """Return the number of lines, blank ones included, and of bytes of a file.

    Raises:
        UserError: it cannot be read, or a line is too long.
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
    """Yield (line number from 1, record) of a JSON-lines file, without blank lines.

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
