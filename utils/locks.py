"""Locks on files, which the kernel drops when their holder ends, however that ends."""

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

# Of file systems that know no locks: two holders at once are then the user's care.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_POLL_SECONDS = 0.1


class HeldError(Exception):
    """Somebody else holds the lock; the message says who."""


class FileLock:
    """A lock between processes, also of several containers or hosts that share the file system.

    The file names its holder while it is held, and is removed with the lock. Forked children do
    not hold it: workers may outlive a killed parent by moments.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finalizer: weakref.finalize | None = None
        self._file: TextIO | None = None

    def acquire(self, timeout: float = 0.0) -> None:
        """Take the lock, after at most ``timeout`` seconds of waiting.

        Raises:
            HeldError: it is held for longer.
        """
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= deadline:
                raise HeldError(self._holder())
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let go of the lock, if it is held."""
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
        self._finalizer = weakref.finalize(self, _let_go, self.path, file)
        _held.add(self)
        return True

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            if holder := self.path.read_text(encoding="utf-8").strip():
                return holder
        return "another process"

    def _forget(self) -> None:
        """In a forked child: the lock is the parent's alone."""
        if self._finalizer is not None and self._finalizer.detach() and self._file:
            self._file.close()


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


def _let_go(path: Path, file: TextIO) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    file.close()


def lock_file(file: TextIO, path: Path) -> bool:
    """Lock an opened file until it is closed.

    Returns:
        False if another process has locked it, or removed or replaced it just after it was opened.
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
    """Hold the lock ``path`` for the block.

    Raises:
        HeldError: somebody else holds it.
    """
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
