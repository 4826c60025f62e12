"""A user's mistake is one clear line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and how to mend it."""


def run_main(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a :class:`UserError` becomes one line on stderr and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
