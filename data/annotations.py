"""Annotation files: JSON lines whose mistakes are named by file and line."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from utils.errors import RecordError, UserError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a JSON-lines file, without its end."""

    path: str
    number: int
    text: str

    def read(self, reader: Callable[[dict], Result]) -> Result:
        """``reader`` of the parsed line.

        Raises:
            UserError: no JSON object, or ``reader`` raised RecordError (names file and line).
        """
        try:
            raw = json.loads(self.text)
            if not isinstance(raw, dict):
                raise RecordError("it is no JSON object")
            return reader(raw)
        except (json.JSONDecodeError, RecordError) as error:
            raise self.error(error) from None

    def error(self, reason: object) -> UserError:
        """A UserError that names this line."""
        return UserError(f"{self.path}:{self.number}: {reason}; mend or remove the line")


def read_lines(path: str | Path) -> Iterator[Line]:
    """The lines of an annotation file; blank ones are passed over.

    Raises:
        UserError: the file is missing, holds nothing, or is no UTF-8 text.
    """
    empty = True
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):
                if text.strip():
                    empty = False
                    yield Line(str(path), number, text.rstrip("\r\n"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error}); convert it") from None
    if empty:
        raise UserError(f"{path} holds no annotations; was it cut short?")


class UniqueIds:
    """Tells which line took an id first."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def claim(self, id_: str, line: Line) -> None:
        """Raise UserError (names both lines) if the id is taken."""
        if id_ in self._lines:
            raise line.error(f"the id {id_!r} was used in line {self._lines[id_]} already")
        self._lines[id_] = line.number


def get_text(raw: dict, *names: str) -> str:
    """The first of these fields that is there; RecordError if none is a text."""
    value = next((raw[name] for name in names if raw.get(name) is not None), None)
    if not isinstance(value, str):
        raise RecordError(f"{' or '.join(names)} must be a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"{' or '.join(names)} holds half a character ({error})") from None
    return value


def is_seconds(value: object) -> bool:
    """Whether ``value`` is a time that can be one of a video."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e6  # neither NaN nor infinity is


def is_span(value: object) -> bool:
    """Whether ``value`` is [start, end] in seconds."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_seconds, value))


def get_spans(raw: dict) -> list[tuple[float, float]]:
    """(start, end) of the subtitles ``sub`` in seconds; RecordError if one is malformed."""
    subtitles = raw.get("sub")
    if not isinstance(subtitles, list) or not all(isinstance(sub, dict) for sub in subtitles):
        raise RecordError("sub must be a list of {text, start, end}")
    spans = [(sub.get("start"), sub.get("end")) for sub in subtitles]
    for span in spans:
        if not is_span(list(span)):
            raise RecordError(f"start and end of a subtitle must be seconds, not {span}")
    return spans
