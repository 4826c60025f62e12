"""What is wrong with videos, for a file and for a table at the end.

failed.json  {file: {"reason", "seconds", "used"}}: videos that failed (used: false), and damaged
             ones, so many seconds of which are used (true)
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from data.prepare.find_videos import shown
from data.prepare.video_stream import Problem
from utils.files import write_json

FAILED_FILE = "failed.json"
_ROWS = 20  # of the table


class Problems:
    """Collects what is wrong.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problems: dict[str, Problem] = {}

    def note(self, file: Path | str, problem: Problem) -> None:
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

    def has_failed(self, file: Path | str) -> bool:
        """Whether a file cannot be used."""
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
                "damaged, used" if problem.used else "failed",
                f"{problem.seconds:.1f}" if problem.used else "0",
                " ".join(problem.reason.split()),
            )
            for file, problem in worst[:_ROWS]
        ]
        if not rows:
            return ""
        table = tabulate(rows, ("file", "result", "seconds used", "what"), disable_numparse=True)
        more = f"\n… and {len(worst) - _ROWS} more" if len(worst) > _ROWS else ""
        return f"{table}{more}\nall of them: {shown(self.path)}"
