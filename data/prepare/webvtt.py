"""Read WebVTT by the parsing algorithm of its standard.

It is the W3C's, https://www.w3.org/TR/webvtt1/#file-parsing. In addition, any number of decimals is
accepted, also after a comma; override tags of SubStation are removed; files joined to one (segments
of a live stream) are read one after the other.
"""

import re
from collections.abc import Iterator

from data.prepare.subtitle_events import OVERRIDE, Event, seconds

HEADER = re.compile(r"WEBVTT(?:[ \t].*)?", re.ASCII)
_ARROW = "-->"
_STAMP = r"(?:\d{1,9}:)?[0-5]?\d:[0-5]\d[.,]\d{1,9}"
_TIMES = re.compile(rf"[ \t\f]*({_STAMP})[ \t\f]*-->[ \t\f]*({_STAMP})(?!\d)", re.ASCII)
_METADATA = re.compile(r"[\w-]+[:=]", re.ASCII)
_TAG = re.compile(r"<[^>]*(?:>|\Z)")
_BREAK = re.compile(r"<br *\/?>", re.IGNORECASE)  # no tag of WebVTT's, but common
# Of a segment: a time of its own (LOCAL) and the same time in the stream (MPEGTS).
_MAP = re.compile(r"X-TIMESTAMP-MAP=(?=.*\bMPEGTS:(\d{1,10})\b)(?=.*\bLOCAL:([\d:.]+))", re.ASCII)
_CLOCK_HZ, _CLOCK_WRAP = 90_000, 1 << 33


def read_webvtt(text: str) -> Iterator[Event]:
    """Yield the cues of a file whose lines end with a line feed.

    Joined segments, each with its header, are shifted relative to the first as their headers say;
    a cue that several of them repeat is yielded once.
    """
    lines = text.split("\n")
    begin = next(at for at, line in enumerate(lines) if line.strip())
    starts = [at for at in range(begin, len(lines)) if at == begin or _is_header(lines, at)]
    first: tuple[int, float] | None = None
    seen: set[tuple] = set()
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        at = start + 1
        if at < stop and lines[at]:
            at, _ = _read_block(lines, at, stop, in_header=True)
        origin = _origin(lines[start:at])
        first = first or origin
        shift = 0.0 if first is None or origin is None else _between(first, origin)
        while at < stop:
            at, event = _read_block(lines, at, stop, shift=shift)
            if event is None:
                continue
            key = (event.times, event.text)
            if len(starts) == 1 or event.times is None or key not in seen:
                seen.add(key)
                yield event


def _is_header(lines: list[str], at: int) -> bool:
    """Return whether a line is the header of another file, not text that begins like one."""
    if HEADER.fullmatch(lines[at]) is None:
        return False
    if not lines[at - 1]:
        return True
    following = lines[at + 1] if at + 1 < len(lines) else ""
    alone = lines[at].strip() == "WEBVTT" and _ARROW not in lines[at - 1]
    return alone and (not following or _METADATA.match(following) is not None)


def _read_block(
    lines: list[str], at: int, stop: int, in_header: bool = False, shift: float = 0.0
) -> tuple[int, Event | None]:
    """Read a block from line ``at``: return the line after it, and its cue if it is one."""
    start = at
    timed: int | None = None
    text: list[str] = []
    while at < stop:
        line = lines[at]
        if _ARROW in line:
            if in_header or timed is not None or at > start + 1:
                break  # it begins the next block
            timed, text = at, []
        elif line:
            text.append(line)
        else:
            at += 1
            break
        at += 1
    if timed is None:
        return at, None
    stamps = _TIMES.match(lines[timed])
    times = None
    if stamps is not None:
        times = (round(seconds(stamps[1]) + shift, 3), round(seconds(stamps[2]) + shift, 3))
    plain = _TAG.sub("", _BREAK.sub("\n", OVERRIDE.sub("", "\n".join(text))))
    return at, Event(timed + 1, times, plain, lines[timed])


def _origin(header: list[str]) -> tuple[int, float] | None:
    """Return the same time in ticks of the stream's clock and in seconds of the segment."""
    found = next(filter(None, map(_MAP.match, header)), None)
    if found is None or not re.fullmatch(r"(?:\d{1,9}:)?\d{1,2}:\d{1,2}(?:\.\d{1,9})?", found[2]):
        return None
    return int(found[1]), seconds(found[2])


def _between(first: tuple[int, float], origin: tuple[int, float]) -> float:
    """Return the seconds by which a segment's times are behind the first segment's."""
    ticks = (origin[0] - first[0] + _CLOCK_WRAP // 2) % _CLOCK_WRAP - _CLOCK_WRAP // 2
    return ticks / _CLOCK_HZ - (origin[1] - first[1])
