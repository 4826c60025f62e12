"""Every demo, one after the other, in a new folder: what it found, and how long it took.

    python benchmarks/demos.py [--output FOLDER] [--tasks tvr tvqa]

The numbers of the table of demos in docs/RECIPES.md. What the demos print goes to
<output>/<task>.txt.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.demo_corpus.demo_tasks import demo_tasks

LINES_OF_A_TABLE = 14  # a demo ends with what it found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(demo_tasks(Path()))
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    parser.add_argument("--output", type=Path, help="a new folder (default: a temporary one)")
    options = parser.parse_args()
    output = options.output or Path(tempfile.mkdtemp(prefix="demos_"))
    output.mkdir(parents=True, exist_ok=True)
    for task in options.tasks:
        command = [sys.executable, ROOT / "scripts" / "demo.py", "--task", task, "--output", output]
        printed, start = output / f"{task}.txt", time.monotonic()
        with printed.open("wb") as file:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        print(f"\n## {task}: {minutes}:{seconds:02}" + (f", exit code {code}" if code else ""))
        print("\n".join(printed.read_text(errors="replace").splitlines()[-LINES_OF_A_TABLE:]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
