#!/usr/bin/env python3
"""The whole way from raw files to a trained and evaluated model, on a made-up corpus.

python scripts/demo.py --task tvr --output demo

Every step is a command that you would run on real data too; it is printed before it runs. What is
there already is not made again, so an interrupted demo goes on where it was. Options that are not
listed here go to the training script.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config.config import VcmrEvalOptions, load_run_options
from scripts.demo_corpus.moment_report import MomentRun, plot_moments, recall_table
from scripts.make_demo_data import SIZES
from utils.chance import MomentBounds
from utils.errors import UserError, run_main

Command = list[str | Path]


@dataclass(frozen=True)
class Step:
    """A command to run, without ``python``.

    Attributes:
        what: a line that says what it does.
        command: script and options.
        makes: file or folder that is there once it has succeeded; None = it finds out itself.
    """

    what: str
    command: Command
    makes: Path | None = None

    def call(self) -> None:
        """Print the command and run it from the repository's root, unless it has been done.

        Raises:
            UserError: it failed.
        """
        words = [str(word) for word in self.command]
        print(f"\n# {self.what}\npython {shlex.join(words)}", flush=True)
        if self.makes and self.makes.exists():
            print(f"# {self.makes} is there already", flush=True)
            return
        start = time.monotonic()
        code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
        if code:
            raise UserError(f"“{self.what}” failed with exit code {code}; see its message above")
        print(f"# {time.monotonic() - start:.0f} s", flush=True)


@dataclass(frozen=True)
class DemoTask:
    """A task of the project and how to show it.

    Attributes:
        dataset: whose videos and subtitles it reads.
        queries: its annotations are ``ann/{queries}_{split}.jsonl``.
        interval: seconds per frame.
        train, evaluate: scripts.
        report: prints what an evaluated run found.
    """

    dataset: str
    queries: str
    interval: float
    train: str
    evaluate: str
    report: Callable[["Demo", int], None]

    @property
    def vid2dur_idx(self) -> str:
        """Durations and indices of the videos (TV's file is published without a prefix)."""
        return "vid2dur_idx.json" if self.dataset == "tv" else f"{self.dataset}_vid2dur_idx.json"


@dataclass(frozen=True)
class Demo:
    """One task's demo in one folder."""

    name: str
    task: DemoTask
    output: Path
    size: str  # of the corpus
    train_options: tuple[str, ...]

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.output / "runs" / self.name

    def steps(self) -> Iterator[Step]:
        """What is to be done up to the trained model."""
        ann, txt_db, toker = (self.output / name for name in ("ann", "txt_db", "toker"))
        task, video_db = self.task, self.output / "video_db"
        features = video_db / task.dataset
        yield Step(
            "Make the corpus",
            [
                *("scripts/make_demo_data.py", "--output", self.output),
                *("--size", self.size, "--datasets", task.dataset),
            ],
        )
        yield Step(
            "Find each video's feature files",
            [
                *("scripts/collect_video_feature_paths.py", "--dataset", task.dataset),
                *("--feature_dir", self.output / "features" / task.dataset, "--output", video_db),
            ],
            makes=features / "video_feat_info.pkl",
        )
        yield Step(
            "Gather the features in a database",
            [
                *("scripts/convert_videodb.py", "--dataset", task.dataset, "--output", video_db),
                *("--vfeat_info_file", features / "video_feat_info.pkl"),
                *("--frame_length", str(task.interval)),
                *(("--clip_interval", "60") if task.dataset == "how2" else ()),
            ],
            makes=features / "id2nframe.json",
        )
        yield Step(
            "Tokenise the subtitles and match them with frames",
            [
                *("scripts/prepro_sub.py", "--toker", toker),
                *("--annotation", ann / f"{task.dataset}_subtitles.jsonl"),
                *("--vid2nframe", features / "id2nframe.json"),
                *("--frame_length", str(task.interval), "--vid2dur_idx", ann / task.vid2dur_idx),
                *("--output", self.subtitles),
            ],
            makes=self.subtitles,
        )
        for split in ("train", "val"):
            queries = txt_db / f"{task.queries}_{split}.db"
            yield Step(
                f"Tokenise the queries of the {split} split",
                [
                    *("scripts/prepro_query.py", "--toker", toker, "--task", task.queries),
                    *("--annotation", ann / f"{task.queries}_{split}.jsonl", "--output", queries),
                ],
                makes=queries,
            )
        yield Step(
            "Train",
            [
                *(task.train, "--config", f"config/debug-{self.name}.json"),
                *("--train_query_txt_db", txt_db / f"{task.queries}_train.db"),
                *("--val_query_txt_db", self.val_queries),
                *(*self.videos, "--output_dir", self.run, *self.train_options),
            ],
        )

    @property
    def subtitles(self) -> Path:
        """The subtitle database."""
        return self.output / "txt_db" / f"{self.task.dataset}_subtitles.db"

    @property
    def val_queries(self) -> Path:
        """The database of the queries to validate on."""
        return self.output / "txt_db" / f"{self.task.queries}_val.db"

    @property
    def videos(self) -> Command:
        """Options that name the video databases."""
        vfeat_db = self.output / "video_db" / self.task.dataset
        return ["--vfeat_db", vfeat_db, "--sub_txt_db", self.subtitles]

    def evaluation(self, checkpoint: int) -> Step:
        """How to evaluate a checkpoint."""
        queries = ["--query_txt_db", self.val_queries, "--split", "val"]
        which = ["--task", self.name, "--output_dir", self.run, "--checkpoint", str(checkpoint)]
        return Step("Evaluate", [self.task.evaluate, *queries, *self.videos, *which])

    def last_checkpoint(self) -> int:
        """The step of the latest checkpoint."""
        steps = [
            int(path.stem.rpartition("_")[2])
            for path in (self.run / "ckpt").glob("model_step_*.pt")
        ]
        if not steps:
            raise UserError(f"{self.run / 'ckpt'} has no checkpoint; did the training end early?")
        return max(steps)


def report_moments(demo: Demo, checkpoint: int) -> None:
    """Print recalls beside chance and draw some queries' moments."""
    options = load_run_options(
        VcmrEvalOptions, demo.run, {"split": "val", "checkpoint": str(checkpoint)}
    )
    results, ann = demo.run / "results_val", demo.output / "ann"
    run = MomentRun(
        results / f"results_{checkpoint}_all.json",
        results / f"metrics_{checkpoint}.json",
        ann / f"{demo.task.queries}_val.jsonl",
        ann / f"{demo.task.dataset}_subtitles.jsonl",
        ann / f"{demo.task.dataset}_vid2nframe.json",
        MomentBounds(options.vfeat_interval, options.min_pred_l, options.max_pred_l),
    )
    picture = demo.output / f"{demo.name}_moments.png"
    plot_moments(run, picture)
    print(f"\n{recall_table(run)}\n\nSome queries with their true and predicted moments: {picture}")


def _moments(dataset: str, queries: str, interval: float = 1.5) -> DemoTask:
    return DemoTask(dataset, queries, interval, "train_vcmr.py", "eval_vcmr.py", report_moments)


TASKS = {
    "tvr": _moments("tv", "tvr"),
    "didemo_video_sub": _moments("didemo", "didemo"),
    "how2r": _moments("how2", "how2r", interval=2.0),
}


def main(argv: list[str] | None = None) -> None:
    """Run the demo of a task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="tvr")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything")
    parser.add_argument("--size", choices=SIZES, default="debug", help="of the corpus")
    options, train_options = parser.parse_known_args(argv)
    output = options.output.resolve()
    if output.is_relative_to(ROOT):
        output = output.relative_to(ROOT)  # commands run there, and are short to read
    demo = Demo(options.task, TASKS[options.task], output, options.size, tuple(train_options))
    os.chdir(ROOT)
    for step in demo.steps():
        step.call()
    checkpoint = demo.last_checkpoint()
    demo.evaluation(checkpoint).call()
    demo.task.report(demo, checkpoint)


if __name__ == "__main__":
    run_main(main)
