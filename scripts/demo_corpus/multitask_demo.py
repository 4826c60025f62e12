"""Do tasks help each other? One model of all of VALUE's in the demo, beside a model for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from config.value import META_AVERAGE, TASKS
from evaluation.value_metrics import meta_average
from scripts.demo_corpus.demo_task import DemoTask
from scripts.demo_corpus.pretrain_demo import Command
from scripts.demo_corpus.value_demo import RECIPES, ValueTask
from utils.files import read_jsonl

_MULTI, _SINGLE = "multi-task", "single-task"


@dataclass(frozen=True, kw_only=True)
class MultitaskTask(DemoTask):
    """Train several data sets on one encoder, and each alone for as many steps as it had there.

    Attributes:
        tasks: the demos of its data sets.
        seeds: of the trainings.
    """

    tasks: tuple[ValueTask, ...]
    seeds: tuple[int, ...] = (77,)

    @property
    def recipes(self) -> Path:
        return RECIPES

    @property
    def run(self) -> Path:
        """The run of the first seed."""
        return self.folder(self.name, self.seeds[0])

    def folder(self, name: str, seed: int) -> Path:
        """The run of a recipe with a seed."""
        return self.output / "runs" / f"multitask_{seed}" / name

    @property
    def train_options(self) -> Command:
        return ["--seed", self.seeds[0], "--output_dir", self.run]

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """Train the others: each validates at its end."""
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
        """Return how many of the steps together a data set has, on average: all ratios are 1."""
        return max(1, steps // len(self.tasks))

    def score(self, task: ValueTask, start: str, seed: int, steps: int) -> float:
        """Return what a data set was scored by at a training's end."""
        metric = f"valid/{task.name}/{task.validated_by}"
        together = start == _MULTI
        folder = self.folder(self.name if together else task.name, seed)
        last = steps if together else self.steps_each(steps)
        rows = (row for _, row in read_jsonl(folder / "log" / "metrics.jsonl"))
        (found,) = {row["value"] for row in rows if (row["step"], row["name"]) == (last, metric)}
        return found

    def table(self, steps: int) -> str:
        """The score of each data set by both, in the mean of the seeds, and by chance."""
        rows: list[list[str]] = []
        means: dict[str, list[float]] = {_MULTI: [], _SINGLE: []}
        for task in self.tasks:
            row = [task.name, TASKS[task.name].metric]
            for start, all_means in means.items():
                values = [self.score(task, start, seed, steps) for seed in self.seeds]
                all_means.append(fmean(values))
                row.append(_shown(values))
            rows.append([*row, f"{task.chance():.1f}"])
        mean = [f"{fmean(values):.1f}" for values in means.values()]
        chance = meta_average({task.name: task.chance() for task in self.tasks})
        rows.append([META_AVERAGE, "mean", *mean, f"{chance:.1f}"])
        headers = ("data set", "metric", _MULTI, _SINGLE, "chance")
        return tabulate(rows, headers=headers, disable_numparse=True)

    def report(self, checkpoint: int) -> None:
        each = self.steps_each(checkpoint)
        print(
            f"\nOne model of all after {checkpoint} steps, about {each} of each data set, beside "
            f"models of one after {each} steps:\n{self.table(checkpoint)}"
        )


def _shown(values: list[float]) -> str:
    """The mean, and the values where there are several."""
    several = f" ({' '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{several}"
