"""What a reader of any subtitle format gives: texts with their times."""

import re
from dataclasses import dataclass

OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8}; other braces are text


@dataclass(frozen=True, slots=True)
class Event:
    """A subtitle as its file has it."""

    line: int  # number, from 1, of the line with the times
    times: tuple[float, float] | None  # start and end in seconds; None: they are malformed
    text: str  # without tags; line breaks and entities stay
    source: str = ""  # the line with the times


def seconds(stamp: str) -> float:
    """Return the seconds of ``[-][hours:]minutes:seconds[.decimals]``; a comma is a point, too."""
    total = 0.0
    for part in stamp.replace(",", ".").replace(" ", "").lstrip("-").split(":"):
        total = 60 * total + float(part)
    return round(-total if stamp.startswith("-") else total, 3)
