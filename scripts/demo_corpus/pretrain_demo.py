"""Does pre-training help? A few steps of fine-tuning from it and from scratch, compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from evaluation.chance import random_recall
from scripts.demo_corpus.demo_task import Command, DemoTask
from utils.files import read_json, read_jsonl

PRETRAINED, SCRATCH = "pre-trained", "scratch"
_K = 5  # recall among the first K videos
_BATCH_SIZE = 8  # small, so that a few steps from scratch do not yet suffice


@dataclass(frozen=True, kw_only=True)
class PretrainTask(DemoTask):
    """Pre-train, then fine-tune on the first data set: from this start and from scratch."""

    train: str = "pretrain.py"
    evaluate: str = "train_vcmr.py"
    finetune_steps: int = 60  # few, so that the start matters
    seeds: tuple[int, ...] = (1, 2, 3)  # of the fine-tunings from either start

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """Yield every fine-tuning; it ranks videos only, and only at its end."""
        steps, recipe = self.finetune_steps, self.recipe(self.data[0])
        weights = self.run / "ckpt" / f"model_step_{checkpoint}.pt"
        for seed in self.seeds:
            for start in (PRETRAINED, SCRATCH):
                folder = self.folder(start, seed, checkpoint)
                yield (
                    f"Fine-tune for {steps} steps, {start}, seed {seed}",
                    [
                        *(self.evaluate, "--config", recipe, "--output_dir", folder),
                        *(("--checkpoint", weights) if start == PRETRAINED else ()),
                        *("--seed", seed, "--num_train_steps", steps),
                        *("--warmup_steps", steps // 10, "--train_batch_size", _BATCH_SIZE),
                        *("--valid_steps", steps, "--full_eval_tasks", "VR"),
                    ],
                )

    def folder(self, start: str, seed: int, checkpoint: int) -> Path:
        """Return a fine-tuning's folder; another checkpoint has other folders."""
        pretrained = f"{self.name}_model_step_{checkpoint}"
        origin = pretrained if start == PRETRAINED else "random"
        return self.run.parent / f"{self.data[0]}_from_{origin}_seed_{seed}"

    def recall(self, start: str, seed: int, checkpoint: int) -> float:
        """Return VR R@5 in percent."""
        results = self.folder(start, seed, checkpoint) / "results"
        return read_json(results / f"metrics_{self.finetune_steps}.json")["VR"][f"r{_K}"]

    def chance(self, checkpoint: int) -> float:
        """Return the same of a random ranking of all videos."""
        results = self.folder(SCRATCH, self.seeds[0], checkpoint) / "results"
        pool = read_json(results / f"results_{self.finetune_steps}_all.json")["video2idx"]
        return 100.0 * random_recall(1, len(pool), _K)

    def table(self, checkpoint: int) -> str:
        """Return a table of recalls from both starts, and chance, for each seed and on average."""
        rows = []
        for start in (PRETRAINED, SCRATCH):
            recalls = [self.recall(start, seed, checkpoint) for seed in self.seeds]
            rows.append((start, *recalls, fmean(recalls)))
        rows.append(("chance", *["" for _ in self.seeds], self.chance(checkpoint)))
        headers = ("start", *(f"seed {seed}" for seed in self.seeds), "mean")
        return tabulate(rows, headers=headers, floatfmt=".1f")

    def report(self, checkpoint: int) -> None:
        lines = [row for _, row in read_jsonl(self.run / "log" / "metrics.jsonl")]
        values = {
            row["name"].removeprefix("valid/"): row["value"]
            for row in lines
            if row["step"] == checkpoint and row["name"].startswith("valid/")
        }
        print("\n" + tabulate(sorted(values.items()), headers=("validation", "value")))
        print(
            f"\nVR R@{_K} (%) of {self.data[0]} after {self.finetune_steps} steps of fine-tuning, "
            f"by what it started from:\n{self.table(checkpoint)}"
        )
