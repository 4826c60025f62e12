"""The demos of VALUE's tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from config.value import AVERAGE_RECALL, TASKS
from evaluation.chance import random_video_recall
from evaluation.value_metrics import average_recall
from scripts.demo_corpus.caption_demo import CaptionTask
from scripts.demo_corpus.demo_task import DemoTask, compare
from utils.files import read_json, read_jsonl

RECIPES = Path("config/value")


@dataclass(frozen=True, kw_only=True)
class ValueTask(DemoTask):
    """A data set of VALUE."""

    recipes: Path = RECIPES

    @property
    def results_folder(self) -> Path:
        return self.run / f"results_{self.name}_{self.split}"

    def scores(self, checkpoint: int) -> dict[str, float]:
        """Return the evaluation's metrics, without the names of split and list."""
        scores = read_json(self.results_folder / f"scores_{checkpoint}.json")
        return {name.rpartition("/")[2].removeprefix("VR_"): scores[name] for name in scores}

    @property
    def validated_by(self) -> str:
        """The validation metric that is its score."""
        return TASKS[self.name].metric

    def chance(self) -> float:
        """Return the score of chance, or of another baseline."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ValueVideoTask(ValueTask):
    """Find videos in a corpus."""

    train: str = "train_retrieval.py"

    @property
    def validated_by(self) -> str:
        return f"VR/{AVERAGE_RECALL}"

    def chances(self) -> dict[str, float]:
        """Return the expected recalls in percent of a random ranking, and their AveR."""
        corpus = TASKS[self.name].corpus
        videos = read_json(self.ann / f"{corpus}_vid2dur_idx.json")[self.split]
        recalls = random_video_recall(len(videos))
        return recalls | {AVERAGE_RECALL: average_recall(recalls)}

    def chance(self) -> float:
        return self.chances()[AVERAGE_RECALL]

    def report(self, checkpoint: int) -> None:
        compare("recall (%)", self.scores(checkpoint), self.chances())


@dataclass(frozen=True, kw_only=True)
class ValueAnswerTask(ValueTask):
    """Choose the likelier of two events."""

    train: str = "train_qa.py"

    def chance(self) -> float:
        return 50.0

    def report(self, checkpoint: int) -> None:
        accuracy = {"accuracy": 100 * self.scores(checkpoint)["acc"]}
        compare("in percent", accuracy, {"accuracy": self.chance()})


@dataclass(frozen=True, kw_only=True)
class ValueCaptionTask(ValueTask, CaptionTask):
    """Caption whole videos."""

    train: str = "train_captioning.py"

    @property
    def references(self) -> Path:
        return self.output / "txt_db" / TASKS[self.name].evaluated[self.split]

    def output_option(self, checkpoint: int) -> Path:
        return self.captions(checkpoint).relative_to(self.run)

    def chance(self) -> float:
        return self.same_caption()[1]["CIDEr"]

    def training_captions(self) -> Iterable[str]:
        for database in TASKS[self.name].train:
            rows = read_jsonl(self.ann / Path(database).with_suffix(".jsonl"))
            yield from (row["desc"] for _, row in rows)


def value_tasks(output: Path) -> tuple[ValueTask, ...]:
    """Return the demos of VALUE's own data sets, in the folder ``output``."""
    kinds: dict[str, Callable[..., ValueTask]] = {
        "yc2r": ValueVideoTask,
        "vatex_en_r": ValueVideoTask,
        "vlep": ValueAnswerTask,
        "yc2c": ValueCaptionTask,
        "vatex_en_c": ValueCaptionTask,
    }
    return tuple(
        kind(
            name=name,
            data=(name,),
            output=output,
            evaluate=TASKS[name].script,
            split=TASKS[name].selection,
        )
        for name, kind in kinds.items()
    )
