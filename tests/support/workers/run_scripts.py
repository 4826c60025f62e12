"""Run on two ranks, or import: scripts one after the other, in one process.

PLAN is a JSON list of [script, words of its command line]; each rank writes the list of what their
``main`` returned to FOLDER/RANK.json.
"""

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from utils.distributed import init_communicator

Command = tuple[str, Sequence[str]]


def run_scripts(plan: Iterable[Command]) -> list[dict]:
    """Metrics of every script, in order."""
    return [importlib.import_module(script).main(words) for script, words in plan]


def main(plan: Path, folder: Path) -> None:
    comm = init_communicator()
    metrics = run_scripts(json.loads(plan.read_text()))
    (folder / f"{comm.rank}.json").write_text(json.dumps(metrics))
    comm.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
