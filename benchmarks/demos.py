"""Every demo, one after the other, in a new folder: results and time.

    python benchmarks/demos.py [--output FOLDER] [--tasks tvr tvqa]
    python benchmarks/demos.py --seeds 1 2 3 [--output FOLDER]      # the demo of search, repeated

The numbers of the table of demos in docs/RECIPES.md. The output of a demo goes to
<output>/<task>.txt; with --seeds it is shown. Every seed makes other films and other weights.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import ROOT, make_parser, wall_and_cpu
from scripts.demo import run_demo
from scripts.demo_corpus.demo_tasks import demo_tasks
from scripts.demo_corpus.search_demo import SearchTask

LAST_LINES = 14  # of a demo: its results


def run_task(task: str, output: Path) -> None:
    """Run a demo, and print its last lines."""
    script = str(ROOT / "scripts" / "demo.py")
    command = [sys.executable, script, "--task", task, "--output", str(output)]
    printed = output / f"{task}.txt"
    with printed.open("wb") as file:
        code = subprocess.call(command, stdout=file, stderr=subprocess.STDOUT)
    lines = printed.read_text(errors="replace").splitlines()[-LAST_LINES:]
    print("\n".join(["", *lines, *([f"exit code {code}"] if code else [])]), flush=True)


def run_seed(seed: int, output: Path) -> None:
    """Run the demo of search with a seed."""
    task = demo_tasks(output / str(seed))["search"]
    assert isinstance(task, SearchTask)
    run_demo(replace(task, seed=seed), "debug", ["--seed", str(seed)])


def main() -> None:
    parser = make_parser(__doc__)
    names = list(demo_tasks(Path()))
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, help="of the demo of search")
    parser.add_argument("--output", type=Path, help="a new folder (default: a temporary one)")
    options = parser.parse_args()
    output = (options.output or Path(tempfile.mkdtemp(prefix="demos_"))).absolute()
    output.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)  # the demos' commands run there
    if options.seeds:
        runs = {f"seed {seed}": partial(run_seed, seed, output) for seed in options.seeds}
    else:
        runs = {task: partial(run_task, task, output) for task in options.tasks}
    for name, run in runs.items():
        wall, cpu = wall_and_cpu(run)
        minutes, seconds = divmod(round(wall), 60)
        print(f"## {name}: {minutes}:{seconds:02}, {cpu:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
