"""Options of the scripts that evaluate a finished run; the run's own options are the defaults."""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from config.groups import (
    Channel,
    DecodingOptions,
    Kind,
    LoaderOptions,
    MomentEvalOptions,
    PrecisionOptions,
    RetrievalDbOptions,
    RetrievalEvalOptions,
    StorageOptions,
    TrainingOptions,
    VideoDbOptions,
    VideoRankingOptions,
)
from config.options import POSITIVE, Options, option, redefault
from config.original import NEGATED_KEYS
from config.storage import from_container, usable_storage
from config.training import VcmrTask, VideoQaTask, ViolinTask, VrTask
from config.value import TASKS, DataSet, ValueTask, is_value
from config.values import convert
from utils.errors import UserError


class RunOptions(PrecisionOptions, LoaderOptions, VideoDbOptions, StorageOptions):
    """Run"""

    # Options that are not taken from the run: every evaluation chooses how to compute.
    OWN: ClassVar[tuple[str, ...]] = (
        *inspect.get_annotations(PrecisionOptions),
        *inspect.get_annotations(LoaderOptions),
        *NEGATED_KEYS,
        "checkpoint",  # in training, the weights to start from
    )

    checkpoint: str = option(
        help="step of one of the run's checkpoints, best, or a file; or an exported model (folder "
        "or hub name), whose options then hold instead of a run's"
    )

    @classmethod
    def class_for(cls, saved: Mapping[str, Any]) -> type[Self]:
        """Return the subclass for VALUE's rules if the run follows them and there is one."""
        if cls.VALUE or not is_value(saved):
            return cls
        return next((form for form in cls.__subclasses__() if form.VALUE), cls)

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all saved options but ``OWN``."""
        return {key: value for key, value in saved.items() if key not in cls.OWN}


class ChannelOptions(Options):
    """Channels"""

    channel: Literal["video_sub", "video_only", "sub_only"] | None = option(
        None, help="input modalities, for VALUE's runs only (null: those of the run)"
    )

    def check(self) -> None:
        """Check that options of VALUE's runs are given for these only."""
        super().check()
        for name in ("channel", "vid2dur_idx"):
            holds = self.VALUE or getattr(self, name, None) is None
            self.require(holds, name, "null: the run is none of VALUE's")


class EvalOptions(ChannelOptions, RunOptions):
    """What to evaluate"""

    RUN_FOLDER: ClassVar[str] = "output_dir"
    RESULTS_IN_RUN: ClassVar[bool] = True
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "output_dir", "split")
    TASK_NAMES: ClassVar[tuple[str, ...]]  # data sets that the script may evaluate a run on

    task: str = option(help="data set")
    output_dir: str = option(help="folder of the finished run; results are written there too")
    split: Literal["train", "val", "dev", "test", "test_public", "test_private"] = option(
        "val", help="split of the queries"
    )
    query_txt_db: str = option(help="query database (not given: the run's own for this split)")

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the saved options, with the run's queries of the split."""
        split, _, _ = given.get("split", cls.split).partition("_")
        queries = {"query_txt_db": saved.get(f"{split}_query_txt_db")}
        return super().from_run(saved, given) | queries

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the task may have."""
        hero = ("val", "test", "test_public")
        return ("train", *(TASKS[self.task].evaluated if self.VALUE else hero))

    @property
    def results_name(self) -> str:
        """Folder of the results, within the run's."""
        return f"results_{self.task}_{self.split}" if self.VALUE else f"results_{self.split}"

    def check(self) -> None:
        """Check that the run's rules have the task and the split."""
        super().check()
        names = self.TASK_NAMES
        self.require(self.task in names, "task", f"one of {', '.join(names)} for this run")
        splits = self.splits
        self.require(self.split in splits, "split", f"one of {', '.join(splits)} for this task")


class CorpusEvalOptions(RetrievalEvalOptions, RetrievalDbOptions, EvalOptions):
    """Corpus"""

    vcmr_eval_q_batch_size: int = redefault(
        RetrievalEvalOptions,
        "vcmr_eval_q_batch_size",
        80,
        aliases=("batch_size", "vr_eval_batch_size"),
    )
    vid2dur_idx: str | None = option(
        None,
        help="{split: {video: [seconds, index]}}, for VALUE's runs only: the videos to search "
        "(null: the subtitle database's)",
    )


class VcmrEvalOptions(CorpusEvalOptions, MomentEvalOptions):
    """Corpus moment retrieval (eval_vcmr.py)"""

    TASK_NAMES = get_args(VcmrTask)

    task: VcmrTask = "tvr"


class VrEvalOptions(CorpusEvalOptions, VideoRankingOptions):
    """Video retrieval (eval_vr.py)"""

    TASK_NAMES = get_args(VrTask)

    task: Literal[VrTask, "yc2r", "vatex_en_r"] = "msrvtt_video_sub"
    vfeat_interval: float = 2.0


