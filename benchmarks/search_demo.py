"""The demo of search with several seeds: how many of five sentences find their moment, and when.

python benchmarks/search_demo.py --seeds 1 2 3 --output demo_seeds

Every seed makes other films, and starts from other weights.
"""

import argparse
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from tabulate import tabulate

from scripts.demo import ROOT, run_demo
from scripts.demo_corpus.demo_tasks import demo_tasks
from scripts.demo_corpus.search_demo import RIGHT, SearchTask
from scripts.make_demo_data import SIZES


def run(task: SearchTask, size: str) -> tuple[int, int, int, float, float]:
    """Run the demo of a seed.

    Returns:
        Seed, right moments, sentences, seconds that it took, and seconds of its processes.
    """
    start, before = time.monotonic(), _cpu_seconds()
    run_demo(task, size, ["--seed", str(task.seed)])
    overlaps = [overlap for *_, overlap in task.compare()]
    right = sum(overlap >= RIGHT for overlap in overlaps)
    seconds = time.monotonic() - start, _cpu_seconds() - before
    return task.seed, right, len(overlaps), *seconds


def _cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: list[str] | None = None) -> None:
    """Run the demo of each seed in a folder of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, required=True, help="folder of the seeds' folders")
    parser.add_argument("--size", choices=SIZES, default="debug", help="of what is learnt from")
    options = parser.parse_args(argv)
    output = options.output.absolute()
    os.chdir(ROOT)  # commands run there
    rows = []
    for seed in options.seeds:
        task = demo_tasks(output / str(seed))["search"]
        assert isinstance(task, SearchTask)
        rows.append(run(replace(task, seed=seed), options.size))
    shown = ("seed", "right", "sentences", "seconds", "CPU seconds")
    print("\n" + tabulate(rows, headers=shown, floatfmt=".0f"))


if __name__ == "__main__":
    main()
