"""Subtitle formats: which one a text is of, and its subtitles.

WebVTT is read by its standard's algorithm. Lines of SubStation Alpha are brought into the usual
order of fields for pysubs2, which takes that for granted; it also reads MicroDVD, MPL2 and TTML.
SubRip has no standard and is read here, as players do: pysubs2 loses a text that is a number, text
between < and >, and hours above 99.
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
_ARROW = r"(?:-{1,3} ?>|[–—] ?>|→)"  # what text recognition makes of it, too
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

_FORMATS = {  # the first sign in the text decides; those without a reader are named
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
    """The subtitles of a text, in its order.

    Args:
        text: in any format, whatever its file is called; its lines end with a line feed.

    Raises:
        RecordError: it is of a format that is not read, or broken.
    """
    if HEADER.fullmatch(text.lstrip().partition("\n")[0]):
        return read_webvtt(text)
    signs = {name: sign.search(text) for name, sign in _FORMATS.items()}
    found = {name: sign.start() for name, sign in signs.items() if sign is not None}
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
    """The subtitles of SubRip: what follows a line with times, up to the next such line."""
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
    """The line after each subtitle's text: that of the next times, or of the number above them.

    A number is a text in a file whose subtitles are not numbered, unless it stands between a blank
    line and times. Numbers and times may have blank lines between them.

    Args:
        lines: of the file.
        timed: which of them have times.
    """
    first = _number_above(lines, timed[0], -1) if timed else None
    numbered = first is not None
    spaced = first is not None and first < timed[0] - 1
    last = 0 if first is None else int(lines[first])
    ends = []
    for above, at in pairwise([*timed, len(lines)]):
        place = _number_above(lines, at, above)
        ends.append(at)
        if place is None:
            continue
        adjacent, apart = place == at - 1, not lines[place - 1].strip()
        counts = (adjacent and (numbered or apart)) or spaced
        follows = numbered and int(lines[place]) == last + 1
        if (follows and apart) if at == len(lines) else (follows or counts):
            ends[-1], last = place, int(lines[place])
    return ends


def _number_above(lines: list[str], at: int, above: int) -> int | None:
    """The last line with text between two lines, if it is a number."""
    place = at - 1
    while place > above and not lines[place].strip():
        place -= 1
    return place if place > above and _NUMBER.fullmatch(lines[place]) else None


def _without_html(text: str) -> str:
    return _HTML.sub("", _BREAK.sub("\n", OVERRIDE.sub("", text)))


def read_ass(text: str) -> Iterator[Event]:
    """The spoken events of SubStation Alpha, its fields in the order that ``Format:`` names."""
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
            yield _read_ass_line(number, line, dict(_named(fields, values)))


def _named(fields: list[str], values: str) -> Iterator[tuple[str, str]]:
    """Pairs of a line's fields; the last takes all commas that are left."""
    return zip(fields, values.split(",", max(len(fields) - 1, 0)), strict=False)


def _read_ass_line(number: int, line: str, named: dict[str, str]) -> Event:
    """The event of a line; without times where fields are missing or times are none."""
    if not {"start", "end", "text"} <= named.keys():
        return Event(number, None, "", line)
    usual = f"[Events]\nDialogue: 0,{named['start']},{named['end']},,,0,0,0,,{named['text']}"
    try:
        (event,) = pysubs2.SSAFile.from_string(usual, format_="ass")
    except ValueError:  # no times, or no event
        return Event(number, None, "", line)
    return Event(number, _times(event), _without_drawings(event.text), line)


def _times(event: pysubs2.SSAEvent) -> tuple[float, float]:
    return event.start / 1000, event.end / 1000


def _without_drawings(text: str) -> str:
    """The text of an event, without override tags, comments and what is drawn."""
    kept, drawing = [], False
    closed = text.rfind("}") + 1
    parts = _BLOCK.split(text[:closed])
    parts[-1] += text[closed:]  # a brace that is never closed is text
    for place, part in enumerate(parts):
        if place % 2 and part.startswith("{"):
            for scale in _DRAWING.findall(part):
                drawing = scale != "0"
        elif not drawing:
            kept.append(part.removeprefix("\\") if place % 2 else part)
    return _ASS_SPACE.sub(" ", "".join(kept))


def _read_by_pysubs2(text: str, kind: str) -> Iterator[Event]:
    try:
        events = list(pysubs2.SSAFile.from_string(text, format_=kind))
    except pysubs2.UnknownFPSError:
        raise RecordError(
            "its times are frames (MicroDVD), and no first line {1}{1}25 tells how many a second "
            "has: put it there"
        ) from None
    except Exception as error:  # of XML and numbers, whatever its reader meets
        raise RecordError(f"it is no sound {kind} ({brief(str(error))}); fix it") from None
    for event in events:
        yield Event(0, _times(event), _without_drawings(event.text))
