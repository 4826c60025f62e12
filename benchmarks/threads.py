"""How threads wait, with busy neighbours and without: training steps of the debug model.

    python benchmarks/threads.py [--steps 20] [--repeats 3] [--neighbours 2]

“Spinning” is OpenMP's default: threads wait in a loop for a while before they sleep; “briefly” is
what every script sets; “passive” threads sleep at once. A neighbour is a process that computes all
the time. Runs of each kind take turns; times are medians of steps, CPU time is that of all threads.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from benchmarks.common import make_parser, model_config, tvr_like_videos, wall_and_cpu
from data.video import collate_videos
from model.hero import HierarchicalEncoder

# OpenMP ignores the policy where a count is given; 300000 is its default.
POLICIES = {
    "spinning": {"GOMP_SPINCOUNT": "300000"},
    "briefly": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
HEADERS = ("neighbours", "threads", "ms a step", "fastest", "CPU ms a step")


def run_steps(count: int) -> None:
    """Print wall and CPU seconds of every step, in this process."""
    config = model_config("hero_debug")
    encoder, video = HierarchicalEncoder(config).train(), collate_videos(tvr_like_videos(4))
    video.subtitles.token_ids.remainder_(config.f_config.num_words)
    for _ in range(count):
        print(*wall_and_cpu(lambda: encoder(video).square().mean().backward()))


def measure(steps: int, policy: dict[str, str]) -> list[tuple[float, float]]:
    """Return wall and CPU seconds of a process's steps after its first three."""
    own = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    bare = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, __file__, "--run", str(steps + 3)]
    done = subprocess.run(command, env=bare | policy, stdout=subprocess.PIPE, text=True, check=True)
    pairs = (map(float, line.split()) for line in done.stdout.splitlines()[3:])
    return [(wall, cpu) for wall, cpu in pairs]


def compare(options: argparse.Namespace) -> None:
    """Print the table."""
    rows = []
    for neighbours in (0, options.neighbours):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in POLICIES}
        with ExitStack() as running:
            for _ in range(neighbours):
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                running.callback(busy.wait)
                running.callback(busy.kill)
            for _ in range(options.repeats):
                for name, policy in POLICIES.items():
                    times[name] += measure(options.steps, policy)
        for name, pairs in times.items():
            walls, cpus = ([1000 * value for value in values] for values in zip(*pairs))
            middle = statistics.median(walls), min(walls), statistics.median(cpus)
            rows.append((neighbours, name, *middle))
    print(tabulate(rows, HEADERS, floatfmt=".0f"))


def main() -> None:
    parser = make_parser(__doc__, steps=20, repeats=3, neighbours=len(os.sched_getaffinity(0)))
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_steps(options.run)
    else:
        compare(options)


if __name__ == "__main__":
    main()
