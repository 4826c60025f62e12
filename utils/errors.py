"""A user's mistake is one clear line and exit code 2, never a traceback."""

import errno
import os
import reprlib
import select
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO

from utils.processes import close_bars, is_other_rank, loader_death
from utils.signals import stoppable

# Long enough for launchers to end the other ranks once the first has failed, on a busy machine too.
FIRST_RANK_SPEAKS_SECONDS = 20.0
# What a shell says of a program whose output nobody reads any more (128 + SIGPIPE).
NOBODY_READS = 141

_AGAIN = "free some and run the same command again"
# What the operating system says, and how to fix it; {} is the path.
_REASONS = {
    errno.ENOSPC: f"no space left on the disk of {{}}: {_AGAIN}",
    errno.EDQUOT: f"no space left in your share (quota) of the disk of {{}}: {_AGAIN}",
    errno.EFBIG: "{} would be larger than files may be here: raise the limit (ulimit -f)",
    errno.EACCES: "permission denied: {}; fix its permissions, or name another place",
    errno.EPERM: "not permitted: {}; fix its permissions, or name another place",
    errno.EROFS: "{} lies on a read-only file system: name another place",
    errno.ENOTDIR: "{} needs a folder where there is a file: move it away, or name another place",
    errno.EEXIST: "{} is a file, where a folder belongs: move it away, or name another place",
    errno.EISDIR: "{} is a folder, where a file belongs: move it away, or name another place",
    errno.ENAMETOOLONG: "{} is too long a name: choose a shorter one",
    errno.ENOENT: "{} does not exist",
    errno.EIO: "{} cannot be read or written (input/output error): is its disk sound?",
    errno.ESTALE: "{} is gone from its server (stale file handle): mount it again",
    errno.ETXTBSY: "{} is in use",
    errno.ELOOP: "{} is a link that leads back to itself",
    errno.EMFILE: "too many open files ({}): raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine ({})",
    errno.ENOMEM: "not enough memory ({}): end other programs, or make batches smaller",
}
_LONGEST = 200  # characters of a path that are shown
_MEMORY = ("can't allocate memory", "CUDA out of memory")


# Of a line that quotes much: a last resort, values are cut where they are quoted.
_LINE_CHARACTERS = 4000

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2
_BRIEF.maxstring = _BRIEF.maxother = 100


class UserError(Exception):
    """Something the user can fix. The message says what is wrong, where, and how to fix it."""


class RecordError(ValueError):
    """What is wrong with a line or an entry of a file; whoever knows the place says where."""


def shorten(text: object, limit: int = 200) -> str:
    """Return a text in at most some ``limit`` characters."""
    whole = str(text)
    return whole if len(whole) <= limit else f"{whole[:limit]}…"


def brief(value: object) -> str:
    """Return the repr of a value as a message quotes it, however large the value is."""
    try:
        return shorten(_BRIEF.repr(value), 120)
    except ValueError:  # Python shows no whole number of thousands of digits
        return f"a {type(value).__name__}"


@stoppable
def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a :class:`UserError`, and what :func:`as_user_error` knows, becomes
    one line on stderr and exit code 2. Output that nobody reads any more (``| head``) ends it
    quietly.

    Most mistakes are all ranks': rank 0 says so at once, and the others, where it does not, later.
    A signal is one line, too: see :mod:`utils.signals`.
    """
    try:
        try:
            main()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # while somebody can say that it failed
    except Exception as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_broken, (sys.stdout, sys.stderr))):
            _exit(NOBODY_READS)
        known = as_user_error(error)
        if known is None:
            raise
        if is_other_rank():
            time.sleep(FIRST_RANK_SPEAKS_SECONDS)
        close_bars()
        line = shorten(" ".join(str(known).split()), _LINE_CHARACTERS)
        _exit(2, f"error: {line}")


def as_user_error(error: Exception) -> UserError | None:
    """Return what the user can fix: a :class:`UserError`, or what the operating system refused.

    Returns:
        None for a mistake of the program: its traceback is wanted.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, RuntimeError) and (said := loader_death(error)) is not None:
        return UserError(said)
    first_line = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY):
        return UserError(_REASONS[errno.ENOMEM].format(first_line or "MemoryError"))
    if (death := loader_death(error)) is not None:
        return UserError(death)
    if not isinstance(error, OSError):
        return None
    if error.errno is None:  # a library's own: of a connection, or of a process that loads data
        lines = str(error).splitlines() or [""]
        said = (
            lines[-1]
            if any(line.strip().startswith(("Traceback", "Original Traceback")) for line in lines)
            else lines[0]
        )
        return UserError(said) if said else None
    path = error.filename if error.filename2 is None else error.filename2
    if error.errno in _REASONS:
        named = "output" if path is None else _cut(os.fsdecode(path))
        return UserError(_REASONS[error.errno].format(named))
    return None if path is None else UserError(f"{_cut(os.fsdecode(path))}: {error.strerror}")


def _cut(path: str) -> str:
    return path if len(path) <= _LONGEST else f"{path[: _LONGEST // 2]}…{path[-_LONGEST // 2 :]}"


def _is_broken(stream: TextIO) -> bool:
    """Return whether the stream is a pipe that nobody reads."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # it has no descriptor, or is closed
        return False


def _exit(code: int, line: str = "") -> NoReturn:
    """Say a line and end, also where the output takes no more."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, line)):
        try:
            print(text, end="\n" if text else "", file=stream, flush=True)
        except OSError:
            # What it holds back would fail once more, loudly, when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
