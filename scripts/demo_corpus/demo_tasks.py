"""The demo of every task: how it trains, evaluates and reports."""

from dataclasses import dataclass
from pathlib import Path

from config.config import VcmrEvalOptions, VideoQaEvalOptions, load_run_options
from evaluation.chance import MomentBounds, random_video_recall
from scripts.demo_corpus.answer_report import plot_answers
from scripts.demo_corpus.caption_demo import CaptionTask
from scripts.demo_corpus.demo_task import DemoTask, compare
from scripts.demo_corpus.moment_report import MomentRun, plot_moments, recall_table
from scripts.demo_corpus.multitask_demo import MultitaskTask
from scripts.demo_corpus.pretrain_demo import PretrainTask
from scripts.demo_corpus.search_demo import SearchTask
from scripts.demo_corpus.value_demo import value_tasks
from utils.files import read_json


@dataclass(frozen=True, kw_only=True)
class MomentTask(DemoTask):
    """Find moments in a corpus of videos."""

    train: str = "train_vcmr.py"
    evaluate: str = "eval_vcmr.py"

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
        print(f"\nBefore non-maximum suppression, and by chance:\n{recall_table(run)}")
        print(f"\nTrue and predicted moments of some queries: {picture}")


@dataclass(frozen=True, kw_only=True)
class VideoTask(DemoTask):
    """Find videos in a corpus."""

    train: str = "train_vr.py"
    evaluate: str = "eval_vr.py"

    def report(self, checkpoint: int) -> None:
        videos = len(read_json(self.results(checkpoint))["video2idx"])
        recalls = read_json(self.metrics(checkpoint))["VR"]
        compare("recall (%)", recalls, random_video_recall(videos))


@dataclass(frozen=True, kw_only=True)
class StatementTask(DemoTask):
    """Judge statements about a video."""

    choices: int  # number of answers
    train: str = "train_violin.py"
    evaluate: str = "eval_violin.py"

    def report(self, checkpoint: int) -> None:
        accuracy = {"accuracy": read_json(self.metrics(checkpoint))["accuracy"]}
        compare("in percent", accuracy, {"accuracy": 100 / self.choices})


@dataclass(frozen=True, kw_only=True)
class QuestionTask(StatementTask):
    """Choose an answer to a question about a video."""

    train: str = "train_videoQA.py"
    evaluate: str = "eval_videoQA.py"

    def report(self, checkpoint: int) -> None:
        super().report(checkpoint)
        given = {"split": "val", "checkpoint": str(checkpoint)}
        picture = self.output / f"{self.name}_answers.png"
        plot_answers(load_run_options(VideoQaEvalOptions, self.run, given), picture)
        print(f"\nSome questions, and the frames that their answers rest on: {picture}")


def demo_tasks(output: Path) -> dict[str, DemoTask]:
    """Return the demo of every task, in the folder ``output``, by name."""
    of_value = value_tasks(output)
    pretraining = ("tvr", "tv_pretrain")
    tasks: tuple[DemoTask, ...] = (
        MomentTask(name="tvr", data=("tvr",), output=output),
        MomentTask(name="how2r", data=("how2r",), output=output),
        MomentTask(name="didemo_video_sub", data=("didemo",), output=output),
        MomentTask(name="didemo_video_only", data=("didemo",), output=output),
        VideoTask(name="msrvtt_video_sub", data=("msrvtt",), output=output),
        VideoTask(name="msrvtt_video_only", data=("msrvtt",), output=output),
        QuestionTask(name="tvqa", data=("tvqa",), output=output, choices=5),
        QuestionTask(name="how2qa", data=("how2qa",), output=output, choices=4),
        StatementTask(name="violin", data=("violin",), output=output, choices=2),
        CaptionTask(name="tvc", data=("tvc",), output=output),
        PretrainTask(name="pretrain", data=pretraining, output=output),
        PretrainTask(name="pretrain_ht", data=(*pretraining, "ht_pretrain"), output=output),
        SearchTask(name="search", data=(), output=output),
        *of_value,
        MultitaskTask(
            name="multitask",
            data=tuple(task.name for task in of_value),
            output=output,
            tasks=of_value,
        ),
    )
    return {task.name: task for task in tasks}
