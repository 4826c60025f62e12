"""Annotation files: JSON lines; errors name file and line."""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, TypeVar

from utils.decoding import decode_json
from utils.errors import RecordError, UserError, brief
from utils.files import read_json, text_lines

Result = TypeVar("Result")

_CONVERT = "convert it with scripts/convert_annotations.py"
_BY_HAND = "write one JSON object a line (scripts/prepro_query.py --help has the fields)"
_CSV_SPAN = re.compile(r"\[[\d.]+:[\d.]+\]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a JSON-lines file, without its end."""

    path: str
    number: int
    text: str

    def read(self, reader: Callable[[dict], Result]) -> Result:
        """Return ``reader`` of the parsed line; UserError if it is no JSON object, or ``reader``
        raised RecordError."""
        try:
            return reader(decode_json(self.text, dict))
        except RecordError as error:
            raise self.error(error) from None

    def error(self, reason: object) -> UserError:
        """Return a UserError that names this line."""
        return UserError(f"{self.path}:{self.number}: {reason}; fix or remove the line")


def read_lines(path: str | Path) -> Iterator[Line]:
    """Yield the lines of an annotation file that are not blank; UserError if it is missing, has no
    lines, or is no UTF-8 text."""
    empty = True
    for number, text in text_lines(path):
        empty = False
        yield Line(str(path), number, text)
    if empty:
        raise UserError(f"{path} holds no annotations; was it cut short?")


def published_form(path: str | Path) -> str | None:
    """Return the format of a file that is no JSON lines, and how to convert it; None: unknown."""
    try:
        document = read_json(path)
    except UserError:
        return _csv_form(path)
    values = document.values() if isinstance(document, dict) else ()
    if not all(isinstance(value, dict | list) for value in values):
        return None  # JSON lines, one line
    entries = document if isinstance(document, list) else list(document.values())
    names = entries[0].keys() if entries and isinstance(entries[0], dict) else set()
    if {"times", "description"} <= names:
        return f"is DiDeMo as published, one JSON document: {_CONVERT} --task didemo"
    known = {
        "MSR-VTT as published, ": isinstance(document, dict) and "sentences" in document,
        "TVQA+ as published, ": {"qid", "bbox"} <= names,
        "VIOLIN as published, ": "statement" in names,
    }
    what = next((name for name, matches in known.items() if matches), "")
    return f"is {what}one JSON document, not JSON lines; no converter takes it: {_BY_HAND}"


def _csv_form(path: str | Path) -> str | None:
    first = next((text for _, text in text_lines(path)), "{")
    if first.lstrip().startswith(("{", "[")) or "," not in first:
        return None
    task = {4: "how2r", 7: "how2qa"}.get(len(next(csv.reader([first]))))
    if task and _CSV_SPAN.search(first):
        return f"is a CSV file such as {task} is published in: {_CONVERT} --task {task}"
    return f"is a CSV file, not JSON lines; no converter takes it: {_BY_HAND}"


class UniqueIds:
    """The ids of a file's lines."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def claim(self, id_: str, line: Line) -> None:
        """Add an id; UserError (names both lines) if another line has it."""
        if id_ in self._lines:
            raise line.error(f"the id {id_!r} was used in line {self._lines[id_]} already")
        self._lines[id_] = line.number


def get_text(raw: dict, *names: str) -> str:
    """Return the first of these fields that is not null; RecordError if it is no text."""
    value = next((raw[name] for name in names if raw.get(name) is not None), None)
    if not isinstance(value, str):
        raise RecordError(f"{' or '.join(names)} must be a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"{' or '.join(names)} holds half a character ({error})") from None
    return value


def is_seconds(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a possible time in a video."""
    # bool is an int. NaN and infinity fail the comparison.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def is_span(value: object) -> bool:
    """Return whether ``value`` is [start, end] in seconds."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_seconds, value))


def get_spans(raw: dict) -> list[tuple[float, float]]:
    """Return (start, end) of the subtitles ``sub`` in seconds; RecordError if one is malformed."""
    subtitles = raw.get("sub")
    if not isinstance(subtitles, list) or not all(isinstance(sub, dict) for sub in subtitles):
        raise RecordError("sub must be a list of {text, start, end}")
    spans = [(sub.get("start"), sub.get("end")) for sub in subtitles]
    for span in spans:
        if not is_span(list(span)):
            raise RecordError(f"start and end of a subtitle must be seconds, not {brief(span)}")
    return spans


def subtitles_in_order(raw: dict) -> dict:
    """Return the line with its subtitles ``sub`` sorted by start (stable); RecordError as
    :func:`get_spans`."""
    get_spans(raw)
    return {**raw, "sub": sorted(raw["sub"], key=lambda subtitle: subtitle["start"])}
