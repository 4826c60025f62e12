"""A user's mistake is one clear line and exit code 2, never a traceback."""

import os
import reprlib
import sys
import time
from collections.abc import Callable

# Long enough for launchers to end the other ranks once the first has failed.
FIRST_RANK_SPEAKS_SECONDS = 5.0


# Of a line that quotes much: a last resort, values are cut where they are quoted.
_LINE_CHARACTERS = 4000

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2
_BRIEF.maxstring = _BRIEF.maxother = 100


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and how to mend it."""


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


def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a :class:`UserError` becomes one line on stderr and exit code 2.

    Most mistakes are all ranks': rank 0 says so at once, and the others, where it does not, later.
    """
    try:
        main()
    except UserError as error:
        if is_other_rank():
            time.sleep(FIRST_RANK_SPEAKS_SECONDS)
        line = shorten(" ".join(str(error).split()), _LINE_CHARACTERS)
        print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2)


def is_other_rank() -> bool:
    """Whether a launcher has started this process as another rank than 0."""
    names = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK")
    return any(os.environ.get(name, "0") != "0" for name in names)
