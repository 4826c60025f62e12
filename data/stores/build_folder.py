"""Folders that are either complete or absent."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from utils.errors import UserError
from utils.files import check_output, named_path, naming
from utils.locks import HeldError, locked


def is_database(folder: Path) -> bool:
    """Return whether ``folder`` is a text, feature or caption database."""
    parts = (folder / part / "data.mdb" for part in (".", "cap.db", "clip.db"))
    return any(part.exists() for part in parts) or any(folder.glob("*.safetensors"))


class FolderWriter:
    """Build a database next to ``path`` and move it there, complete, when the block succeeds.

    Args:
        path: folder of the database.
        force: replace an existing database.
        at_last: called when all is written, before the database is moved.

    Attributes:
        folder: the temporary folder; other files written to it become part of the database.

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
        """Called when ``folder`` exists; ``stack`` is closed before it is moved."""

    def finish(self) -> None:
        """Called when the block has succeeded, before the folder is moved."""

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with self._stack:  # an error in here removes the temporary folder, too
            self.finish()
            if self._at_last is not None:
                self._at_last()


@contextmanager
def build_folder(
    target: str | Path, force: bool = False, replaceable: Callable[[Path], bool] = is_database
) -> Iterator[Path]:
    """Yield an empty folder that is renamed to ``target`` once the block has succeeded.

    The content is synced to disk before the rename. A kill leaves at worst a hidden
    ``.<name>.building``, which readers ignore and the next build deletes.

    Raises:
        OSError: it cannot be written, whatever error a library raised; names ``target``.
        UserError: ``target`` exists and ``force`` is not given or it is not ``replaceable``, or
            another process is building it.
    """
    target = named_path(target).absolute()
    check_folder(target, force, replaceable)
    work = _sibling(target, "building")
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
    """Check, before the work, that :func:`build_folder` can make a folder; OSError and UserError
    as there."""
    target = named_path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        # --force must never delete a folder that was given by mistake.
        if not replaceable(target):
            raise UserError(f"{target} exists and is no database; choose another output folder")
        if not force:
            raise UserError(f"{target} exists already; pass --force to build it again")
    check_output(_sibling(target, "building") / "data")


def _sibling(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")


@contextmanager
def _exclusive(target: Path) -> Iterator[None]:
    try:
        with locked(_sibling(target, "lock")):
            yield
    except HeldError as holder:
        raise UserError(
            f"another process builds the same database, {target} ({holder}); wait for it"
        ) from None


def _replace_folder(work: Path, target: Path) -> None:
    old = _sibling(target, "old")
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
