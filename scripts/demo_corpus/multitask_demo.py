"""Do tasks help each other? One model of all of VALUE's tasks, compared with one for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from config.value import META_AVERAGE, TASKS
from scripts.demo_corpus.demo_task import Command, DemoTask
from scripts.demo_corpus.value_demo import RECIPES, ValueTask
from utils.files import read_jsonl


@dataclass(frozen=True, kw_only=True)
class MultitaskTask(DemoTask):
    """Train several data sets on one encoder, and each alone for as many steps as it had there."""

    tasks: tuple[ValueTask, ...]  # the demos of its data sets
    train: str = "train_all_multitask.py"
    evaluate: str = "train_all_multitask.py"
    recipes: Path = RECIPES
    seeds: tuple[int, ...] = (77,)  # of the trainings

    @property
    def run(self) -> Path:
        """Folder of the first seed's run."""
        return self.folder(self.name, self.seeds[0])

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a recipe's run with a seed."""
        return self.output / "runs" / f"multitask_{seed}" / name

    @property
    def train_options(self) -> Command:
        return ["--seed", self.seeds[0], "--output_dir", self.run]

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """Yield the other trainings: each validates at its end."""
        for seed in self.seeds[1:]:
            what = f"Train {len(self.tasks)} tasks together, seed {seed}"
            yield what, self._training(self, seed, checkpoint, self.folder(self.name, seed))
        steps = self.steps_each(checkpoint)
        for seed in self.seeds:
            for task in self.tasks:
                what = f"Train {task.name} alone for {steps} steps, seed {seed}"
                yield what, self._training(task, seed, steps, self.folder(task.name, seed))

    @staticmethod
    def _training(task: DemoTask, seed: int, steps: int, folder: Path) -> Command:
        return [
            *(task.train, "--config", task.recipe(task.name), "--output_dir", folder),
            *("--seed", seed, "--num_train_steps", steps, "--warmup_steps", steps // 10),
            *("--valid_steps", steps),
        ]

    def steps_each(self, steps: int) -> int:
        """Return how many steps of a multi-task run a data set has on average: all ratios are 1."""
        return max(1, steps // len(self.tasks))

    def score(self, task: ValueTask, together: bool, seed: int, steps: int) -> float:
        """Return a data set's score at the end of a training, together with the others or alone."""
        metric = f"valid/{task.name}/{task.validated_by}"
        folder = self.folder(self.name if together else task.name, seed)
        last = steps if together else self.steps_each(steps)
        rows = (row for _, row in read_jsonl(folder / "log" / "metrics.jsonl"))
        (score,) = {row["value"] for row in rows if (row["step"], row["name"]) == (last, metric)}
        return score

    def table(self, steps: int) -> str:
        """Return a table: each data set's mean score over the seeds, together, alone, by chance."""
        rows: list[list[str]] = []
        means: list[tuple[float, ...]] = []
        for task in self.tasks:
            both = [
                [self.score(task, together, seed, steps) for seed in self.seeds]
                for together in (True, False)
            ]
            means.append((*map(fmean, both), task.chance()))
            shown = [*map(_mean_and_values, both), f"{task.chance():.1f}"]
            rows.append([task.name, TASKS[task.name].metric, *shown])
        rows.append([META_AVERAGE, "mean", *(f"{fmean(column):.1f}" for column in zip(*means))])
        headers = ("data set", "metric", "multi-task", "single-task", "chance")
        return tabulate(rows, headers=headers, disable_numparse=True)

    def report(self, checkpoint: int) -> None:
        each = self.steps_each(checkpoint)
        print(
            f"\nOne model of all after {checkpoint} steps, about {each} of each data set, and "
            f"models of one after {each} steps:\n{self.table(checkpoint)}"
        )


def _mean_and_values(values: list[float]) -> str:
    several = f" ({' '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{several}"