class AnswerEvalOptions(EvalOptions):
    """Questions and statements"""

    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 10, aliases=("batch_size",))
    save_logits: bool = option(
        False,
        help="also write the score of every answer: results_{split}_w_logit/logits_{step}_all.json "
        "takes the place of the original's logits_{step}_all.pkl, which is not written",
    )


class VideoQaEvalOptions(AnswerEvalOptions):
    """Video question answering (eval_videoQA.py)"""

    TASK_NAMES = get_args(VideoQaTask)

    task: Literal[VideoQaTask, "vlep"] = "tvqa"


class ViolinEvalOptions(AnswerEvalOptions):
    """Video-and-language inference (eval_violin.py)"""

    TASK_NAMES = get_args(ViolinTask)

    task: ViolinTask = "violin"


class TvcInferenceOptions(ChannelOptions, DecodingOptions, RunOptions):
    """Captioning (inf_tvc.py)"""

    RUN_FOLDER: ClassVar[str] = "model_dir"
    TASK_NAMES: ClassVar[tuple[str, ...]] = ("tvc",)

    model_dir: str = option(help="folder of the finished run (an exported model needs none)")
    checkpoint: str = redefault(RunOptions, "checkpoint", MISSING, aliases=("ckpt_step",))
    target_clip: str = option(help="JSON lines of the clips to caption")
    output: str = option(
        help="JSON lines to write, in the format of the TVC server; of VALUE's runs: in model_dir"
    )
    cap_txt_db: str | None = option(
        None, help="database of captions, for its special tokens where no subtitles are read"
    )
    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 8, aliases=("batch_size",))
    # fp16 is the published default here; a machine without CUDA then computes in fp32.
    fp16: bool | None = option(  # type: ignore[assignment]  # wider, see Options
        None, help="half precision (null: where there is CUDA)"
    )

    @property
    def task(self) -> str:
        """The data set."""
        return self.TASK_NAMES[0]

    def output_file(self, label: str) -> str | Path:
        """Return the file for the captions of the checkpoint ``label``."""
        return self.output


def data_sets(kind: Kind) -> tuple[str, ...]:
    """Return the names of VALUE's data sets of a kind."""
    return tuple(task.name for task in TASKS.values() if task.kind == kind)


def listed_data_sets(saved: Mapping[str, Any]) -> list[DataSet]:
    """Return the entries of a run's lists, those to validate on first.

    Raises:
        UserError: an entry is no valid one.
    """
    entries: list[DataSet] = []
    for name in ("val_datasets", "train_datasets"):
        try:
            entries += convert(saved.get(name) or [], list[DataSet])
        except ValueError as error:
            raise UserError(f"the run's option {name}: {error}") from None
    return entries


class ValueForm(ChannelOptions):
    """A run by VALUE's rules"""

    VALUE: ClassVar[bool] = True
    RESULTS_IN_RUN: ClassVar[bool] = True
    TASK_NAMES: ClassVar[tuple[str, ...]]

    # The published default is half precision; a machine without CUDA then computes in fp32.
    fp16: bool | None = redefault(PrecisionOptions, "fp16", None)
    pin_mem: bool = redefault(LoaderOptions, "pin_mem", True)
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the run's entry for the data set, where there is one, then of the
        run's other options, then the container's databases."""
        entries = listed_data_sets(saved)
        named = (given.get("task"), saved.get("task"), *(entry.data_set for entry in entries))
        name = next((name for name in named if name in cls.TASK_NAMES), cls.TASK_NAMES[0])
        task = TASKS[name]
        split = given.get("split", task.selection)
        own = [entry for entry in entries if entry.data_set == name]
        own.sort(key=lambda entry: entry.split != split)
        channels = {entry.channel for entry in own[:1] or entries}
        channel = channels.pop() if len(channels) == 1 else Channel.VIDEO_SUB
        inherited = super().from_run(saved, given)
        if saved.get("task", name) != name:  # the run's databases are another data set's
            inherited |= dict.fromkeys(("query_txt_db", "sub_txt_db", "vfeat_db"))
        files = _container_files(task, split)
        files |= {key: value for key, value in inherited.items() if value is not None}
        for entry in own[:1]:
            files |= _entry_files(entry, split)
        if given.get("channel", channel) == Channel.VIDEO_ONLY:
            storage = given.get("storage") or usable_storage(saved.get("storage"))
            if not _has_subtitles(files, given, storage):
                learnt = [path for entry in own for path in entry.caption_dbs]
                captions = next(iter(learnt), f"/txt/{task.train[0]}")
                files |= {"sub_txt_db": None, "cap_txt_db": captions}
        return files | {"task": name, "split": split, "channel": channel.value}

    @property
    def reads_subtitles(self) -> bool:
        """Whether subtitles are read."""
        return self.channel != Channel.VIDEO_ONLY

    def check(self) -> None:
        """Check that a channel with subtitles has their database."""
        super().check()
        if self.sub_txt_db is None and self.reads_subtitles:
            raise UserError(f"missing options: --sub_txt_db (channel {self.channel} reads them)")


def _container_files(task: ValueTask, split: str) -> dict[str, Any]:
    """Return the container's paths of a data set's files."""
    evaluated = f"/txt/{task.evaluated.get(split, task.train[0])}"
    return {
        **dict.fromkeys(("query_txt_db", "target_clip"), evaluated),
        "sub_txt_db": f"/txt/{task.subtitles}",
        "vfeat_db": f"/video/{task.corpus}",
    }


def _has_subtitles(files: Mapping[str, Any], given: Mapping[str, Any], storage: str | None) -> bool:
    """Return whether there is a subtitle database, which a run without subtitles does not need."""
    if "sub_txt_db" in given:
        return given["sub_txt_db"] is not None
    return Path(from_container(files["sub_txt_db"], storage)).is_dir()


def _entry_files(entry: DataSet, split: str) -> dict[str, Any]:
    """Return the files that an entry of a run's lists names."""
    files = {"vfeat_db": entry.vfeat_db, "sub_txt_db": entry.sub_txt_db}
    if entry.split == split:
        files |= {"query_txt_db": entry.query_txt_db, "target_clip": entry.gt_anno}
    return {name: file for name, file in files.items() if file is not None}


