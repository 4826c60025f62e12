"""Locks on files, which the kernel releases when their holder ends for any reason."""

import contextlib
import errno
import fcntl
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# Errors of file systems without locks, on which the user must prevent two holders at once.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_POLL_SECONDS = 0.1


class HeldError(Exception):
    """The lock is held; the message names the holder."""


class FileLock:
    """A lock between processes, also of containers or hosts that share the file system.

    The file names its holder and is removed with the lock. Forked children do not hold it, as
    workers may outlive a killed parent by moments.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finalizer: weakref.finalize | None = None
        self._file: TextIO | None = None

    def acquire(self, timeout: float = 0.0) -> None:
        """Take the lock, waiting at most ``timeout`` seconds.

        Raises:
            HeldError: it is held for longer.
        """
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= deadline:
                raise HeldError(self._holder())
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._finalizer is not None:
            self._finalizer()

    def _try(self) -> bool:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.path.open("a+", encoding="utf-8"))
            if not lock_file(file, self.path):
                return False
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            stack.pop_all()
        self._file = file
        self._finalizer = weakref.finalize(self, _release, self.path, file)
        _held.add(self)
        return True

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            if holder := self.path.read_text(encoding="utf-8").strip():
                return holder
        return "another process"

    def _forget(self) -> None:
        """Close the file in a forked child without releasing the parent's lock."""
        if self._finalizer is not None and self._finalizer.detach() and self._file:
            self._file.close()


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


def _release(path: Path, file: TextIO) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    file.close()


def lock_file(file: TextIO, path: Path) -> bool:
    """Lock an opened file until it is closed.

    Returns:
        False if another process has locked it, or removed or replaced it since it was opened.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path`` during the block.

    Raises:
        HeldError: another process holds it.
    """
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
