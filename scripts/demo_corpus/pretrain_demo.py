"""Does pre-training help? A few steps of fine-tuning from it and from scratch, compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from evaluation.chance import random_recall
from utils.files import read_json

Command = list[str | Path | int | float]  # script and options
PRETRAINED, SCRATCH = "pre-trained", "scratch"
_K = 5  # recall among the first K videos
_BATCH_SIZE = 8  # small, so that a few steps from scratch do not yet suffice


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Fine-tuning on a task of moment retrieval, from both starts, with several seeds.

    Attributes:
        script: the training script.
        task: the task's name.
        recipe: its options.
        runs: folder of runs.
        checkpoint: of pre-training.
        steps: of each fine-tuning: few, so that the start matters.
        seeds: one fine-tuning from either start for each.
    """

    script: str
    task: str
    recipe: Path
    runs: Path
    checkpoint: Path
    steps: int
    seeds: tuple[int, ...]

    def commands(self) -> Iterator[tuple[str, Command]]:
        """Yield every fine-tuning, with a title; it ranks videos only, and only at its end."""
        for seed in self.seeds:
            for start in (PRETRAINED, SCRATCH):
                what = f"Fine-tune for {self.steps} steps, {start}, seed {seed}"
                yield what, self._fine_tuning(start, seed)

    def _fine_tuning(self, start: str, seed: int) -> Command:
        return [
            *(self.script, "--config", self.recipe, "--output_dir", self.folder(start, seed)),
            *(("--checkpoint", self.checkpoint) if start == PRETRAINED else ()),
            *("--seed", seed, "--num_train_steps", self.steps),
            *("--warmup_steps", self.steps // 10, "--train_batch_size", _BATCH_SIZE),
            *("--valid_steps", self.steps, "--full_eval_tasks", "VR"),
        ]

    def folder(self, start: str, seed: int) -> Path:
        """Return a fine-tuning's folder; another checkpoint has other folders."""
        run = self.checkpoint.parent.parent.name  # <run>/ckpt/model_step_<N>.pt
        origin = f"{run}_{self.checkpoint.stem}" if start == PRETRAINED else "random"
        return self.runs / f"{self.task}_from_{origin}_seed_{seed}"

    def recall(self, start: str, seed: int) -> float:
        """Return VR R@5 in percent."""
        metrics = self.folder(start, seed) / "results" / f"metrics_{self.steps}.json"
        return read_json(metrics)["VR"][f"r{_K}"]

    def chance(self) -> float:
        """Return the same of a random ranking of all videos."""
        results = self.folder(SCRATCH, self.seeds[0]) / "results" / f"results_{self.steps}_all.json"
        return 100.0 * random_recall(1, len(read_json(results)["video2idx"]), _K)

    def table(self) -> str:
        """Return a table of recalls from both starts, and chance, for each seed and on average."""
        rows = []
        for start in (PRETRAINED, SCRATCH):
            recalls = [self.recall(start, seed) for seed in self.seeds]
            rows.append((start, *recalls, fmean(recalls)))
        rows.append(("chance", *["" for _ in self.seeds], self.chance()))
        headers = ("start", *(f"seed {seed}" for seed in self.seeds), "mean")
        return tabulate(rows, headers=headers, floatfmt=".1f")

    def report(self) -> str:
        """Return the table with a title."""
        return (
            f"VR R@{_K} (%) of {self.task} after {self.steps} steps of fine-tuning, by what it "
            f"started from:\n{self.table()}"
        )
