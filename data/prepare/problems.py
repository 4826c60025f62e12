"""Problems with files: a record of them, and a table for the end of a run.

failed.json  {file: {"reason", "seconds", "used"}}: videos that failed (used: false), and damaged
             ones with the number of seconds that are used (true); of subtitle files "subtitles",
             the number of those used, instead of "seconds"
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from data.prepare.folder_files import shown
from utils.files import write_json

FAILED_FILE = "failed.json"
_MAX_ROWS = 20  # of the table


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file."""

    reason: str  # one line for the user: what is wrong, and how to fix it
    amount: float = 0  # what can be used: seconds of a video, subtitles of a file
    used: bool = False  # it is used as far as possible (a warning); False: it failed


class Problems:
    """Collects problems.

    Args:
        path: of the record.
        unit: of the amounts.
    """

    def __init__(self, path: Path, unit: str = "seconds") -> None:
        self.path = path
        self._unit = unit
        self._problems: dict[str, Problem] = {}

    def note(self, file: Path | str, problem: Problem) -> None:
        """Note what is wrong with a file, or a video of a database."""
        self._problems[str(file)] = problem

    def note_unusable(self, unusable: Mapping[Path, str]) -> None:
        """Note files that cannot be tried at all, and why."""
        for path, reason in unusable.items():
            self.note(path, Problem(reason))

    @property
    def failures(self) -> int:
        """Number of files that cannot be used."""
        return sum(not problem.used for problem in self._problems.values())

    @property
    def first_failure(self) -> str:
        """A line for the first file that cannot be used; empty if all can."""
        failed = (item for item in self._problems.items() if not item[1].used)
        return next((f"{shown(file)}: {_one_line(p.reason)}" for file, p in failed), "")

    def has_failed(self, file: Path | str) -> bool:
        """Return whether a file cannot be used."""
        problem = self._problems.get(str(file))
        return problem is not None and not problem.used

    def write(self) -> None:
        """Write the file, or remove that of an earlier run."""
        if self._problems:
            entries = {
                file: {"reason": p.reason, self._unit: p.amount, "used": p.used}
                for file, p in self._problems.items()
            }
            write_json(self.path, entries, indent=4)
        else:
            self.path.unlink(missing_ok=True)

    def report(self, top: Path | None = None) -> str:
        """Return a table of the problems, failures first; empty if there are none.

        Args:
            top: the folder that paths are relative to; None: as they are.
        """
        worst = sorted(self._problems.items(), key=lambda item: item[1].used)
        rows = [
            (
                shown(file if top is None else os.path.relpath(file, top)),
                "used" if problem.used else "failed",
                f"{round(problem.amount, 1)}" if problem.used else "0",
                _one_line(problem.reason),
            )
            for file, problem in worst[:_MAX_ROWS]
        ]
        if not rows:
            return ""
        columns = ("file", "result", f"{self._unit} used", "what")
        table = tabulate(rows, columns, disable_numparse=True)
        more = f"\n… and {len(worst) - _MAX_ROWS} more" if len(worst) > _MAX_ROWS else ""
        total = f"{len(worst)} files, {self.failures} of them not used: {shown(self.path)}"
        return f"{table}{more}\n{total}"


def _one_line(reason: str) -> str:
    return " ".join(reason.split())
