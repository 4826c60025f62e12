"""The demo of every task: how it trains and evaluates, what it shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from config.config import VcmrEvalOptions, VideoQaEvalOptions, load_run_options
from evaluation.chance import MomentBounds, random_recall
from scripts.demo_corpus.answer_report import plot_answers
from scripts.demo_corpus.caption_demo import CaptionTask
from scripts.demo_corpus.demo_task import DemoTask, Scripts, compare
from scripts.demo_corpus.moment_report import MomentRun, plot_moments, recall_table
from scripts.demo_corpus.multitask_demo import MultitaskTask
from scripts.demo_corpus.pretrain_demo import Command, Transfer
from scripts.demo_corpus.search_demo import SearchTask
from scripts.demo_corpus.value_demo import value_tasks
from utils.files import read_json, read_jsonl


@dataclass(frozen=True, kw_only=True)
class MomentTask(DemoTask):
    """Find moments in a corpus of videos."""

    def report(self, checkpoint: int) -> None:
        given = {"split": "val", "checkpoint": str(checkpoint)}
        options = load_run_options(VcmrEvalOptions, self.run, given)
        run = MomentRun(
            self.results(checkpoint),
            self.metrics(checkpoint),
            Path(options.query_txt_db) / "query_data.jsonl",
            self.ann / f"{self.corpora[0]}_subtitles.jsonl",
            Path(options.vfeat_db) / "id2nframe.json",
            MomentBounds(options.vfeat_interval, options.min_pred_l, options.max_pred_l),
        )
        picture = self.output / f"{self.name}_moments.png"
        plot_moments(run, picture)
        print(f"\nBefore non-maximum suppression, beside a random ranking:\n{recall_table(run)}")
        print(f"\nTrue and predicted moments of some queries: {picture}")


@dataclass(frozen=True, kw_only=True)
class VideoTask(DemoTask):
    """Find videos in a corpus."""

    def report(self, checkpoint: int) -> None:
        videos = len(read_json(self.results(checkpoint))["video2idx"])
        recalls = read_json(self.metrics(checkpoint))["VR"]
        chance = {name: 100 * random_recall(1, videos, int(name[1:])) for name in recalls}
        compare("recall (%)", recalls, chance)


@dataclass(frozen=True, kw_only=True)
class AnswerTask(DemoTask):
    """Choose an answer, or judge a statement.

    Attributes:
        choices: answers to choose from.
    """

    choices: int

    def report(self, checkpoint: int) -> None:
        accuracy = {"accuracy": read_json(self.metrics(checkpoint))["accuracy"]}
        compare("in percent", accuracy, {"accuracy": 100 / self.choices})


@dataclass(frozen=True, kw_only=True)
class QuestionTask(AnswerTask):
    """Choose an answer to a question about a video."""

    def report(self, checkpoint: int) -> None:
        super().report(checkpoint)
        given = {"split": "val", "checkpoint": str(checkpoint)}
        picture = self.output / f"{self.name}_answers.png"
        plot_answers(load_run_options(VideoQaEvalOptions, self.run, given), picture)
        print(f"\nSome questions, and the frames that their answers rest on: {picture}")


@dataclass(frozen=True, kw_only=True)
class PretrainTask(DemoTask):
    """Pre-train on videos and subtitles; evaluated by fine-tuning on the first data set.

    Attributes:
        finetune_steps: of every fine-tuning.
        seeds: of the fine-tunings.
    """

    finetune_steps: int = 60
    seeds: tuple[int, ...] = (1, 2, 3)

    def transfer(self, checkpoint: int) -> Transfer:
        """The fine-tunings."""
        return Transfer(
            script=self.evaluate,
            task=self.data[0],
            recipe=self.recipe(self.data[0]),
            runs=self.run.parent,
            checkpoint=self.run / "ckpt" / f"model_step_{checkpoint}.pt",
            steps=self.finetune_steps,
            seeds=self.seeds,
        )

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        return self.transfer(checkpoint).commands()

    def report(self, checkpoint: int) -> None:
        lines = [row for _, row in read_jsonl(self.run / "log" / "metrics.jsonl")]
        values = {
            row["name"].removeprefix("valid/"): row["value"]
            for row in lines
            if row["step"] == checkpoint and row["name"].startswith("valid/")
        }
        print("\n" + tabulate(sorted(values.items()), headers=("validation", "value")))
        print(f"\n{self.transfer(checkpoint).report()}")


def demo_tasks(output: Path) -> dict[str, DemoTask]:
    """Every task that has a demo, in the folder ``output``."""
    moments: Scripts = {"train": "train_vcmr.py", "evaluate": "eval_vcmr.py", "output": output}
    videos: Scripts = {"train": "train_vr.py", "evaluate": "eval_vr.py", "output": output}
    questions: Scripts = {
        "train": "train_videoQA.py",
        "evaluate": "eval_videoQA.py",
        "output": output,
    }
    statements: Scripts = {
        "train": "train_violin.py",
        "evaluate": "eval_violin.py",
        "output": output,
    }
    captions: Scripts = {"train": "train_tvc.py", "evaluate": "inf_tvc.py", "output": output}
    pretraining: Scripts = {"train": "pretrain.py", "evaluate": "train_vcmr.py", "output": output}
    of_value = value_tasks(output)
    tasks = (
        MomentTask(name="tvr", data=("tvr",), **moments),
        MomentTask(name="how2r", data=("how2r",), **moments),
        MomentTask(name="didemo_video_sub", data=("didemo",), **moments),
        MomentTask(name="didemo_video_only", data=("didemo",), **moments),
        VideoTask(name="msrvtt_video_sub", data=("msrvtt",), **videos),
        VideoTask(name="msrvtt_video_only", data=("msrvtt",), **videos),
        QuestionTask(name="tvqa", data=("tvqa",), choices=5, **questions),
        QuestionTask(name="how2qa", data=("how2qa",), choices=4, **questions),
        AnswerTask(name="violin", data=("violin",), choices=2, **statements),
        CaptionTask(name="tvc", data=("tvc",), **captions),
        PretrainTask(name="pretrain", data=("tvr", "tv_pretrain"), **pretraining),
        PretrainTask(name="pretrain_ht", data=("tvr", "tv_pretrain", "ht_pretrain"), **pretraining),
        SearchTask(name="search", data=(), **moments),
        *of_value,
        MultitaskTask(
            name="multitask",
            data=tuple(task.name for task in of_value),
            train="train_all_multitask.py",
            evaluate="train_all_multitask.py",
            output=output,
            tasks=of_value,
        ),
    )
    return {task.name: task for task in tasks}
