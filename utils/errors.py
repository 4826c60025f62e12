"""A user's mistake is one clear line and exit code 2, never a traceback."""

import sys
import time
from collections.abc import Callable

from utils.processes import is_other_rank
from utils.signals import stoppable

# Long enough for launchers to end the other ranks once the first has failed.
FIRST_RANK_SPEAKS_SECONDS = 5.0


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and how to mend it."""


class RecordError(ValueError):
    """What is wrong with a line or an entry of a file; whoever knows the place says where."""


@stoppable
def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a :class:`UserError` becomes one line on stderr and exit code 2.

    Most mistakes are all ranks': rank 0 says so at once, and the others, where it does not, later.
    A signal is one line, too: see :mod:`utils.signals`.
    """
    try:
        main()
    except UserError as error:
        if is_other_rank():
            time.sleep(FIRST_RANK_SPEAKS_SECONDS)
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(2)
