"""The demos of VALUE's tasks: its own scripts, lists and results."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from config.value import AVERAGE_RECALL, TASKS
from evaluation.chance import random_recall
from evaluation.value_metrics import AVERAGED_TOP_K
from scripts.demo_corpus.caption_demo import CaptionTask
from scripts.demo_corpus.demo_task import DemoTask, Scripts, compare
from scripts.demo_corpus.pretrain_demo import Command
from utils.files import read_json, read_jsonl

RECIPES = Path("config/value")


@dataclass(frozen=True, kw_only=True)
class ValueTask(DemoTask):
    """A data set of VALUE."""

    @property
    def recipes(self) -> Path:
        return RECIPES

    @property
    def split(self) -> str:
        return TASKS[self.name].selection

    @property
    def results_folder(self) -> Path:
        return self.run / f"results_{self.name}_{self.split}"

    def scores(self, checkpoint: int) -> dict[str, float]:
        """Return what the evaluation measured, without the names of split and list."""
        scores = read_json(self.results_folder / f"scores_{checkpoint}.json")
        return {name.rpartition("/")[2].removeprefix("VR_"): scores[name] for name in scores}

    @property
    def validated_by(self) -> str:
        """The metric of its score in a validation."""
        return TASKS[self.name].metric

    def chance(self) -> float:
        """The score that it must leave behind."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ValueVideoTask(ValueTask):
    """Find videos in a corpus."""

    @property
    def validated_by(self) -> str:
        return f"VR/{AVERAGE_RECALL}"

    def chances(self) -> dict[str, float]:
        """Expected recalls of a random ranking."""
        corpus = TASKS[self.name].corpus
        return chance_recalls(len(read_json(self.ann / f"{corpus}_vid2dur_idx.json")[self.split]))

    def chance(self) -> float:
        return self.chances()[AVERAGE_RECALL]

    def report(self, checkpoint: int) -> None:
        compare("recall (%)", self.scores(checkpoint), self.chances())


def chance_recalls(videos: int) -> dict[str, float]:
    """Expected recalls in percent of a random ranking of so many videos, and their AveR."""
    ranks = {f"r{k}": 100 * random_recall(1, videos, k) for k in (1, 5, 10, 100)}
    mean = sum(ranks[f"r{k}"] for k in AVERAGED_TOP_K) / len(AVERAGED_TOP_K)
    return ranks | {AVERAGE_RECALL: mean}


@dataclass(frozen=True, kw_only=True)
class ValueAnswerTask(ValueTask):
    """Choose the likelier of two events."""

    def chance(self) -> float:
        return 50.0

    def report(self, checkpoint: int) -> None:
        accuracy = {"accuracy": 100 * self.scores(checkpoint)["acc"]}
        compare("in percent", accuracy, {"accuracy": self.chance()})


@dataclass(frozen=True, kw_only=True)
class ValueCaptionTask(ValueTask, CaptionTask):
    """Describe whole videos."""

    @property
    def references(self) -> Path:
        return self.output / "txt_db" / TASKS[self.name].evaluated[self.split]

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        options: Command = ["--model_dir", self.run, "--ckpt_step", checkpoint]
        options += ["--target_clip", self.references]
        options += ["--output", self.captions(checkpoint).relative_to(self.run)]
        yield f"Describe the clips of the {self.split} split", [self.evaluate, *options]

    def chance(self) -> float:
        return self.same_caption()[1]["CIDEr"]

    def training_captions(self) -> Iterable[str]:
        for database in TASKS[self.name].train:
            rows = read_jsonl(self.ann / Path(database).with_suffix(".jsonl"))
            yield from (row["desc"] for _, row in rows)


def value_tasks(output: Path) -> tuple[ValueTask, ...]:
    """Every data set of VALUE's own that has a demo, in the folder ``output``."""
    videos: Scripts = {"train": "train_retrieval.py", "evaluate": "eval_vr.py", "output": output}
    answers: Scripts = {"train": "train_qa.py", "evaluate": "eval_videoQA.py", "output": output}
    return (
        ValueVideoTask(name="yc2r", data=("yc2r",), **videos),
        ValueVideoTask(name="vatex_en_r", data=("vatex_en_r",), **videos),
        ValueAnswerTask(name="vlep", data=("vlep",), **answers),
        *(
            ValueCaptionTask(
                name=name,
                data=(name,),
                train="train_captioning.py",
                evaluate=TASKS[name].script,
                output=output,
            )
            for name in ("yc2c", "vatex_en_c")
        ),
    )
