"""Names of videos, ids of queries, captions and clips: text wherever they are compared.

A file may write a name as a number (10001) or as a text ("10001"): both are one name. Where a line
has several fields for one thing, the first of its :class:`NameFields` that is there counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.errors import RecordError, UserError, brief

MAX_NAME_LENGTH = 511  # databases have no longer keys


@dataclass(frozen=True, slots=True)
class NameFields:
    """Fields of a line that hold its id and its video; earlier ones count before later ones."""

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


def names_of_task(task: str | None) -> NameFields:
    """Return where lines of a task's queries, questions or statements have their names."""
    if task in ("msrvtt", "msrvtt_video_sub", "msrvtt_video_only"):
        return VIDEO_QUERY_NAMES
    if task in ("vlep", "violin"):
        return EXAMPLE_NAMES if task == "vlep" else STATEMENT_NAMES
    return QUESTION_NAMES if task in ("tvqa", "how2qa") else QUERY_NAMES


def as_name(value: object, what: str = "a name or id") -> str:
    """A raw name or id as text; RecordError if it is no non-empty text and no whole number."""
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
    """Return whether a file's name is text (UTF-8) that a database can have for a key."""
    try:
        return 0 < len(name.encode()) <= MAX_NAME_LENGTH
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False


def find_name(raw: Mapping[str, Any], *fields: str) -> str | None:
    """The first of these fields that is there, as text; None where all are absent or null.

    Raises:
        RecordError: it is no usable name.
    """
    value = next((raw[field] for field in fields if raw.get(field) is not None), None)
    return None if value is None else as_name(value, " or ".join(fields))


def get_name(raw: Mapping[str, Any], *fields: str) -> str:
    """The same; RecordError also where all are absent or null."""
    name = find_name(raw, *fields)
    return as_name(None, " or ".join(fields)) if name is None else name


def text_names(values: Any, where: object) -> list[str]:
    """The names in a list that a JSON file holds, as text.

    Raises:
        UserError: it is no list, or an entry is no usable name (names the file ``where``).
    """
    if not isinstance(values, list):
        raise UserError(f'{where} must list names, ["a", "b", …], not {brief(values)}')
    try:
        return [as_name(value) for value in values]
    except RecordError as error:
        raise UserError(f"{where}: {error}; fix or remove it") from None


def partner_id(id_: str) -> str | None:
    """The id of the other half of a statement's pair; None where the id tells of no pair."""
    ending = _PARTNERS.get(id_[-2:])
    return ending and id_[:-2] + ending
