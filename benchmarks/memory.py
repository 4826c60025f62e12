r"""Resident memory of training, early and at the end: it must not grow.

    python benchmarks/memory.py [--tasks tvr tvqa] [--steps 2000] [--early 200] [--validations 20]
    python benchmarks/memory.py --full_size --tasks tvr --batch_size 2 \
        --steps 200 --early 50 --validations 8                                     # in bf16

Trains on the demo's databases, which are made where they are missing. With --compare each task is
trained twice at the same time, the second time with oneDNN's default number of cached kernels:
their CPU seconds a step compare on a busy machine too.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from benchmarks.common import ROOT, make_parser, status_mib
from engine.trainer import StepRecord, Trainer

SCRIPTS = {
    "tvr": "train_vcmr",
    "how2r": "train_vcmr",
    "didemo_video_sub": "train_vcmr",
    "didemo_video_only": "train_vcmr",
    "msrvtt_video_sub": "train_vr",
    "msrvtt_video_only": "train_vr",
    "tvqa": "train_videoQA",
    "how2qa": "train_videoQA",
    "violin": "train_violin",
    "tvc": "train_tvc",
    "pretrain": "pretrain",
    "pretrain_ht": "pretrain",
}
ONEDNN_OWN = dict.fromkeys(("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"), "1024")
HEADERS = ("task", "step", "MiB", "step", "MiB", "growth (%)", "CPU ms a step")
WINDOW = 50  # steps whose median is a reading
Steps = list[tuple[float, float]]  # MiB after every step, and its CPU seconds


def train(script: str, words: list[str], environment: dict[str, str]) -> Steps:
    """Train in this process, which does nothing else; return what every step took."""
    os.environ.update(environment)
    steps: Steps = []
    take_step = Trainer.step

    def measured(trainer: Trainer) -> StepRecord | None:
        start = time.process_time()
        record = take_step(trainer)
        steps.append((status_mib("VmRSS"), time.process_time() - start))
        return record

    with (
        mock.patch.object(Trainer, "step", measured),
        contextlib.redirect_stdout(sys.stderr),
    ):
        importlib.import_module(script).main(words)
    return steps


def start(task: str, options: argparse.Namespace, name: str, **environment: str) -> Future:
    """Start training a task in a process of its own; the future gives :func:`train`'s result."""
    config = Path(options.scratch) / f"{task}.json"
    config.write_text(recipe(task).replace('"demo/', f'"{options.demo}/'))
    words = ["--config", str(config), "--output_dir", str(config.with_name(f"{task}_{name}"))]
    words += ["--num_train_steps", str(options.steps), "--save_steps", str(options.steps)]
    words += ["--valid_steps", str(max(options.steps // options.validations, 1))]
    words += ["--warmup_steps", "1"]
    if task == "tvc":
        words += ["--val_ref", str(options.demo / "ann" / "tvc_val_release.jsonl")]
    if options.batch_size:
        words += ["--train_batch_size", str(options.batch_size)]
    if options.full_size:
        words += ["--model_config", str(ROOT / "config" / "hero_finetune.json"), "--bf16"]
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    return process.submit(train, SCRIPTS[task], words, environment)


def recipe(task: str) -> str:
    """Return the text of the demo's recipe."""
    return (ROOT / "config" / f"debug-{task}.json").read_text()


def make_databases(task: str, demo: Path) -> None:
    """Make the demo's databases that a task lacks, by a demo of one step."""
    paths = re.findall(r'"demo/((?:txt|video)_db/[^"]*)"', recipe(task))
    paths = [path for path in paths if not path.endswith(".jsonl")]
    if all((demo / path).exists() for path in paths):
        return
    command = [sys.executable, str(ROOT / "scripts" / "demo.py")]
    command += ["--task", task, "--output", str(demo)]
    subprocess.run([*command, "--num_train_steps", "1", "--warmup_steps", "1"], check=True)


def row(name: str, steps: Steps, early: int) -> tuple:
    """Return a row of the table, of medians: memory varies with the batch."""
    memory = [mib for mib, _ in steps]
    first = statistics.median(memory[early - 1 :][:WINDOW])
    last = statistics.median(memory[-WINDOW:])
    seconds = statistics.median(seconds for _, seconds in steps[early:])
    return name, early, first, len(steps), last, 100 * (last / first - 1), 1000 * seconds


def main() -> None:
    parser = make_parser(__doc__, steps=2000, early=200, validations=20)
    parser.add_argument("--tasks", nargs="+", choices=SCRIPTS, default=[*SCRIPTS])
    parser.add_argument("--batch_size", type=int, help="instead of the recipe's")
    parser.add_argument("--full_size", action="store_true", help="the full-size model in bf16")
    parser.add_argument("--compare", action="store_true", help="with oneDNN's own cache too")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", help="folder of the databases")
    options = parser.parse_args()
    if options.early <= options.steps // options.validations:
        parser.error("--early must be later than the first validation, whose batches are larger")
    options.demo = options.demo.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as options.scratch:
        for task in options.tasks:
            make_databases(task, options.demo)
            runs = {task: start(task, options, "own")}
            if options.compare:
                runs[f"{task}, oneDNN's own"] = start(task, options, "onednn", **ONEDNN_OWN)
            rows += [row(name, run.result(), options.early) for name, run in runs.items()]
    print(tabulate(rows, HEADERS, floatfmt=("", "", ".0f", "", ".0f", ".1f", ".0f")))


if __name__ == "__main__":
    main()
