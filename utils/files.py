"""JSON and JSON-lines files that are either whole or absent."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError


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


def modified(path: Path) -> int:
    """Return when a file was changed last, in nanoseconds.

    A date in the future, which a file may bring from elsewhere, counts as the time when it came
    here: nothing could ever be made from it that is newer.
    """
    known = path.stat()
    return min(known.st_mtime_ns, known.st_ctime_ns)


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing or is no valid JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); was it cut short?") from None


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, record) of a JSON-lines file; blank lines are passed over.

    Raises:
        UserError: the file is missing, or a line is no JSON object (names file and line).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number} is not valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}:{number} is not a JSON object")
            yield number, record


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
