"""Moments of databases; invalid ones are read with a warning."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from data.stores.records import QueryRecord
from utils.errors import RecordError
from utils.logger import LOGGER

NAMED = 5  # ids that a warning shows
_SPAN = re.compile("(-?[^-]+)-(-?[^-]+)")  # start-end, either perhaps negative


def as_moment(value: Any) -> tuple[float, float] | None:
    """Return (start, end) if ``value`` is two finite numbers, else None."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    return (value[0], value[1]) if numbers and all(map(math.isfinite, value)) else None


def agreed_moment(moments: Iterable[Sequence[float]]) -> list[float]:
    """Return the most frequent of several annotators' [start, end], the first of equals."""
    return list(Counter(map(tuple, moments)).most_common(1)[0][0])


def parse_seconds(ts: object) -> tuple[float, float] | None:
    """Return start and end of "st-ed" or [st, ed]; None for anything else ("NaN-NaN")."""
    if not isinstance(ts, str):
        return as_moment(ts)
    numbers = _SPAN.fullmatch(ts)
    try:
        return as_moment([float(number) for number in numbers.groups()]) if numbers else None
    except ValueError:
        return None


def training_moment(record: QueryRecord) -> tuple[float, float] | None:
    """Return a query's moment in seconds, the most frequent of several annotators'; None: none."""
    target: Any = record.target  # [start, end], or a list of such
    if target is None:
        return None
    return as_moment(target) or as_moment(agreed_moment(target))


def is_clamped(moment: Sequence[float]) -> bool:
    """Return whether a moment has a negative time, or ends before it starts."""
    start, end = moment
    return start < 0 or end < start


def refuse_clamped(moment: Sequence[float]) -> None:
    """Raise RecordError for a moment that readers would clamp; none is written to a database."""
    if is_clamped(moment):
        start, end = moment
        raise RecordError(f"the moment [{start:g}, {end:g}] is negative or ends before it starts")


def warn_of_clamped(moments: Iterable[tuple[object, tuple[float, float]]], where: object) -> None:
    """Warn of those (id, moment) that are clamped, if any are."""
    clamped = [
        f"{id_} [{start:g}, {end:g}]" for id_, (start, end) in moments if is_clamped((start, end))
    ]
    if clamped:
        named = ", ".join(clamped[:NAMED]) + ", …" * (len(clamped) > NAMED)
        LOGGER.warning(
            "%s: %d moment(s) have a negative time or end before they start (%s): they begin at 0 "
            "at the earliest, and end after their start",
            *(where, len(clamped), named),
        )


def warn_of_units(moments: Iterable[tuple[Sequence[float], float]], where: object) -> None:
    """Warn if most of (moment, seconds of its video) start after the end of their video."""
    starts = [(start, end) for (start, _), end in moments]
    late = [(start, end) for start, end in starts if start >= end]
    if 2 * len(late) > len(starts):
        LOGGER.warning(
            "%s: %d of %d moments start after their video's end (the first at %g, its video ends "
            "at %g): times must be seconds; are these milliseconds, or frames?",
            *(where, len(late), len(starts), *late[0]),
        )


def warn_of_single_moments(targets: Iterable[Any], where: object) -> None:
    """Warn of DiDeMo's lines that have one moment instead of several annotators'."""
    single = [as_moment(target) is not None for target in targets]
    if any(single):
        LOGGER.warning(
            "%s: %d of %d lines have one moment [start, end] instead of a list, one of each "
            "annotator: a prediction that hits it counts as right",
            *(where, sum(single), len(single)),
        )
