"""Subtitle files as players read them (.srt, .vtt, .ass): to spoken lines with times in seconds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from utils.errors import UserError, brief, shorten

TIMED_TEXT = (".srt", ".vtt")
SUFFIXES = (*TIMED_TEXT, ".ass", ".ssa")
DEFAULT_ENCODING = "utf-8-sig"  # UTF-8, with a byte-order mark or without

_ARROW = "-->"
_ASS_FIELDS = 10  # of an event: Layer, Start, End, Style, Name, three margins, Effect, Text
# pysubs2 takes a number that ends a subtitle for that of the next one: let there be one.
_NEXT_NUMBER = "\n\n0"
_STAMP = r"(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}"
_TIMES = re.compile(rf"^\s*({_STAMP})\s*-->\s*({_STAMP})(?:\s.*)?$", re.ASCII)
_WORD_TIME = re.compile(rf"<{_STAMP}>")  # of single words, in WebVTT
_OVERRIDE = re.compile(r"\{\\[^}]*\}")  # {\an8}, and <i> as pysubs2 gives it: {\i1}
_COMMENT = re.compile(r"\{[^}]*\}")  # of .ass; elsewhere, braces are text
_SPACE = re.compile(r"\\[Nnh]|&nbsp;|&#160;|&#xa0;", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cue:
    """A spoken line; times in seconds."""

    text: str
    start: float
    end: float


def read_subtitles(path: Path, *encodings: str) -> list[Cue]:
    """The lines of a subtitle file by their start, without tags and line breaks.

    HTML entities stay: ``scripts/prepro_sub.py`` unescapes them. Each text begins with a space, as
    in the published TV subtitles; that script strips it.

    Args:
        path: the file.
        encodings: the first that reads it is taken; none given: :data:`DEFAULT_ENCODING`.

    Raises:
        UserError: the file is no text, holds no subtitles, or one is malformed (names the line).
    """
    text = _read_text(path, encodings or (DEFAULT_ENCODING,))
    if path.suffix.lower() in TIMED_TEXT:
        text = _with_plain_times(path, text)
        if path.suffix.lower() == ".vtt":
            text = _vtt_to_srt(text)
        events = _parse(path, text + _NEXT_NUMBER, "srt")
    else:
        _require_whole_events(path, text)
        events = _parse(path, text, "ass")
        for event in events:
            event.text = _COMMENT.sub("", event.text) if event.is_text else ""
    if not events:
        raise UserError(f"{path} holds no subtitles; was it cut short, or is it of another format?")
    cues = [cue for cue in map(_clean, events) if cue is not None]
    return sorted(cues, key=lambda cue: cue.start)


def _read_text(path: Path, encodings: Sequence[str]) -> str:
    encoding, *others = encodings
    try:
        text = path.read_bytes().decode(encoding)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except LookupError:
        raise UserError(f"--encoding {encoding} is not known; utf-8, cp1252, … are") from None
    except UnicodeError as error:
        if others:
            return _read_text(path, others)
        raise UserError(
            f"{path} is not encoded as {encoding} ({error}); convert it, or name its --encoding "
            "(cp1252, utf-16, …)"
        ) from None
    return "\n".join(text.splitlines())


def _with_plain_times(path: Path, text: str) -> str:
    """All times as 01:02:03,456: pysubs2 takes a line with times that it cannot read for text."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _ARROW not in line:
            continue
        times = _TIMES.match(line)
        where = f"{path}:{number + 1}"
        if times is None:
            raise UserError(f"{where}: {brief(line.strip())} are no times of a subtitle; mend them")
        start, end = map(_milliseconds, times.groups())
        if end < start:
            raise UserError(f"{where}: it ends before it starts; mend the times")
        stamps = map(pysubs2.formats.subrip.SubripFormat.ms_to_timestamp, (start, end))
        lines[number] = f" {_ARROW} ".join(stamps)
    return "\n".join(lines)


def _require_whole_events(path: Path, text: str) -> None:
    """pysubs2 takes an event that lacks fields for one without text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("Dialogue:") and line.count(",") < _ASS_FIELDS - 1:
            raise UserError(f"{path}:{number}: {brief(line)} has too few fields; mend or remove it")


def _milliseconds(stamp: str) -> int:
    seconds = 0.0
    for part in stamp.replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return round(1000 * seconds)


def _vtt_to_srt(text: str) -> str:
    """WebVTT's cues, numbered: no header, notes, styles, names of cues, times of single words."""
    cues = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        first = next((place for place, line in enumerate(lines) if _ARROW in line), None)
        if first is not None:
            cues += [_NEXT_NUMBER, *(_WORD_TIME.sub("", line) for line in lines[first:])]
    return "\n".join(cues)


def _parse(path: Path, text: str, kind: str) -> list[pysubs2.SSAEvent]:
    try:
        return list(pysubs2.SSAFile.from_string(text, format_=kind))
    except (ValueError, KeyError, IndexError, pysubs2.Pysubs2Error) as error:
        raise UserError(f"{path} is malformed ({shorten(error)}); mend it") from None


def _clean(event: pysubs2.SSAEvent) -> Cue | None:
    """The cue without tags; None if nothing is left."""
    words = _SPACE.sub(" ", _OVERRIDE.sub("", event.text)).split()
    if not words:
        return None
    return Cue(" " + " ".join(words), event.start / 1000, event.end / 1000)
