"""What is wrong with files, for a file and for a table at the end.

failed.json  {file: {"reason", "seconds", "used"}}: videos that failed (used: false), and damaged
             ones, so many seconds of which are used (true); of files of subtitles "subtitles"
             tells how many are used
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from data.prepare.folder_files import shown
from utils.files import write_json

FAILED_FILE = "failed.json"
_ROWS = 20  # of the table


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a video."""

    reason: str  # one line for the user: what is wrong, and how to fix it
    seconds: float  # how much of the video could be decoded
    used: bool  # it is used as far as a player shows it (a warning); False: it failed


@dataclass(frozen=True, slots=True)
class SubtitleProblem:
    """What is odd about a file of subtitles, how many of them are used, and whether the file is."""

    reason: str
    subtitles: int = 0
    used: bool = False


class Problems:
    """Collects what is wrong.

    Args:
        path: of the file.
        unit: what is counted of a file that is used: a field of the problems.
    """

    def __init__(self, path: Path, unit: str = "seconds") -> None:
        self.path = path
        self._unit = unit
        self._problems: dict[str, Problem | SubtitleProblem] = {}

    def note(self, file: Path | str, problem: Problem | SubtitleProblem) -> None:
        """Note what is wrong with a file, or a video of a database."""
        self._problems[str(file)] = problem

    def note_unusable(self, unusable: Mapping[Path, str]) -> None:
        """Note files that cannot even be tried, and why."""
        for path, reason in unusable.items():
            self.note(path, Problem(reason, 0.0, used=False))

    @property
    def failures(self) -> int:
        """How many cannot be used."""
        return sum(not problem.used for problem in self._problems.values())

    @property
    def first_failure(self) -> str:
        """A line for the first file that cannot be used; empty if all can."""
        failed = (item for item in self._problems.items() if not item[1].used)
        return next((f"{shown(file)}: {_one_line(of.reason)}" for file, of in failed), "")

    def has_failed(self, file: Path | str) -> bool:
        """Return whether a file cannot be used."""
        problem = self._problems.get(str(file))
        return problem is not None and not problem.used

    def write(self) -> None:
        """Write the file, or remove that of an earlier run."""
        if self._problems:
            entries = {file: dataclasses.asdict(of) for file, of in self._problems.items()}
            write_json(self.path, entries, indent=4)
        else:
            self.path.unlink(missing_ok=True)

    def report(self, top: Path | None = None) -> str:
        """Return a table of what is wrong, the failed first; empty if all is well.

        Args:
            top: the folder that names of files start from; None: they are no paths.
        """
        worst = sorted(self._problems.items(), key=lambda item: item[1].used)
        rows = [
            (
                shown(file if top is None else os.path.relpath(file, top)),
                "used" if problem.used else "failed",
                f"{round(getattr(problem, self._unit), 1)}" if problem.used else "0",
                _one_line(problem.reason),
            )
            for file, problem in worst[:_ROWS]
        ]
        if not rows:
            return ""
        columns = ("file", "result", f"{self._unit} used", "what")
        table = tabulate(rows, columns, disable_numparse=True)
        more = f"\n… and {len(worst) - _ROWS} more" if len(worst) > _ROWS else ""
        total = f"{len(worst)} files, {self.failures} of them not used: {shown(self.path)}"
        return f"{table}{more}\n{total}"


def _one_line(reason: str) -> str:
    return " ".join(reason.split())
