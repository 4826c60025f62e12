"""The demo of every task: what it prepares, how it trains and evaluates, what it shows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from config.config import VcmrEvalOptions, load_run_options
from engine.restore import RunFolder
from evaluation.caption_metrics import score_lines
from evaluation.chance import MomentBounds, random_recall
from scripts.demo_corpus.datasets import CLIP_SECONDS, INTERVALS, LONG_VIDEOS, SHARDS
from scripts.demo_corpus.demo_steps import Command, Step
from scripts.demo_corpus.moment_report import MomentRun, plot_moments, recall_table
from scripts.demo_corpus.pretrain_demo import Transfer
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_json


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """What all tasks have in common: videos with subtitles, a training script, a recipe.

    Attributes:
        name: the recipe is ``config/debug-{name}.json``.
        dataset: whose videos and subtitles it reads.
        train: training script.
        output: the demo's folder.
    """

    name: str
    dataset: str
    train: str
    output: Path

    @property
    def datasets(self) -> list[str]:
        """Whose feature files it needs."""
        return [self.dataset]

    @property
    def ann(self) -> Path:
        """Raw annotations."""
        return self.output / "ann"

    @property
    def txt_db(self) -> Path:
        """Text databases."""
        return self.output / "txt_db"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.output / "runs" / self.name

    @property
    def toker(self) -> Command:
        """The option that names the tokenizer."""
        return ["--toker", self.output / "toker"]

    @property
    def features(self) -> Path:
        """The feature database."""
        return self.output / "video_db" / self.dataset

    @property
    def subtitles(self) -> Path:
        """The subtitle database."""
        return self.txt_db / f"{self.dataset}_subtitles.db"

    @property
    def videos(self) -> Command:
        """Options that name the video databases."""
        return ["--vfeat_db", self.features, "--sub_txt_db", self.subtitles]

    def video_steps(self) -> Iterator[Step]:
        """Feature and subtitle databases."""
        yield from self.feature_steps(self.dataset, self.dataset, clips=self.dataset == "how2")
        prefix = "" if self.dataset == "tv" else f"{self.dataset}_"  # TV's is published without
        yield Step(
            "Tokenise the subtitles and match them with frames",
            [
                *("scripts/prepro_sub.py", "--annotation"),
                *(self.ann / f"{self.dataset}_subtitles.jsonl", "--output", self.subtitles),
                *("--vid2nframe", self.features / "id2nframe.json"),
                *("--frame_length", str(INTERVALS[self.dataset])),
                *("--vid2dur_idx", self.ann / f"{prefix}vid2dur_idx.json", *self.toker),
            ],
            makes=self.subtitles,
        )

    def feature_steps(self, name: str, dataset: str, clips: bool) -> Iterator[Step]:
        """The feature database ``name`` of (a shard of) a data set, cut into clips or not."""
        folder = self.output / "video_db" / name
        paths = folder / "video_feat_info.pkl"
        target = ["--dataset", name, "--output", folder.parent]
        source = self.output / "features" / name
        yield Step(
            "Find each video's feature files",
            ["scripts/collect_video_feature_paths.py", "--feature_dir", source, *target],
            makes=paths,
        )
        cut = ["--clip_interval", str(CLIP_SECONDS)] if clips else []
        yield Step(
            "Gather the features in a database",
            [
                *("scripts/convert_videodb.py", "--vfeat_info_file", paths, *target),
                *("--frame_length", str(INTERVALS[dataset]), *cut),
            ],
            makes=folder / "id2nframe.json",
        )

    def text_steps(self) -> Iterator[Step]:
        """Databases of what is trained on, besides the videos."""
        yield from ()

    def training(self, options: list[str]) -> Step:
        """How to train."""
        raise NotImplementedError

    def evaluation(self, checkpoint: int) -> Iterator[Step]:
        """How to evaluate a checkpoint, where there is more to do than validation did."""
        yield from ()

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


@dataclass(frozen=True, kw_only=True)
class QueryTask(DemoTask):
    """Queries, questions or statements about videos.

    Attributes:
        queries: annotations are ``ann/{queries}_{split}.jsonl``.
        evaluate: evaluation script.
    """

    queries: str
    evaluate: str

    def text_steps(self) -> Iterator[Step]:
        for split in ("train", "val"):
            yield Step(
                f"Tokenise the queries of the {split} split",
                [
                    *("scripts/prepro_query.py", "--task", self.queries, "--annotation"),
                    *(self.ann / f"{self.queries}_{split}.jsonl", "--output"),
                    *(self.query_db(split), *self.toker),
                ],
                makes=self.query_db(split),
            )

    def query_db(self, split: str) -> Path:
        """The query database of a split."""
        return self.txt_db / f"{self.queries}_{split}.db"

    def training(self, options: list[str]) -> Step:
        return Step(
            "Train",
            [
                *(self.train, "--config", f"config/debug-{self.name}.json"),
                *("--train_query_txt_db", self.query_db("train")),
                *("--val_query_txt_db", self.query_db("val"), *self.videos),
                *("--output_dir", self.run, *options),
            ],
        )

    def evaluation(self, checkpoint: int) -> Iterator[Step]:
        yield Step(
            "Evaluate",
            [
                *(self.evaluate, "--query_txt_db", self.query_db("val"), "--split", "val"),
                *("--task", self.name, *self.videos, "--output_dir", self.run),
                *("--checkpoint", str(checkpoint)),
            ],
        )

    def metrics(self, checkpoint: int) -> dict:
        """What the evaluation measured."""
        return read_json(self.run / "results_val" / f"metrics_{checkpoint}.json")


@dataclass(frozen=True, kw_only=True)
class MomentTask(QueryTask):
    """Find moments in a corpus of videos."""

    def report(self, checkpoint: int) -> None:
        given = {"split": "val", "checkpoint": str(checkpoint)}
        options = load_run_options(VcmrEvalOptions, self.run, given)
        results = self.run / "results_val"
        run = MomentRun(
            results / f"results_{checkpoint}_all.json",
            results / f"metrics_{checkpoint}.json",
            self.ann / f"{self.queries}_val.jsonl",
            self.ann / f"{self.dataset}_subtitles.jsonl",
            self.ann / f"{self.dataset}_vid2nframe.json",
            MomentBounds(options.vfeat_interval, options.min_pred_l, options.max_pred_l),
        )
        picture = self.output / f"{self.name}_moments.png"
        plot_moments(run, picture)
        print(f"\nBefore non-maximum suppression, beside a random ranking:\n{recall_table(run)}")
        print(f"\nTrue and predicted moments of some queries: {picture}")


@dataclass(frozen=True, kw_only=True)
class VideoTask(QueryTask):
    """Find videos in a corpus."""

    def report(self, checkpoint: int) -> None:
        results = read_json(self.run / "results_val" / f"results_{checkpoint}_all.json")
        videos = len(results["video2idx"])
        recalls = self.metrics(checkpoint)["VR"]
        chance = {name: 100 * random_recall(1, videos, int(name[1:])) for name in recalls}
        _compare("recall (%)", recalls, chance)


@dataclass(frozen=True, kw_only=True)
class AnswerTask(QueryTask):
    """Choose an answer, or judge a statement.

    Attributes:
        choices: answers to choose from.
    """

    choices: int

    def report(self, checkpoint: int) -> None:
        accuracy = {"accuracy": self.metrics(checkpoint)["accuracy"]}
        _compare("in percent", accuracy, {"accuracy": 100 / self.choices})


@dataclass(frozen=True, kw_only=True)
class CaptionTask(DemoTask):
    """Describe clips."""

    @property
    def references(self) -> Path:
        """Clips to describe and their captions."""
        return self.ann / "tvc_val_release.jsonl"

    def text_steps(self) -> Iterator[Step]:
        for split in ("train", "val"):
            database = self.txt_db / f"tvc_{split}.db"
            yield Step(
                f"Tokenise the captions of the {split} split",
                [
                    *("scripts/prepro_tvc.py", "--annotation", self.ann / f"tvc_{split}.jsonl"),
                    *("--subtitles", self.ann / "tv_subtitles.jsonl"),
                    *("--output", database, *self.toker),
                ],
                makes=database,
            )

    def training(self, options: list[str]) -> Step:
        return Step(
            "Train",
            [
                *(self.train, "--config", f"config/debug-{self.name}.json"),
                *("--train_db", self.txt_db / "tvc_train.db"),
                *("--val_db", self.txt_db / "tvc_val.db", "--val_ref", self.references),
                *(*self.videos, "--output_dir", self.run, *options),
            ],
        )

    def captions(self, checkpoint: int) -> Path:
        """What the model said."""
        return self.run / "results_val" / f"captions_{checkpoint}.jsonl"

    def evaluation(self, checkpoint: int) -> Iterator[Step]:
        yield Step(
            "Describe the clips of the val split",
            [
                *("inf_tvc.py", "--model_dir", self.run, "--checkpoint", str(checkpoint)),
                *("--target_clip", self.references, "--output", self.captions(checkpoint)),
            ],
        )

    def report(self, checkpoint: int) -> None:
        references = [row for _, row in read_jsonl(self.references)]
        captions = [row for _, row in read_jsonl(self.captions(checkpoint))]
        training = (row for _, row in read_jsonl(self.ann / "tvc_train.jsonl"))
        texts = Counter(desc["desc"] for row in training for desc in row["descs"])
        always = texts.most_common(1)[0][0]
        same = [row | {"descs": [{"desc": always}]} for row in references]
        print(f"\nBeside it, the most frequent caption for every clip: “{always}”")
        _compare("metric", score_lines(captions, references), score_lines(same, references), "same")
        for caption, row in zip(captions[:5], references, strict=False):
            print(f"  said: {caption['descs'][0]['desc']}\n  true: {row['descs'][0]['desc']}")


@dataclass(frozen=True, kw_only=True)
class PretrainTask(QueryTask):
    """Pre-train on videos and subtitles; evaluated by fine-tuning on their queries.

    Attributes:
        finetune_steps: of every fine-tuning.
        seeds: of the fine-tunings.
    """

    finetune_steps: int = 60
    seeds: tuple[int, ...] = (1, 2, 3)

    def training(self, options: list[str]) -> Step:
        """The recipe names its databases inside: point a copy of it at the demo's folder."""
        recipe = self._moved(read_json(f"config/debug-{self.name}.json"))
        config = self.output / f"debug-{self.name}.json"
        write_json(config, recipe, indent=2)
        return Step("Train", [self.train, "--config", config, "--output_dir", self.run, *options])

    def _moved(self, value: Any) -> Any:
        """A recipe's value with its paths taken from the demo's folder."""
        if isinstance(value, dict):
            return {name: self._moved(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._moved(member) for member in value]
        if isinstance(value, str) and value.startswith("demo/"):
            return str(self.output / value.removeprefix("demo/"))
        return value

    def transfer(self, checkpoint: int) -> Transfer:
        """The fine-tunings."""
        queries = ("--train_query_txt_db", self.query_db("train"))
        return Transfer(
            script=self.evaluate,
            task=self.queries,
            databases=[*queries, "--val_query_txt_db", self.query_db("val"), *self.videos],
            runs=self.run.parent,
            checkpoint=self.run / "ckpt" / f"model_step_{checkpoint}.pt",
            steps=self.finetune_steps,
            seeds=self.seeds,
        )

    def evaluation(self, checkpoint: int) -> Iterator[Step]:
        return self.transfer(checkpoint).steps_to_run()

    def report(self, checkpoint: int) -> None:
        lines = [row for _, row in read_jsonl(self.run / "log" / "metrics.jsonl")]
        values = {
            row["name"].removeprefix("valid/"): row["value"]
            for row in lines
            if row["step"] == checkpoint and row["name"].startswith("valid/")
        }
        print("\n" + tabulate(sorted(values.items()), headers=("validation", "value")))
        print(f"\n{self.transfer(checkpoint).report()}")


@dataclass(frozen=True, kw_only=True)
class LongVideoPretrainTask(PretrainTask):
    """Pre-train on a second corpus too: long videos in shards, as HowTo100M."""

    @property
    def datasets(self) -> list[str]:
        return [self.dataset, LONG_VIDEOS]

    @property
    def shards(self) -> list[Path]:
        """The feature databases of the long videos' clips."""
        folder = self.output / "video_db"
        return [folder / f"{LONG_VIDEOS}_{number}" for number in range(SHARDS)]

    def video_steps(self) -> Iterator[Step]:
        yield from super().video_steps()
        for shard in self.shards:
            yield from self.feature_steps(shard.name, LONG_VIDEOS, clips=True)
        yield from self._clip_steps()

    def _clip_steps(self) -> Iterator[Step]:
        interval = str(INTERVALS[LONG_VIDEOS])
        whole, clips = (self.ann / f"{LONG_VIDEOS}_{name}.jsonl" for name in ("subtitles", "clips"))
        frames = ["--vid2nframe", *(shard / "id2nframe.json" for shard in self.shards)]
        timing = ["--frame_length", interval]
        subtitles = self.txt_db / f"{LONG_VIDEOS}_subtitles.db"
        lists = self.txt_db / "pretrain_splits"
        yield Step(
            "Cut the long videos' subtitles as their features were cut",
            [
                *("scripts/cut_clips.py", "--annotation", whole, "--output", clips),
                *(*frames, *timing, "--clip_interval", str(CLIP_SECONDS)),
            ],
            makes=clips,
        )
        yield Step(
            "Tokenise the clips' subtitles and match them with frames",
            [
                *("scripts/prepro_sub.py", "--annotation", clips, "--output", subtitles),
                *(*frames, *timing, *self.toker, "--task", LONG_VIDEOS),
            ],
            makes=subtitles,
        )
        yield Step(
            "Choose clips to learn from and to validate on",
            [
                *("scripts/make_pretrain_splits.py", "--name", LONG_VIDEOS, "--output", lists),
                *("--sub_txt_db", subtitles, "--vfeat_db", *self.shards, "--clips"),
                *("--val_share", "0.1"),
            ],
            makes=lists / f"{LONG_VIDEOS}_train_{SHARDS - 1}.json",
        )


def _compare(
    what: str, found: dict[str, float], chance: dict[str, float], beside: str = "chance"
) -> None:
    rows = [(name, value, chance[name]) for name, value in found.items()]
    print("\n" + tabulate(rows, headers=(what, "this run", beside), floatfmt=".1f"))


def demo_tasks(output: Path) -> dict[str, DemoTask]:
    """Every task that has a demo, in the folder ``output``."""
    tv, how2, violin, didemo, msrvtt = (
        {"output": output, "dataset": name} for name in ("tv", "how2", "violin", "didemo", "msrvtt")
    )
    moments = {"train": "train_vcmr.py", "evaluate": "eval_vcmr.py"}
    videos = {"train": "train_vr.py", "evaluate": "eval_vr.py"}
    questions = {"train": "train_videoQA.py", "evaluate": "eval_videoQA.py"}
    statements = {"train": "train_violin.py", "evaluate": "eval_violin.py"}
    pretraining = {"queries": "tvr", "train": "pretrain.py", "evaluate": "train_vcmr.py"}
    tasks = (
        MomentTask(name="tvr", queries="tvr", **tv, **moments),
        MomentTask(name="how2r", queries="how2r", **how2, **moments),
        MomentTask(name="didemo_video_sub", queries="didemo", **didemo, **moments),
        MomentTask(name="didemo_video_only", queries="didemo", **didemo, **moments),
        VideoTask(name="msrvtt_video_sub", queries="msrvtt", **msrvtt, **videos),
        VideoTask(name="msrvtt_video_only", queries="msrvtt", **msrvtt, **videos),
        AnswerTask(name="tvqa", queries="tvqa", choices=5, **tv, **questions),
        AnswerTask(name="how2qa", queries="how2qa", choices=4, **how2, **questions),
        AnswerTask(name="violin", queries="violin", choices=2, **violin, **statements),
        CaptionTask(name="tvc", train="train_tvc.py", **tv),
        PretrainTask(name="pretrain", **pretraining, **tv),
        LongVideoPretrainTask(name="pretrain_ht", **pretraining, **tv),
    )
    return {task.name: task for task in tasks}
