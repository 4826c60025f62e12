"""Folders that are either whole or absent."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError


@contextmanager
def build_folder(target: str | Path, force: bool = False) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place once the block has succeeded.

    The content reaches the disk before the rename. A kill leaves at worst a hidden
    ``.<name>.building`` that no reader looks at and the next build sweeps away.

    Raises:
        UserError: ``target`` holds something already and ``force`` is not given, or what it holds
            is no database (never deleted), or another process is building it.
    """
    target = Path(target).absolute()
    _check_replaceable(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.building")
    with _owned_folder(work):
        try:
            yield work
            for path in [*work.rglob("*"), work]:
                _sync(path)
            _replace_folder(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _check_replaceable(target: Path, force: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    # --force must never wipe a folder that was given by mistake.
    if not any((target / part / "data.mdb").exists() for part in (".", "cap.db", "clip.db")):
        raise UserError(f"{target} exists and is no database; choose another output folder")
    if not force:
        raise UserError(f"{target} exists already; pass --force to build it anew")


@contextmanager
def _owned_folder(work: Path) -> Iterator[None]:
    """Hold an exclusive lock on the (emptied) folder ``work``; the kernel drops it on a kill."""
    work.mkdir(exist_ok=True)
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held the lock before may just have renamed the folder away.
        if not work.exists() or not os.path.samestat(os.fstat(descriptor), work.stat()):
            raise BlockingIOError
        for path in work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    except BlockingIOError:
        raise UserError(f"{work} is in use: another process builds the same database") from None
    finally:
        os.close(descriptor)


def _replace_folder(work: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    work.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
