"""Read subtitle files as players do (.srt, .vtt, .ass): spoken lines with times in seconds."""

import html
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data.annotations import is_seconds
from data.prepare.subtitle_encoding import decode_text
from data.prepare.subtitle_events import Event
from data.prepare.subtitle_formats import read_events
from utils.errors import RecordError, UserError, brief
from utils.files import read_bytes

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")  # of their names; the format is that of the content
_MAX_BYTES = 64 << 20  # a film has 0.1 MB
_NO_BREAK_SPACE = re.compile(r"&nbsp;|&#160;|&#xa0;", re.IGNORECASE)
_NO_LETTERS = re.compile(r"[\ufeff\0-\x08\x0e-\x1b\x7f]")
_INVISIBLE = {"Cc", "Cf", "Zl", "Zp", "Zs"}  # categories of characters


@dataclass(frozen=True, slots=True)
class Cue:
    """A spoken line; times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Subtitles:
    """The content of a file."""

    cues: list[Cue]  # by their start
    encoding: str  # of the file
    notes: list[str]  # warnings about the file


def read_subtitles(path: Path, *encodings: str) -> Subtitles:
    """Read a subtitle file: see :func:`parse_subtitles`.

    Raises:
        UserError: it cannot be read, or nothing in it can be used.
    """
    data = read_bytes(path, _MAX_BYTES)
    try:
        return parse_subtitles(data, *encodings)
    except RecordError as error:
        raise UserError(f"{path}: {error}") from None


def parse_subtitles(data: bytes, *encodings: str) -> Subtitles:
    """Return the lines of a subtitle file by their start, without tags and line breaks.

    HTML entities remain: ``scripts/prepro_sub.py`` unescapes them. Each text begins with a space,
    as in the published TV subtitles; that script strips it. A file without subtitles, as speech
    recognition writes of a film without speech, has no lines.

    Args:
        data: the file's content.
        encodings: if it is not UTF-8: see :func:`data.prepare.subtitle_encoding.decode_text`.

    Raises:
        RecordError: nothing in it can be used.
    """
    decoded = decode_text(data, encodings)
    notes = []
    if decoded.encoding != "utf-8":
        notes.append(f"read as {decoded.encoding}" + ("" if encodings else ", which is a guess"))
    if decoded.damaged:
        notes.append(f"{decoded.damaged} characters are damaged")
    text = _with_line_feeds(decoded.text)
    if not text.strip() and len(data) > len(text) and b"\0" in data:
        raise RecordError("it holds zero bytes only: its content is lost; copy it again")
    events = list(read_events(text)) if text.strip() else []
    problems = [f"line {event.line}: {problem}" for event in events if (problem := _problem(event))]
    cues = list(filter(None, map(_to_cue, events)))
    if problems and not cues:
        raise RecordError(f"{problems[0]}; fix it")
    if problems:
        notes.append(f"{len(problems)} subtitles are left out, the first in {problems[0]}")
    if not cues:
        what = "times, but no text" if events else "no subtitles"
        notes.append(f"it holds {what}: nothing is said in its video")
    return Subtitles(sorted(cues, key=lambda cue: cue.start), decoded.encoding, notes)


def _with_line_feeds(text: str) -> str:
    """End lines with a line feed; remove byte-order marks (of joined files) and controls."""
    if 2 * text.count("\r\r\n") > text.count("\n"):
        text = text.replace("\r\r\n", "\n")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _NO_LETTERS.sub("", text)


def _problem(event: Event) -> str | None:
    """Return why an event cannot be used."""
    if event.times is None:
        return f"{brief(event.source.strip())} cannot be read"
    start, end = event.times
    if end < start:
        return "it ends before it starts"
    if end < 0 or not is_seconds(end):
        return f"no video has a time of {end} seconds"
    return None


def _to_cue(event: Event) -> Cue | None:
    """Return the cue of an event; None where nothing is visible."""
    text = " ".join(_NO_BREAK_SPACE.sub(" ", event.text).split())
    if event.times is None or _problem(event) or not _is_visible(text):
        return None
    start, end = event.times
    return Cue(f" {text}", max(start, 0.0), end)


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(letter) not in _INVISIBLE for letter in html.unescape(text))
