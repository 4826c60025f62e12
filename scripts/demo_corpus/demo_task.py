"""The base class of all demos."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from engine.restore import RunFolder
from scripts.preparation.datasets import catalogue
from utils.errors import UserError
from utils.files import atomic_write

Command = list[str | Path | int | float]  # script and options
DEFAULT_OUTPUT = Path("demo")  # where the recipes find databases, and write


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """A task's data, recipe, training and evaluation."""

    name: str  # the recipe is debug-{name}.json
    data: tuple[str, ...]  # names of its data sets; the first is trained on
    output: Path  # the demo's folder
    train: str  # script
    evaluate: str  # script
    split: str = "val"  # to evaluate
    recipes: Path = Path("config")  # folder of the recipe

    @property
    def corpora(self) -> list[str]:
        """Names of the data sets whose videos it needs."""
        known = catalogue().datasets
        return list(dict.fromkeys(known[name].corpus for name in self.data))

    @property
    def ann(self) -> Path:
        """Raw annotations."""
        return self.output / "ann"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.output / "runs" / self.name

    @property
    def train_options(self) -> Command:
        """Options of its training in addition to the recipe."""
        return []

    @property
    def results_folder(self) -> Path:
        """Folder of the evaluation's results."""
        return self.run / f"results_{self.split}"

    def recipe(self, name: str) -> Path:
        """Return ``debug-{name}.json``, or, for another output folder, a copy with its paths."""
        recipe = self.recipes / f"debug-{name}.json"
        if self.output == DEFAULT_OUTPUT:
            return recipe
        moved = self.output / recipe.name
        start = json.dumps(f"{self.output}/")[:-1]
        text = recipe.read_text(encoding="utf-8").replace(f'"{DEFAULT_OUTPUT}/', start)
        with atomic_write(moved) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return moved

    def preparation(self, size: str) -> Iterator[tuple[str, Command]]:
        """Yield the commands that make a corpus of a ``size`` and its databases, with titles."""
        out = self.output
        corpus: Command = ["--output", out, "--size", size, "--datasets", *self.corpora]
        yield "Make the corpus", ["scripts/make_demo_data.py", *corpus]
        databases: Command = ["--dataset", *self.data, "--from", "raw", "--storage", out]
        databases += ["--ann_dir", self.ann, "--feature_dir", out / "features"]
        databases += ["--toker", out / "toker"]
        yield "Make databases of it", ["scripts/prepare_data.py", *databases]

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """Yield the commands that evaluate a checkpoint, each with a title."""
        options: Command = ["--split", self.split, "--output_dir", self.run]
        yield "Evaluate", [self.evaluate, *options, "--checkpoint", checkpoint]

    def results(self, checkpoint: int) -> Path:
        """Return the evaluation's file of results."""
        return self.results_folder / f"results_{checkpoint}_all.json"

    def metrics(self, checkpoint: int) -> Path:
        """Return the evaluation's file of metrics."""
        return self.results_folder / f"metrics_{checkpoint}.json"

    def report(self, checkpoint: int) -> None:
        """Print the run's scores."""
        raise NotImplementedError

    def last_checkpoint(self) -> int:
        """Return the step of the latest checkpoint, or raise UserError if there is none."""
        steps = RunFolder(self.run).steps()
        if not steps:
            raise UserError(f"{self.run / 'ckpt'} has no checkpoint; did the training end early?")
        return max(steps)[0]


def compare(
    metric: str, scores: dict[str, float], chance: dict[str, float], baseline: str = "chance"
) -> None:
    """Print a run's scores next to those of chance, or of another baseline."""
    rows = [(name, value, chance[name]) for name, value in scores.items()]
    print("\n" + tabulate(rows, headers=(metric, "this run", baseline), floatfmt=".1f"))
