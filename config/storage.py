"""One folder with all data and runs: where the container's paths lie on this machine.

Recipes and ``hps.json`` name files by the folders that the container mounts. Below a storage folder
the same files have the same names: one recipe, one command and one run serve in both places.
"""

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError

VARIABLE = "HERO_STORAGE"  # the storage folder of commands that name none
# Folders of the container, and what of the storage folder it mounts there.
FOLDERS = {
    "/txt": "txt_db",
    "/video": "video_db",
    "/storage": "finetune",
    "/pretrain": "pretrained",
}

ValueT = TypeVar("ValueT")


def from_container(value: ValueT, storage: str | None) -> ValueT:
    """A value in which all paths of the container lie below ``storage``; the same where it is None.

    Args:
        value: text, or lists, dictionaries and dataclasses with texts.
        storage: absolute path of a folder. Paths that lie below it already are left alone.
    """
    return value if storage is None else _replace_prefixes(value, _places(storage), keep=storage)


def to_container(value: ValueT, storage: str | None) -> ValueT:
    """The opposite of :func:`from_container`."""
    places = {} if storage is None else {own: there for there, own in _places(storage).items()}
    return _replace_prefixes(value, places)


def elsewhere_hint(value: Any, storage: str | None) -> str | None:
    """Return what to do about a path of the container in ``value``, if this is not the
    container."""
    absent: list[str] = []

    def look(text: str) -> str:
        if any(_lies_in(text, folder) and not Path(folder).is_dir() for folder in FOLDERS):
            absent.append(text)
        return text

    _map_texts(value, look)
    if storage is not None or not absent:
        return None
    return (
        f"{absent[0]} is a path of the container: elsewhere, --storage (or {VARIABLE}) names the "
        "folder that the container has it from"
    )


def require_reachable(value: Any, storage: str | None) -> None:
    """See that paths of the container in ``value`` are in the container, or below a storage folder.

    Raises:
        UserError: one is not.
    """
    if hint := elsewhere_hint(value, storage):
        raise UserError(hint)


def outside_container(value: Any) -> bool:
    """Return whether a value has a text that is a path, and none of the container."""
    found: list[str] = []

    def look(text: str) -> str:
        if "/" in text and not any(_lies_in(text, folder) for folder in FOLDERS):
            found.append(text)
        return text

    _map_texts(value, look)
    return bool(found)


def default_storage() -> str | None:
    """The folder that the environment names."""
    return os.environ.get(VARIABLE) or None


def usable_storage(saved: Any) -> str | None:
    """A run's saved storage folder if this machine has it: elsewhere the container's paths hold."""
    return saved if isinstance(saved, str) and saved and Path(saved).is_dir() else None


def _places(storage: str) -> dict[str, str]:
    return {there: str(Path(storage, own)) for there, own in FOLDERS.items()}


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _replace_prefixes(value: ValueT, places: dict[str, str], keep: str | None = None) -> ValueT:
    def change(text: str) -> str:
        if keep is not None and _lies_in(text, keep):
            return text
        for old, new in places.items():
            if _lies_in(text, old):
                return new + text[len(old) :]
        return text

    return _map_texts(value, change)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_texts(part, change) for part in value]
    if isinstance(value, dict):
        return {key: _map_texts(part, change) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **_map_texts(parts, change))
    return value
