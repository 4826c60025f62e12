"""The storage folder: where the container's paths lie on this machine.

Recipes and ``hps.json`` name files by the folders that the container mounts. Below a storage folder
the same files have the same names, so a recipe, a command or a run works in both places.
"""

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError

VARIABLE = "HERO_STORAGE"  # the storage folder of commands without --storage
# Folders of the container → subfolders of the storage folder that are mounted there.
FOLDERS = {
    "/txt": "txt_db",
    "/video": "video_db",
    "/storage": "finetune",
    "/pretrain": "pretrained",
}

ValueT = TypeVar("ValueT")


def from_container(value: ValueT, storage: str | None) -> ValueT:
    """Return texts, also in lists, dictionaries and dataclasses, with the container's paths moved
    below the absolute path ``storage`` (None: unchanged). Paths that are below it already stay.
    """
    return value if storage is None else _replace_prefixes(value, _mounts(storage), keep=storage)


def to_container(value: ValueT, storage: str | None) -> ValueT:
    """Return the inverse of :func:`from_container`."""
    mounts = {} if storage is None else {own: mount for mount, own in _mounts(storage).items()}
    return _replace_prefixes(value, mounts)


def elsewhere_hint(value: Any, storage: str | None) -> str | None:
    """Return what to do about a path of the container in ``value`` outside the container."""
    absent = [
        text
        for text in _texts(value)
        if any(_lies_in(text, folder) and not Path(folder).is_dir() for folder in FOLDERS)
    ]
    if storage is not None or not absent:
        return None
    return (
        f"{absent[0]} is a path of the container: elsewhere, --storage (or {VARIABLE}) names the "
        "folder that the container has it from"
    )


def require_reachable(value: Any, storage: str | None) -> None:
    """Check that paths of the container in ``value`` exist or lie below a storage folder.

    Raises:
        UserError: one does not.
    """
    if hint := elsewhere_hint(value, storage):
        raise UserError(hint)


def outside_container(value: Any) -> bool:
    """Return whether a value has a text that is a path, but not of the container."""
    paths = (text for text in _texts(value) if "/" in text)
    return any(not any(_lies_in(path, folder) for folder in FOLDERS) for path in paths)


def default_storage() -> str | None:
    """Return the folder that the environment names."""
    return os.environ.get(VARIABLE) or None


def usable_storage(saved: Any) -> str | None:
    """Return a run's saved storage folder if it exists on this machine."""
    return saved if isinstance(saved, str) and saved and Path(saved).is_dir() else None


def _mounts(storage: str) -> dict[str, str]:
    return {mount: str(Path(storage, own)) for mount, own in FOLDERS.items()}


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _replace_prefixes(value: ValueT, mounts: dict[str, str], keep: str | None = None) -> ValueT:
    def change(text: str) -> str:
        if keep is not None and _lies_in(text, keep):
            return text
        for old, new in mounts.items():
            if _lies_in(text, old):
                return new + text[len(old) :]
        return text

    return _map_texts(value, change)


def _texts(value: Any) -> list[str]:
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    _map_texts(value, collect)
    return texts


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
