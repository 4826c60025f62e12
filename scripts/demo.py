#!/usr/bin/env python3
"""From raw files to a trained and evaluated model, on a synthetic corpus.

python scripts/demo.py --task tvr --output demo

Every step is a command that you would also run on real data; it is printed before it runs. Files
that exist are kept, so an interrupted demo can be resumed. Other options are passed to the training
script.
"""

import argparse
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from scripts.demo_corpus.demo_task import DEFAULT_OUTPUT, DemoTask
from scripts.demo_corpus.demo_tasks import demo_tasks
from scripts.demo_corpus.multitask_demo import MultitaskTask
from scripts.demo_corpus.pretrain_demo import PretrainTask
from scripts.make_demo_data import SIZES
from utils.errors import UserError, run_main
from utils.files import check_output, named_path
from utils.signals import run_program

# Data sets with two tasks: the default one.
SHORT_NAMES = {"msrvtt": "msrvtt_video_sub", "didemo": "didemo_video_sub"}


def main(argv: list[str] | None = None) -> None:
    """Run the demo of a task."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --seed is the training script's, not short for --seeds
    )
    parser.add_argument("--task", choices=[*demo_tasks(Path()), *SHORT_NAMES], default="tvr")
    parser.add_argument(
        "--output", type=named_path, default=DEFAULT_OUTPUT, help="folder for everything"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="of the trainings, where several are compared"
    )
    parser.add_argument("--size", choices=SIZES, default="debug", help="of the corpus")
    options, train_options = parser.parse_known_args(argv)
    output = options.output.resolve()
    check_output(output / "corpus.json")
    if output.is_relative_to(ROOT):
        output = output.relative_to(ROOT)  # shorter commands
    os.chdir(ROOT)
    task = demo_tasks(output)[SHORT_NAMES.get(options.task, options.task)]
    if options.seeds:
        task = with_seeds(task, options.seeds)
    run_demo(task, options.size, train_options)


def with_seeds(task: DemoTask, seeds: list[int]) -> DemoTask:
    """Return the demo with other seeds, or raise UserError if it does not compare trainings."""
    if not isinstance(task, PretrainTask | MultitaskTask):
        raise UserError(f"--seeds is for tasks that compare trainings; {task.name} has --seed")
    return replace(task, seeds=tuple(seeds))


def run_demo(task: DemoTask, size: str, train_options: list[str]) -> None:
    """Make a corpus of a ``size``, train (with ``train_options``), evaluate and report."""
    for what, command in task.preparation(size):
        call(what, *command)
    own = task.train_options
    call("Train", task.train, "--config", task.recipe(task.name), *own, *train_options)
    checkpoint = task.last_checkpoint()
    for what, command in task.evaluation(checkpoint):
        call(what, *command)
    task.report(checkpoint)


def call(what: str, *command: object) -> None:
    """Print a command (script and options) and run it; raise UserError if it fails."""
    words = [str(word) for word in command]
    print(f"\n# {what}\npython {shlex.join(words)}", flush=True)
    start = time.monotonic()
    code = run_program([sys.executable, *words])
    if code:
        raise UserError(f"“{what}” failed with exit code {code}; see its message above")
    print(f"# {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    run_main(main)
