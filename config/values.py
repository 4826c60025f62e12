"""Convert JSON values and command-line words to declared types, or say what was expected."""

import difflib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from utils.decoding import decode_json
from utils.errors import RecordError, brief, shorten

_LIMIT = 2**63  # of numbers

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def convert(value: Any, hint: Any) -> Any:
    """Check a JSON value against a type hint and return it in that type.

    Known hints: bool, int, float (an int is taken), str, Literal, list[…], unions (with None),
    dataclasses (from a mapping, closed).

    Raises:
        ValueError: the value does not fit; the message says what was expected.
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _convert_union(value, hint)
    if origin is list and isinstance(value, list):
        return [_convert_part(f"[{i}]", part, *get_args(hint)) for i, part in enumerate(value)]
    if isinstance(hint, type) and is_dataclass(hint):
        return _convert_dataclass(value, hint)
    if hint is float and type(value) is int and abs(value) < _LIMIT:
        value = float(value)
    fits = value in get_args(hint) if origin is Literal else type(value) is hint
    if not fits or (type(value) in (int, float) and not abs(value) < _LIMIT):
        raise ValueError(f"expected {describe(hint)}, got {_quote(value)}")
    return value


def _quote(value: Any) -> str:
    """Return a JSON value as a message shows it."""
    try:
        return shorten(json.dumps(value))
    except ValueError:  # thousands of digits
        return brief(value)


def convert_words(words: list[str], hint: Any) -> Any:
    """Convert the words after a flag; ``null`` means None where None is allowed.

    Raises:
        ValueError: as :func:`convert`.
    """
    if words == ["null"] and NoneType in get_args(hint):
        return None
    if is_structured(hint):
        try:
            return convert(decode_json(words[0]), hint)
        except RecordError as error:
            raise ValueError(f"is not valid JSON ({error})") from None
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return [convert_words([word], item) for word in words]
    return convert(_parse_word(words[0], hint), hint)


def is_structured(hint: Any) -> bool:
    """Return whether a hint holds dataclasses, which a flag can only take as JSON text."""
    return is_dataclass(hint) or any(is_structured(part) for part in get_args(hint))


def describe(hint: Any) -> str:
    """Return the words for a type hint: ``an integer``, ``a list (a number each)``."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in (Union, UnionType):
        return " or ".join(describe(arm) for arm in get_args(hint))
    if origin is list:
        (item,) = get_args(hint)
        return f"a list ({describe(item)} each)"
    if hint is NoneType:
        return "null"
    return _NAMES.get(hint) or f"an object of {', '.join(f.name for f in fields(hint))}"


def field_hints(cls: type) -> dict[str, Any]:
    """Return the type hint of every field of a dataclass."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def required_fields(cls: type) -> list[str]:
    """Return the names of the fields without a default."""
    return [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean margin?`` ("" if no known name is similar)."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {match[0]}?" if match else ""


def _convert_union(value: Any, hint: Any) -> Any:
    arms = [arm for arm in get_args(hint) if arm is not NoneType]
    if value is None and len(arms) < len(get_args(hint)):
        return None
    if len(arms) == 1:
        return convert(value, arms[0])
    for arm in arms:
        with suppress(ValueError):
            return convert(value, arm)
    raise ValueError(f"expected {describe(hint)}, got {_quote(value)}")


def _convert_dataclass(value: Any, cls: type) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {describe(cls)}, got {_quote(value)}")
    hints = field_hints(cls)
    for key in value:
        if key not in hints:
            hint = nearest(key, hints) or f"it takes {', '.join(hints)}"
            raise ValueError(f"unknown key {brief(key)}; {hint}")
    absent = [name for name in required_fields(cls) if name not in value]
    if absent:
        raise ValueError(f"needs {', '.join(absent)}")
    return cls(**{key: _convert_part(key, part, hints[key]) for key, part in value.items()})


def _convert_part(place: str, value: Any, hint: Any) -> Any:
    try:
        return convert(value, hint)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _parse_word(word: str, hint: Any) -> Any:
    """Return a word as the number that the hint asks for; anything else stays text."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for number in (int, float):
        if number in arms:
            with suppress(ValueError):
                return number(word)
    return word
