"""Names of videos, ids of queries, captions and clips, which are compared as text.

A file may write a name as a number (10001) or as a text ("10001"): both are one name. If a line has
several fields for one name, the first of its :class:`NameFields` counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.errors import RecordError, UserError, brief

MAX_NAME_LENGTH = 511  # of a database's key


@dataclass(frozen=True, slots=True)
class NameFields:
    """Fields of a line that may hold its id and its video, in order of precedence."""

    ids: tuple[str, ...] = ("desc_id",)
    videos: tuple[str, ...] = ("vid_name",)


QUERY_NAMES = NameFields()
VIDEO_QUERY_NAMES = NameFields(  # MSR-VTT; its public files say video_id
    ids=("sen_id", "retrieval_key", "desc_id"), videos=("clip_name", "vid_name", "video_id")
)
QUESTION_NAMES = NameFields(ids=("qid",))
EXAMPLE_NAMES = NameFields(ids=("example_id",))
STATEMENT_NAMES = NameFields(ids=("desc_id", "example_id"))  # as published, and as VALUE has it
CLIP_NAMES = NameFields(ids=("clip_id",))

_PARTNERS = {"-0": "-1", "-1": "-0"}  # endings of the ids of a pair
_TASKS = {
    **dict.fromkeys(("msrvtt", "msrvtt_video_sub", "msrvtt_video_only"), VIDEO_QUERY_NAMES),
    **dict.fromkeys(("tvqa", "how2qa"), QUESTION_NAMES),
    "vlep": EXAMPLE_NAMES,
    "violin": STATEMENT_NAMES,
}


def names_of_task(task: str | None) -> NameFields:
    """Return the name fields of a task's queries, questions or statements."""
    return _TASKS.get(task or "", QUERY_NAMES)


def as_name(value: object, what: str = "a name or id") -> str:
    """Return a raw name or id as text.

    Raises:
        RecordError: it is neither a non-empty text nor a whole number, or too long.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RecordError(
            f"{what} must be a non-empty string or a whole number, not {brief(value)}"
        )
    name = str(value)
    if len(name) > MAX_NAME_LENGTH:
        raise RecordError(
            f"{what} must have at most {MAX_NAME_LENGTH} characters, not {brief(name)}"
        )
    return name


def is_text(name: str) -> bool:
    """Return whether a file's name is UTF-8 text that can be a database's key."""
    try:
        return 0 < len(name.encode()) <= MAX_NAME_LENGTH
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False


def find_name(raw: Mapping[str, Any], *fields: str) -> str | None:
    """Return the first of these fields as text; None if all are absent or null.

    Raises:
        RecordError: it is no usable name.
    """
    value = next((raw[field] for field in fields if raw.get(field) is not None), None)
    return None if value is None else as_name(value, " or ".join(fields))


def get_name(raw: Mapping[str, Any], *fields: str) -> str:
    """Return :func:`find_name`'s result; RecordError also if all fields are absent or null."""
    name = find_name(raw, *fields)
    return as_name(None, " or ".join(fields)) if name is None else name


def text_names(values: Any, where: object) -> list[str]:
    """Return the names in the list of a JSON file as text.

    Raises:
        UserError: it is no list, or an entry is no usable name (the message has ``where``).
    """
    if not isinstance(values, list):
        raise UserError(f'{where} must list names, ["a", "b", …], not {brief(values)}')
    try:
        return [as_name(value) for value in values]
    except RecordError as error:
        raise UserError(f"{where}: {error}; fix or remove it") from None


def partner_id(id_: str) -> str | None:
    """Return the id of the other statement of a pair; None if the id is not one of a pair."""
    ending = _PARTNERS.get(id_[-2:])
    return ending and id_[:-2] + ending
