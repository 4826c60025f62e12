"""A user's mistake ends in one clear line and exit code 2, never in a traceback."""

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
FIRST_RANK_REPORTS_SECONDS = 20.0
NOBODY_READS = 141  # exit code of a program whose output is a closed pipe (128 + SIGPIPE)

_AGAIN = "free some and run the same command again"
# Messages for errors of the operating system; {} is the path.
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
_LINE_CHARACTERS = 4000  # of a message; a last resort, as quoted values are cut

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2
_BRIEF.maxstring = _BRIEF.maxother = 100


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong, where, and how to fix it."""


class RecordError(ValueError):
    """An error in a line or an entry of a file; the caller adds where it is."""


def shorten(text: object, limit: int = 200) -> str:
    """Return a text, cut after ``limit`` characters."""
    full = str(text)
    return full if len(full) <= limit else f"{full[:limit]}…"


def brief(value: object) -> str:
    """Return the repr of a value for a message, cut if it is long."""
    try:
        return shorten(_BRIEF.repr(value), 120)
    except ValueError:  # Python shows no whole number of thousands of digits
        return f"a {type(value).__name__}"


@stoppable
def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; an error that :func:`as_user_error` knows ends it in one line.

    The line goes to stderr, and the exit code is 2. A closed pipe as output (``| head``) ends it
    without a message, a signal in one line (:mod:`utils.signals`). Most errors occur on all ranks:
    rank 0 reports at once, the others only if rank 0 does not.
    """
    try:
        try:
            main()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # while an error can still be reported
    except Exception as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_broken, (sys.stdout, sys.stderr))):
            _exit(NOBODY_READS)
        known = as_user_error(error)
        if known is None:
            raise
        if is_other_rank():
            time.sleep(FIRST_RANK_REPORTS_SECONDS)
        close_bars()
        line = shorten(" ".join(str(known).split()), _LINE_CHARACTERS)
        _exit(2, f"error: {line}")


def as_user_error(error: Exception) -> UserError | None:
    """Return an error that the user can fix: a :class:`UserError`, or one of the operating system.

    Returns:
        None for an error of the program, which needs its traceback.
    """
    if isinstance(error, UserError):
        return error
    if (death := loader_death(error)) is not None:
        return UserError(death)
    first_line = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY):
        return UserError(_REASONS[errno.ENOMEM].format(first_line or "MemoryError"))
    if not isinstance(error, OSError):
        return None
    if error.errno is None:  # of a library: a connection's, or that of a loader's process
        lines = [line.strip() for line in str(error).splitlines()]
        remote = any(line.startswith(("Traceback", "Original Traceback")) for line in lines)
        message = lines[-1] if remote else first_line
        return UserError(message) if message else None
    path = error.filename if error.filename2 is None else error.filename2
    name = "output" if path is None else os.fsdecode(path)
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"
    if error.errno in _REASONS:
        return UserError(_REASONS[error.errno].format(name))
    return None if path is None else UserError(f"{name}: {error.strerror}")


def _is_broken(stream: TextIO) -> bool:
    """Return whether the stream is a closed pipe."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # it has no descriptor, or is closed
        return False


def _exit(code: int, line: str = "") -> NoReturn:
    """Print a line and exit, also if the output is closed."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, line)):
        try:
            print(text, end="\n" if text else "", file=stream, flush=True)
        except OSError:
            # The rest of its buffer would fail with a traceback when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
