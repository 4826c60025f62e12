"""The result of reading a subtitle file of any format: texts with their times."""

import re
from dataclasses import dataclass

OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8}; other braces are text


@dataclass(frozen=True, slots=True)
class Event:
    """A subtitle in a file."""

    line: int  # number, from 1, of the line with the times
    times: tuple[float, float] | None  # start and end in seconds; None: malformed
    text: str  # without tags, but with line breaks and entities
    source: str = ""  # the line with the times


def seconds(stamp: str) -> float:
    """Return the seconds of ``[-][hours:]minutes:seconds[.decimals]``, also with a comma."""
    total = 0.0
    for part in stamp.replace(",", ".").replace(" ", "").lstrip("-").split(":"):
        total = 60 * total + float(part)
    return round(-total if stamp.startswith("-") else total, 3)
