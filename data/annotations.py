"""Annotation files: JSON lines whose mistakes are named by file and line."""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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
        """``reader`` of the parsed line.

        Raises:
            UserError: no JSON object, or ``reader`` raised RecordError (names file and line).
        """
        try:
            return reader(decode_json(self.text, dict))
        except RecordError as error:
            raise self.error(error) from None

    def error(self, reason: object) -> UserError:
        """A UserError that names this line."""
        return UserError(f"{self.path}:{self.number}: {reason}; fix or remove the line")


def read_lines(path: str | Path) -> Iterator[Line]:
    """The lines of an annotation file; blank ones are passed over.

    Raises:
        UserError: the file is missing, holds nothing, or is no UTF-8 text.
    """
    empty = True
    for number, text in text_lines(path):
        empty = False
        yield Line(str(path), number, text)
    if empty:
        raise UserError(f"{path} holds no annotations; was it cut short?")


def published_form(path: str | Path) -> str | None:
    """Say what a file is that is no JSON lines, and what reads it; None: it may be JSON lines."""
    try:
        document = read_json(path)
    except UserError:
        return _csv_form(path)
    if isinstance(document, dict) and not all(
        isinstance(v, dict | list) for v in document.values()
    ):
        return None  # a file of one line
    entries = document if isinstance(document, list) else list(document.values())
    names = entries[0].keys() if entries and isinstance(entries[0], dict) else set()
    if {"times", "description"} <= names:
        return f"is DiDeMo as published, one JSON document: {_CONVERT} --task didemo"
    known = {
        "MSR-VTT as published, ": isinstance(document, dict) and "sentences" in document,
        "TVQA+ as published, ": {"qid", "bbox"} <= names,
        "VIOLIN as published, ": "statement" in names,
    }
    what = next((name for name, found in known.items() if found), "")
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
    """Return whether ``value`` is a time that can be one of a video."""
    # True and False are no times. NaN and infinity fail the comparison.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def is_span(value: object) -> bool:
    """Return whether ``value`` is [start, end] in seconds."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_seconds, value))


def get_spans(raw: dict) -> list[tuple[float, float]]:
    """(start, end) of the subtitles ``sub`` in seconds; RecordError if one is malformed."""
    subtitles = raw.get("sub")
    if not isinstance(subtitles, list) or not all(isinstance(sub, dict) for sub in subtitles):
        raise RecordError("sub must be a list of {text, start, end}")
    spans = [(sub.get("start"), sub.get("end")) for sub in subtitles]
    for span in spans:
        if not is_span(list(span)):
            raise RecordError(f"start and end of a subtitle must be seconds, not {brief(span)}")
    return spans


def subtitles_in_order(raw: dict) -> dict:
    """The line with its subtitles ``sub`` sorted by start, equals as they stand; RecordError as
    :func:`get_spans`."""
    get_spans(raw)
    return {**raw, "sub": sorted(raw["sub"], key=lambda subtitle: subtitle["start"])}
