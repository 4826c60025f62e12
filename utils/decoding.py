"""Typed decoding of external data: a value has the type that is asked for, or it is refused.

Types are those of ``msgspec``, which checks them while it decodes. Every error becomes a
RecordError that names the field; the caller adds the name of the file.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import msgspec

from utils.errors import RecordError, brief, shorten

Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]  # neither NaN nor infinity

_BOM = b"\xef\xbb\xbf"
_PLACE = re.compile(r"(.*) - at `(?:\$|key in \$)(.*)`", re.DOTALL)
_TYPE = re.compile(r"`(\w+(?: \| \w+)*)`")
_TYPES = {
    "object": "an object",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
}
_OUTSIDE = re.compile(r"a number [<>]= -?1000000000\.0")  # of a Finite
_HALF_CHARACTER = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])")
_BYTE = re.compile(r"\(byte (\d+)\)")


class DamagedError(RecordError):
    """Data that cannot be decoded as any type."""


def decode_json(text: bytes | str, kind: Any = Any) -> Any:
    """Return the value of a JSON text, of type ``kind``.

    Raises:
        RecordError: it is no JSON in UTF-8 (NaN and infinity are none), or of another type.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    data = data.removeprefix(_BOM)
    return decode(data, kind, _json_decoder(kind).decode, msgspec.json.decode)


def decode(data: Any, kind: Any, typed: Callable[[Any], Any], untyped: Callable[[Any], Any]) -> Any:
    """Return ``typed(data)``.

    Args:
        data: to decode.
        kind: type of the result.
        typed: decodes data of that type.
        untyped: decodes data of any type, to find the error.

    Raises:
        RecordError: the data is damaged, or of another type.
    """
    try:
        return typed(data)
    except msgspec.ValidationError as error:
        raise RecordError(_entry_error(data, kind, untyped) or _field_error(error)) from None
    except UnicodeDecodeError as error:
        raise DamagedError(f"it is no UTF-8 text ({error.reason}, byte {error.start})") from None
    except RecursionError:
        raise DamagedError("it is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise DamagedError(f"{error}{_excerpt(error, data)}") from None


def check(value: Any, kind: Any) -> Any:
    """Return a decoded ``value`` as type ``kind``.

    Raises:
        RecordError: it is of another type.
    """
    return decode(value, kind, lambda given: msgspec.convert(given, kind), lambda given: given)


@cache
def _json_decoder(kind: Any) -> msgspec.json.Decoder:
    return msgspec.json.Decoder(kind)


def _field_error(error: Exception) -> str:
    """Return ``field: reason`` for an error that has it the other way round."""
    found = _PLACE.fullmatch(str(error))
    reason, place = found.groups() if found else (str(error), "")
    reason = _OUTSIDE.sub("a finite number", _TYPE.sub(_in_words, reason))
    reason = reason.replace("Object missing", "it lacks the").replace("Expected", "expected")
    return f"{shorten(place.removeprefix('.'))}: {reason}" if place else reason


def _in_words(types: re.Match) -> str:
    return " or ".join(_TYPES.get(name, name) for name in types[1].split(" | "))


def _entry_error(data: Any, kind: Any, untyped: Callable[[Any], Any]) -> str | None:
    """Return the error of a table's first bad entry, with its key; None for other data."""
    if get_origin(kind) is not dict:
        return None
    with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value, (of_key, of_item) = untyped(data), get_args(kind)
        for key, item in value.items() if isinstance(value, dict) else ():
            for part, expected in ((key, of_key), (item, of_item)):
                try:
                    check(part, expected)
                except RecordError as error:
                    return f"{brief(key)}: {error}"
    return None


def _excerpt(error: Exception, data: Any) -> str:
    """Return the text where decoding JSON failed, and what may be wrong with it."""
    if not isinstance(data, bytes):
        return ""
    found = _BYTE.search(str(error))
    place = int(found[1]) if found else len(data)
    around = data[max(0, place - 20) : place + 20].decode("utf-8", "replace")
    half = " (half a character?)" if _HALF_CHARACTER.search(data) else ""
    return f", {brief(around)}{half}"
