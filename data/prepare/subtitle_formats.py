"""Recognise and read subtitle formats.

WebVTT is read by its standard's algorithm. Lines of SubStation Alpha are reordered to the usual
fields for pysubs2, which requires them; it also reads MicroDVD, MPL2 and TTML. SubRip has no
standard and is read here, as players do: pysubs2 loses a text that is a number, text between < and
>, and hours above 99.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import pysubs2

from data.prepare.subtitle_events import OVERRIDE, Event, seconds
from data.prepare.webvtt import HEADER, read_webvtt
from utils.errors import RecordError, brief

_DECIMALS = r"(?: ?[.,] ?\d{1,9})"
_STAMP = rf"-?\d{{1,9}}: ?\d{{1,2}}(?:: ?\d{{1,2}}{_DECIMALS}?|{_DECIMALS})"
_ARROW = r"(?:-{1,3} ?>|[–—] ?>|→)"  # also as text recognition writes it
_TIMES = re.compile(rf"[ \t]*({_STAMP})[ \t]*{_ARROW}[ \t]*({_STAMP})(?:[ \t]+(.*))?", re.ASCII)
_LIKE_TIMES = re.compile(
    rf"^(?:[ \t]*{_STAMP}[ \t]*{_ARROW}[ \t]*{_STAMP}|[^\n]{{0,80}}?\d:[^\n]{{0,80}}?-->)",
    re.ASCII | re.MULTILINE,
)
_PLACE = re.compile(r"[ \t]*(?:[\w-]+:[^\s:]+(?:[ \t]+|\Z))*", re.ASCII)  # X1:10, or align:start
_NUMBER = re.compile(r"[ \t]*(\d{1,9})[ \t]*", re.ASCII)
_ATTRIBUTE = r"""[ ]+[\w:-]+[ ]?=[ ]?(?:"[^"<>]*"|'[^'<>]*'|[^\s<>"']+)"""
_ELEMENTS = "i|b|u|s|em|strong|strike|del|ins|small|big|sub|sup|font|span|p|div|a|ruby|rt|rp|lang"
_HTML = re.compile(
    rf"< ?/? ?(?:{_ELEMENTS})(?:{_ATTRIBUTE})*[ ]?/?>"
    r"|</?[cv](?:\.[\w.-]+)?>|^<v [^<>\n]+>|<(?:\d+:)?\d\d:\d\d\.\d{3}>",
    re.IGNORECASE | re.ASCII | re.MULTILINE,
)
_BREAK = re.compile(r"(?i:< ?br ?/?>)|\\[Nh]")

_SECTION = re.compile(r"\[[^\]]*[a-z][^\]]*\]")  # letters of encoded fonts are upper case
_EVENTS = "[events]"
_FIELDS = ["layer", "start", "end", "style", "name", *["margin"] * 3, "effect", "text"]
_BLOCK = re.compile(r"(\\[{}]|\{[^}]*\})")  # of override tags and comments; \{ is a brace
_DRAWING = re.compile(r"\\p(\d)")
_ASS_SPACE = re.compile(r"\\[Nnh]")

