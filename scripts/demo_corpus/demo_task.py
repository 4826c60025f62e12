"""What the demos of all tasks have in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tabulate import tabulate

from engine.restore import RunFolder
from scripts.demo_corpus.pretrain_demo import Command
from scripts.preparation.datasets import catalogue
from utils.errors import UserError
from utils.files import read_json, write_json

DEFAULT_OUTPUT = Path("demo")  # where the recipes find databases, and write


class Scripts(TypedDict):
    """Scripts and folder of a :class:`DemoTask`, as several tasks share them."""

    train: str
    evaluate: str
    output: Path


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """What all tasks have in common: data, a recipe, a training script, an evaluation.

    Attributes:
        name: the recipe is ``debug-{name}.json``.
        data: names of its data sets; the first is trained on.
        train, evaluate: scripts.
        output: the demo's folder.
    """

    name: str
    data: tuple[str, ...]
    train: str
    evaluate: str
    output: Path

    @property
    def corpora(self) -> list[str]:
        """Whose videos it needs."""
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
    def recipes(self) -> Path:
        """Folder of the recipe."""
        return Path("config")

    @property
    def train_options(self) -> Command:
        """What its training is given besides the recipe."""
        return []

    @property
    def split(self) -> str:
        """What is evaluated."""
        return "val"

    @property
    def results_folder(self) -> Path:
        """Where an evaluation writes."""
        return self.run / f"results_{self.split}"

    def recipe(self, name: str) -> Path:
        """``debug-{name}.json``, or, in another folder, a copy whose paths lead there."""
        recipe = self.recipes / f"debug-{name}.json"
        if self.output == DEFAULT_OUTPUT:
            return recipe
        moved = self.output / recipe.name
        write_json(moved, self._moved(read_json(recipe)), indent=2)
        return moved

    def _moved(self, value: Any) -> Any:
        """A recipe's value with its paths taken from the demo's folder."""
        if isinstance(value, dict):
            return {name: self._moved(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._moved(member) for member in value]
        if isinstance(value, str) and value.startswith(f"{DEFAULT_OUTPUT}/"):
            return str(self.output / value.removeprefix(f"{DEFAULT_OUTPUT}/"))
        return value

    def preparation(self, size: str) -> Iterator[tuple[str, Command]]:
        """Yield what makes the databases: lines that say it, and commands.

        Args:
            size: of the corpus.
        """
        out = self.output
        corpus: Command = ["--output", out, "--size", size, "--datasets", *self.corpora]
        yield "Make the corpus", ["scripts/make_demo_data.py", *corpus]
        raw: Command = [
            "--ann_dir",
            out / "ann",
            "--feature_dir",
            out / "features",
            "--toker",
            out / "toker",
        ]
        databases: Command = ["--dataset", *self.data, "--from", "raw", "--storage", out, *raw]
        yield "Make databases of it", ["scripts/prepare_data.py", *databases]

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """Yield what to do with a checkpoint: a line that says it, and the command."""
        options: Command = ["--split", self.split, "--output_dir", self.run]
        yield "Evaluate", [self.evaluate, *options, "--checkpoint", checkpoint]

    def results(self, checkpoint: int) -> Path:
        """Return what the evaluation found."""
        return self.results_folder / f"results_{checkpoint}_all.json"

    def metrics(self, checkpoint: int) -> Path:
        """Return what the evaluation measured."""
        return self.results_folder / f"metrics_{checkpoint}.json"

    def report(self, checkpoint: int) -> None:
        """Print what the run found."""
        raise NotImplementedError

    def last_checkpoint(self) -> int:
        """The step of the latest checkpoint.

        Raises:
            UserError: there is none.
        """
        steps = RunFolder(self.run).steps()
        if not steps:
            raise UserError(f"{self.run / 'ckpt'} has no checkpoint; did the training end early?")
        return max(steps)[0]


def compare(
    what: str, found: dict[str, float], chance: dict[str, float], beside: str = "chance"
) -> None:
    """Print what a run found beside chance, or beside something else."""
    rows = [(name, value, chance[name]) for name, value in found.items()]
    print("\n" + tabulate(rows, headers=(what, "this run", beside), floatfmt=".1f"))
