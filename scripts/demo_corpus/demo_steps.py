"""A step of the demo: a command that is shown and run."""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.signals import run_program

Command = list[str | Path]


@dataclass(frozen=True)
class Step:
    """A command to run, without ``python``.

    Attributes:
        what: a line that says what it does.
        command: script and options.
        makes: file or folder that is there once it has succeeded; None = it finds out itself.
    """

    what: str
    command: Command
    makes: Path | None = None

    def call(self) -> None:
        """Print the command and run it, unless it has been done.

        Raises:
            UserError: it failed.
        """
        words = [str(word) for word in self.command]
        print(f"\n# {self.what}\npython {shlex.join(words)}", flush=True)
        if self.makes and self.makes.exists():
            print(f"# {self.makes} is there already", flush=True)
            return
        start = time.monotonic()
        code = run_program([sys.executable, *words])
        if code:
            raise UserError(f"“{self.what}” failed with exit code {code}; see its message above")
        print(f"# {time.monotonic() - start:.0f} s", flush=True)
