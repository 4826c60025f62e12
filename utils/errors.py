"""A user's mistake is one clear line and exit code 2, never a traceback."""

import os
import sys
import time
from collections.abc import Callable

from utils.processes import loader_death

# Long enough for launchers to end the other ranks once the first has failed.
FIRST_RANK_SPEAKS_SECONDS = 5.0


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and how to mend it."""


class RecordError(ValueError):
    """What is wrong with a line or an entry of a file; whoever knows the place says where."""


def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a :class:`UserError` becomes one line on stderr and exit code 2.

    Most mistakes are all ranks': rank 0 says so at once, and the others, where it does not, later.
    """
    try:
        main()
    except (UserError, RuntimeError) as error:
        said = str(error) if isinstance(error, UserError) else loader_death(error)
        if said is None:
            raise
        if is_other_rank():
            time.sleep(FIRST_RANK_SPEAKS_SECONDS)
        print(f"error: {' '.join(said.split())}", file=sys.stderr, flush=True)
        sys.exit(2)


def is_other_rank() -> bool:
    """Whether a launcher has started this process as another rank than 0."""
    names = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK")
    return any(os.environ.get(name, "0") != "0" for name in names)
