"""Folders that are either whole or absent."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from utils.errors import UserError
from utils.files import check_output, named_path, naming
from utils.locks import HeldError, locked


def is_database(folder: Path) -> bool:
    """Return whether ``folder`` is a text or feature database, or a caption database of two
    parts."""
    parts = (folder / part / "data.mdb" for part in (".", "cap.db", "clip.db"))
    return any(part.exists() for part in parts) or any(folder.glob("*.safetensors"))


class FolderWriter:
    """Write one database beside ``path`` and put it in place, whole, when the block succeeds.

    Args:
        path: folder of the database to be.
        force: replace a database that is there.
        at_last: called when all is written, before the database is put in place.

    Attributes:
        folder: the temporary folder; other files put here become part of the database.

    Raises:
        UserError: see :func:`build_folder`.
    """

    folder: Path

    def __init__(
        self, path: str | Path, force: bool = False, at_last: Callable[[], None] | None = None
    ) -> None:
        self.path = Path(path)
        self._force = force
        self._at_last = at_last

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = stack.enter_context(build_folder(self.path, self._force))
            self.begin(stack)
            self._stack = stack.pop_all()
        return self

    def begin(self, stack: ExitStack) -> None:
        """Called when ``folder`` is there; ``stack`` is closed before it is put in place."""

    def finish(self) -> None:
        """Called when the block has succeeded, before the folder is put in place."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # an error in here, too, removes the temporary folder
            self.finish()
            if self._at_last is not None:
                self._at_last()


@contextmanager
def build_folder(
    target: str | Path, force: bool = False, replaceable: Callable[[Path], bool] = is_database
) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place once the block has succeeded.

    The content reaches the disk before the rename. A kill leaves at worst a hidden
    ``.<name>.building`` that no reader looks at and the next build sweeps away.

    Raises:
        OSError: it cannot be written, whatever a library made of that; it names ``target``.
        UserError: ``target`` holds something already and ``force`` is not given, or what it holds
            is not ``replaceable`` (never deleted), or another process is building it.
    """
    target = named_path(target).absolute()
    check_folder(target, force, replaceable)
    work = _beside(target, "building")
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target):
            if work.exists():
                shutil.rmtree(work)
            work.mkdir()
            try:
                with naming(target, work):
                    yield work
                    for path in [*work.rglob("*"), work]:
                        _sync(path)
                _replace_folder(work, target)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def check_folder(
    target: str | Path, force: bool, replaceable: Callable[[Path], bool] = is_database
) -> None:
    """See, before the work, that :func:`build_folder` can make a folder.

    Raises:
        OSError, UserError: as there.
    """
    target = named_path(target)
    _check_target(target, force, replaceable)
    check_output(_beside(target, "building") / "data")


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _check_target(target: Path, force: bool, replaceable: Callable[[Path], bool]) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    # --force must never wipe a folder that was given by mistake.
    if not replaceable(target):
        raise UserError(f"{target} exists and is no database; choose another output folder")
    if not force:
        raise UserError(f"{target} exists already; pass --force to build it again")


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    try:
        with locked(_beside(target, "lock")):
            yield
    except HeldError as holder:
        raise UserError(
            f"another process builds the same database, {target} ({holder}); wait for it"
        ) from None


def _replace_folder(work: Path, target: Path) -> None:
    old = _beside(target, "old")
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