_FORMATS = {  # the first match in the text decides; those without a reader are named to the user
    "ASS": re.compile(
        r"^[ \t]*(?:\[(?:Script Info|Events|V4\+? Styles\+?)\]|Dialogue:[^\n]*,[^\n]*,)",
        re.IGNORECASE | re.MULTILINE,
    ),
    "SRT": _LIKE_TIMES,
    "microdvd": re.compile(r"^ *\{ *\d+ *\} *\{ *\d* *\}", re.ASCII | re.MULTILINE),
    "mpl2": re.compile(r"^\[\d+\]\[\d*\]", re.ASCII | re.MULTILINE),
    "ttml": re.compile(r"<(?:\w{1,20}:)?tt[ \t\n][^>]{0,400}ttml", re.ASCII),
    "a web page": re.compile(r"\A\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE),
    "SAMI": re.compile(r"<SAMI\b", re.IGNORECASE),
    "SubViewer": re.compile(r"^\d\d:\d\d:\d\d\.\d\d,\d\d:\d\d:\d\d\.\d\d$", re.MULTILINE),
    "TMPlayer": re.compile(r"^\d{1,2}:\d\d:\d\d[:=]", re.ASCII | re.MULTILINE),
    "lyrics (LRC)": re.compile(r"^\[\d{1,3}:\d\d(?:\.\d+)?\]", re.ASCII | re.MULTILINE),
    "JSON": re.compile(r"\A\s*[{\[]\s*[\"{\]}]"),
}
_READ_BY_PYSUBS2 = ("microdvd", "mpl2", "ttml")


def read_events(text: str) -> Iterator[Event]:
    """Return the subtitles of a text, in its order.

    Args:
        text: in any format; its lines end with a line feed.

    Raises:
        RecordError: it is of a format that is not read, or broken.
    """
    if HEADER.fullmatch(text.lstrip().partition("\n")[0]):
        return read_webvtt(text)
    matches = {name: pattern.search(text) for name, pattern in _FORMATS.items()}
    found = {name: match.start() for name, match in matches.items() if match is not None}
    if not found:
        raise RecordError(
            "it holds no subtitles of a known format (SRT, WebVTT, ASS, …): was it cut short?"
        )
    kind = min(found, key=lambda name: found[name])
    if kind == "SRT":
        return read_srt(text)
    if kind == "ASS":
        return read_ass(text)
    if kind in _READ_BY_PYSUBS2:
        return _read_by_pysubs2(text, kind)
    fix = "download it again" if kind == "a web page" else "convert it to SRT"
    raise RecordError(f"it is {kind}, which is not read: {fix}")


def read_srt(text: str) -> Iterator[Event]:
    """Yield the subtitles of SubRip: the text from a line with times up to the next such line."""
    lines = text.split("\n")
    timed = [at for at, line in enumerate(lines) if _LIKE_TIMES.match(line)]
    for at, end in zip(timed, _text_ends(lines, timed), strict=True):
        found = _TIMES.fullmatch(lines[at])
        body = lines[at + 1 : end]
        if found is not None and found[3] and not _PLACE.fullmatch(found[3]):
            body = [found[3], *body]
        times = None if found is None else (seconds(found[1]), seconds(found[2]))
        yield Event(at + 1, times, _without_html("\n".join(body)), lines[at])


def _text_ends(lines: list[str], timed: list[int]) -> list[int]:
    """Return the line after each subtitle's text: the next times, or the number above them.

    A number is text in a file whose subtitles are not numbered, unless it is between a blank line
    and times. Numbers and times may have blank lines between them.

    Args:
        lines: of the file.
        timed: indices of those with times.
    """
    first = _number_above(lines, timed[0], -1) if timed else None
    numbered = first is not None
    spaced = first is not None and first < timed[0] - 1
    last = 0 if first is None else int(lines[first])
    ends = []
    for above, at in pairwise([*timed, len(lines)]):
        number = _number_above(lines, at, above)
        ends.append(at)
        if number is None:
            continue
        adjacent, apart = number == at - 1, not lines[number - 1].strip()
        counts = (adjacent and (numbered or apart)) or spaced
        follows = numbered and int(lines[number]) == last + 1
        if (follows and apart) if at == len(lines) else (follows or counts):
            ends[-1], last = number, int(lines[number])
    return ends


def _number_above(lines: list[str], at: int, above: int) -> int | None:
    """Return the last line with text between two lines, if it is a number."""
    index = at - 1
    while index > above and not lines[index].strip():
        index -= 1
    return index if index > above and _NUMBER.fullmatch(lines[index]) else None


def _without_html(text: str) -> str:
    return _HTML.sub("", _BREAK.sub("\n", OVERRIDE.sub("", text)))


def read_ass(text: str) -> Iterator[Event]:
    """Yield the dialogue of SubStation Alpha, with fields in the order of ``Format:``."""
    lines = [line.strip() for line in text.split("\n")]
    fields = _FIELDS
    inside = headless = _EVENTS not in map(str.lower, lines)
    if headless and not any(line.startswith("Dialogue:") for line in lines):
        raise RecordError("it has no [Events]; was it cut short?")
    for number, line in enumerate(lines, start=1):
        kind, _, values = line.partition(":")
        if _SECTION.fullmatch(line):
            inside = headless or line.lower() == _EVENTS
        elif inside and kind == "Format":
            fields = [name.strip().lower() for name in values.split(",")]
        elif inside and kind == "Dialogue":
            cells = values.split(",", max(len(fields) - 1, 0))  # the last field may hold commas
            yield _read_ass_line(number, line, dict(zip(fields, cells, strict=False)))


def _read_ass_line(number: int, line: str, cells: dict[str, str]) -> Event:
    """Return the event of a line; without times where fields are missing or times malformed."""
    try:
        usual = f"[Events]\nDialogue: 0,{cells['start']},{cells['end']},,,0,0,0,,{cells['text']}"
        (event,) = pysubs2.SSAFile.from_string(usual, format_="ass")
    except (KeyError, ValueError):  # a field is missing; no times, or no event
        return Event(number, None, "", line)
    return Event(number, _times(event), _without_drawings(event.text), line)


def _times(event: pysubs2.SSAEvent) -> tuple[float, float]:
    return event.start / 1000, event.end / 1000


def _without_drawings(text: str) -> str:
    """Return the text of an event, without override tags, comments and drawings."""
    kept, drawing = [], False
    closed = text.rfind("}") + 1
    parts = _BLOCK.split(text[:closed])
    parts[-1] += text[closed:]  # an unclosed brace is text
    for index, part in enumerate(parts):
        if index % 2 and part.startswith("{"):
            for scale in _DRAWING.findall(part):
                drawing = scale != "0"
        elif not drawing:
            kept.append(part.removeprefix("\\") if index % 2 else part)
    return _ASS_SPACE.sub(" ", "".join(kept))


def _read_by_pysubs2(text: str, kind: str) -> Iterator[Event]:
    try:
        events = list(pysubs2.SSAFile.from_string(text, format_=kind))
    except pysubs2.UnknownFPSError:
        raise RecordError(
            "its times are frames (MicroDVD), without a first line {1}{1}25 of how many a second "
            "has: add it"
        ) from None
    except Exception as error:  # of its parsers of XML and numbers
        raise RecordError(f"it is damaged {kind} ({brief(str(error))}); fix it") from None
    for event in events:
        yield Event(0, _times(event), _without_drawings(event.text))
