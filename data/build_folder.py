"""Folders that are either whole or absent."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

# Of file systems that know no locks: two builds at once are then the user's care.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def is_database(folder: Path) -> bool:
    """Whether ``folder`` is a text or feature database, or a caption database of two parts."""
    return any((folder / part / "data.mdb").exists() for part in (".", "cap.db", "clip.db"))


@contextmanager
def build_folder(
    target: str | Path, force: bool = False, replaceable: Callable[[Path], bool] = is_database
) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place once the block has succeeded.

    The content reaches the disk before the rename. A kill leaves at worst a hidden
    ``.<name>.building`` that no reader looks at and the next build sweeps away.

    Raises:
        UserError: ``target`` holds something already and ``force`` is not given, or what it holds
            is not ``replaceable`` (never deleted), or another process is building it.
    """
    target = Path(target).absolute()
    _check_target(target, force, replaceable)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.building")
    with _exclusive(target):
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        try:
            yield work
            for path in [*work.rglob("*"), work]:
                _sync(path)
            _replace_folder(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _check_target(target: Path, force: bool, replaceable: Callable[[Path], bool]) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    # --force must never wipe a folder that was given by mistake.
    if not replaceable(target):
        raise UserError(f"{target} exists and is no database; choose another output folder")
    if not force:
        raise UserError(f"{target} exists already; pass --force to build it anew")


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    """Hold a lock that the kernel drops on a kill."""
    path = target.with_name(f".{target.name}.lock")
    busy = UserError(f"another process builds the same database, {target}; wait for it")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        # Whoever held the lock before may have removed the file just after it was opened here.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


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