class ValueVcmrEvalOptions(ValueForm, VcmrEvalOptions):
    """Corpus moment retrieval, VALUE"""

    TASK_NAMES = data_sets(Kind.MOMENTS)


class ValueVrEvalOptions(ValueForm, VrEvalOptions):
    """Video retrieval, VALUE"""

    TASK_NAMES = data_sets(Kind.VIDEOS)

    vfeat_interval: float = 1.5


class ValueQaEvalOptions(ValueForm, VideoQaEvalOptions):
    """Video question answering, VALUE"""

    TASK_NAMES = data_sets(Kind.QUESTIONS)


class ValueViolinEvalOptions(ValueForm, ViolinEvalOptions):
    """Video-and-language inference, VALUE"""

    TASK_NAMES = data_sets(Kind.STATEMENTS)


class ValueTvcInferenceOptions(ValueForm, TvcInferenceOptions):
    """Captioning, VALUE (inf_tvc.py)"""

    TASK_NAMES = ("tvc",)
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "val_batch_size", "batch_size")

    output: str | None = None  # type: ignore[assignment]  # wider, see Options
    val_batch_size: int = 30

    @property
    def split(self) -> str:
        """Split that the name of the file of clips tells; the one that selects a checkpoint where
        it tells none."""
        task, name = TASKS[self.task], Path(self.target_clip).name
        return next((s for s, file in task.evaluated.items() if file == name), task.selection)

    def output_file(self, label: str) -> str | Path:
        """Return the file for the captions of the checkpoint ``label``."""
        # TVC's published name says "test" of any split.
        split = "test" if self.task == "tvc" else self.split
        return self.output_in(self.run_folder, f"{self.task}_{split}_step{label}.jsonl")

    def output_in(self, folder: Path, default: str) -> str | Path:
        """Return ``output``, or else ``default``, in a folder; "" for an empty ``output``."""
        name = default if self.output is None else self.output
        return name and folder / name


class Yc2cInferenceOptions(ValueTvcInferenceOptions):
    """Captioning, VALUE (inf_yc2c.py)"""

    TASK_NAMES = ("yc2c",)

    val_batch_size: int = 16


class VatexInferenceOptions(ValueTvcInferenceOptions):
    """Captioning, VALUE (inf_vatex_en_c.py)"""

    TASK_NAMES = ("vatex_en_c",)

    val_batch_size: int = 96


class ScorerOptions(MomentEvalOptions, RunOptions):
    """A model to search an index with (index_videos.py, search_videos.py)"""

    RUN_FOLDER: ClassVar[str] = "run_dir"
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "vfeat_db", "sub_txt_db")

    run_dir: str = option(
        help="folder of a finished run of train_vcmr.py (an exported model needs none)"
    )
    toker: str | None = option(
        None, help="tokenizer, hub name or folder (null: the one that made the subtitle database)"
    )
    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")
    # The videos that are searched are not the run's.
    vfeat_db: str | None = None  # type: ignore[assignment]  # wider, see Options
    sub_txt_db: str | None = None  # type: ignore[assignment]  # wider, see Options


class SearchOptions(RetrievalDbOptions, ScorerOptions):
    """Search (scripts/search_videos.py)"""

    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "nms_thd")

    query: list[str] = option(help="one sentence or more, each in quotes")
    top: int = option(10, help="moments listed per sentence", rule=POSITIVE)
    output: str | None = option(None, help="JSON file to write the moments to")
    task: VcmrTask = "tvr"
    vfeat_db: str
    nms_thd: float = 0.5
