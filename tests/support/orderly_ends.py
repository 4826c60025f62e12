"""Count runs that do all their work and yet end badly, on a machine kept busy.

An abort while the interpreter ends happens once in dozens of runs, so it takes many to see one::

    python -m tests.support.orderly_ends --times 150 --busy 2
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.conftest import LAUNCHERS
from tests.support.launching import launch

SIGNS_OF_AN_ABORT = ("terminate called", "SIGABRT", "Signal 6", "core dumped", "Traceback")
LAST_LINES = 30


def fault(backend: str, ranks: int) -> str:
    """Run workers/short_run.py on so many ranks; return what it said if it ended badly, or ""."""
    run = launch(backend, "short_run.py", ranks=ranks)
    bad = run.returncode != 0 or any(sign in run.stdout for sign in SIGNS_OF_AN_ABORT)
    return f"exit code {run.returncode}\n{run.stdout}" if bad else ""


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=150, help="runs under each launcher")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside the runs")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    args = parser.parse_args()
    bad, start = dict.fromkeys(args.launchers, 0), time.monotonic()
    with busy_processes(args.busy):
        for number in range(1, args.times + 1):
            for backend in args.launchers:
                if said := fault(backend, args.ranks):
                    bad[backend] += 1
                    print("\n".join(said.splitlines()[-LAST_LINES:]), flush=True)
            seconds = time.monotonic() - start
            print(f"{number} runs under each of {bad}: {seconds:.0f} s", flush=True)
    counts = ", ".join(f"{name}: {count} of {args.times}" for name, count in bad.items())
    print(f"ended badly, on {args.ranks} ranks: {counts}")
    sys.exit(any(bad.values()))


if __name__ == "__main__":
    main()
