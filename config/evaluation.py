# ruff: noqa: RUF009 (option() and redefault() declare fields)
"""Options of the scripts that evaluate a finished run, whose own options fill what is not given."""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, get_args

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


@dataclass(frozen=True, kw_only=True)
class RunOptions(PrecisionOptions, LoaderOptions, VideoDbOptions, StorageOptions):
    """Run"""

    # How to compute is chosen again for every evaluation: training's choice does not carry over.
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
        """Its form for runs by VALUE's rules, where the run is one and there is such a form."""
        form = VALUE_FORMS.get(cls, cls) if is_value(saved) else cls
        return form if issubclass(form, cls) else cls

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Everything but ``OWN`` follows the run."""
        return {key: value for key, value in saved.items() if key not in cls.OWN}


@dataclass(frozen=True, kw_only=True)
class ChannelOptions(Options):
    """Channels"""

    channel: Literal["video_sub", "video_only", "sub_only"] | None = option(
        None, help="what is read of the videos, for VALUE's runs alone (null: what the run reads)"
    )

    def check(self) -> None:
        """Only VALUE's runs know channels."""
        super().check()
        holds = self.VALUE or self.channel is None
        self.require(holds, "channel", "null: the run is none of VALUE's, its task tells what")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ChannelOptions, RunOptions):
    """What to evaluate"""

    RUN_FOLDER: ClassVar[str] = "output_dir"
    RESULTS_IN_RUN: ClassVar[bool] = True
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "output_dir", "split")
    TASK_NAMES: ClassVar[Any]  # a Literal

    if TYPE_CHECKING:  # every task declares it with its own data sets
        task: str
    output_dir: str = option(help="folder of the finished run; results are written there too")
    split: Literal["train", "val", "dev", "test", "test_public", "test_private"] = option(
        "val", help="split of the queries"
    )
    query_txt_db: str = option(help="query database (not given: the run's own for this split)")

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Queries that are not given are those that the run had for the split."""
        split, _, _ = given.get("split", cls.split).partition("_")
        queries = {"query_txt_db": saved.get(f"{split}_query_txt_db")}
        return super().from_run(saved, given) | queries

    @classmethod
    def task_names(cls) -> tuple[str, ...]:
        """Return what may be evaluated."""
        return get_args(cls.TASK_NAMES)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the task may have."""
        return ("train", "val", "test", "test_public")

    @property
    def results_name(self) -> str:
        """Folder of the results, in the run's."""
        return f"results_{self.split}"

    def check(self) -> None:
        """The run's rules know task and split."""
        super().check()
        names = self.task_names()
        self.require(self.task in names, "task", f"one of {', '.join(names)} for this run")
        splits = self.splits
        self.require(self.split in splits, "split", f"one of {', '.join(splits)} for this task")


@dataclass(frozen=True, kw_only=True)
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
        help="{split: {video: [seconds, index]}}, for VALUE's runs alone: the videos to search "
        "(null: the subtitle database's)",
    )

    def check(self) -> None:
        """Only VALUE's runs search the videos of any file."""
        super().check()
        holds = self.VALUE or self.vid2dur_idx is None
        self.require(holds, "vid2dur_idx", "null: the run is none of VALUE's")


@dataclass(frozen=True, kw_only=True)
class VcmrEvalOptions(CorpusEvalOptions, MomentEvalOptions):
    """Corpus moment retrieval (eval_vcmr.py)"""

    TASK_NAMES: ClassVar[Any] = VcmrTask

    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")


@dataclass(frozen=True, kw_only=True)
class VrEvalOptions(CorpusEvalOptions, VideoRankingOptions):
    """Video retrieval (eval_vr.py)"""

    TASK_NAMES: ClassVar[Any] = VrTask

    task: Literal[VrTask, "yc2r", "vatex_en_r"] = redefault(
        RetrievalDbOptions, "task", "msrvtt_video_sub"
    )
    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 2.0)


@dataclass(frozen=True, kw_only=True)
class AnswerEvalOptions(EvalOptions):
    """Questions and statements"""

    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 10, aliases=("batch_size",))
    save_logits: bool = option(
        False,
        help="also write the score of every answer: results_{split}_w_logit/logits_{step}_all.json "
        "takes the place of the original's logits_{step}_all.pkl, which is not written",
    )


@dataclass(frozen=True, kw_only=True)
class VideoQaEvalOptions(AnswerEvalOptions):
    """Video question answering (eval_videoQA.py)"""

    TASK_NAMES: ClassVar[Any] = VideoQaTask

    task: Literal[VideoQaTask, "vlep"] = option("tvqa", help="data set")


@dataclass(frozen=True, kw_only=True)
class ViolinEvalOptions(AnswerEvalOptions):
    """Video-and-language inference (eval_violin.py)"""

    TASK_NAMES: ClassVar[Any] = ViolinTask

    task: ViolinTask = option("violin", help="data set")


@dataclass(frozen=True, kw_only=True)
class TvcInferenceOptions(ChannelOptions, DecodingOptions, RunOptions):
    """Captioning (inf_tvc.py)"""

    RUN_FOLDER: ClassVar[str] = "model_dir"

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
    fp16: bool | None = option(  # type: ignore[assignment]
        None, help="half precision (null: where there is CUDA)"
    )

    @property
    def task(self) -> str:
        """The data set."""
        return "tvc"

    def output_file(self, label: str) -> str | Path:
        """Return where the captions of the checkpoint ``label`` go."""
        return self.output


def listed_data_sets(saved: Mapping[str, Any]) -> list[DataSet]:
    """Entries of a run's lists, those to validate on first.

    Raises:
        UserError: one is none.
    """
    entries: list[DataSet] = []
    for name in ("val_datasets", "train_datasets"):
        try:
            entries += convert(saved.get(name) or [], list[DataSet])
        except ValueError as error:
            raise UserError(f"the run's option {name}: {error}") from None
    return entries


class _OfDataSet(Protocol):
    @property
    def task(self) -> str: ...
    @property
    def split(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class ValueForm(ChannelOptions):
    """A run by VALUE's rules"""

    VALUE: ClassVar[bool] = True
    RESULTS_IN_RUN: ClassVar[bool] = True
    KIND: ClassVar[Kind]

    # The published default is half precision; a machine without CUDA then computes in fp32.
    fp16: bool | None = redefault(PrecisionOptions, "fp16", None)
    pin_mem: bool = redefault(LoaderOptions, "pin_mem", True)
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)

    @classmethod
    def task_names(cls) -> tuple[str, ...]:
        """Data sets of the model's head."""
        return tuple(task.name for task in TASKS.values() if task.kind == cls.KIND)

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is not given from the run's entry for the data set; failing that,
        databases are those of the container."""
        entries = listed_data_sets(saved)
        named = (given.get("task"), saved.get("task"), *(entry.data_set for entry in entries))
        name = next((name for name in named if name in cls.task_names()), cls.task_names()[0])
        split = given.get("split", TASKS[name].selection)
        inherited = super().from_run(saved, given)
        if saved.get("task", name) != name:  # what the run names is another data set's
            inherited |= dict.fromkeys(("query_txt_db", "sub_txt_db", "vfeat_db"))
        own = sorted(
            (entry for entry in entries if entry.data_set == name),
            key=lambda entry: entry.split != split,
        )
        channels = {entry.channel for entry in own[:1] or entries}
        channel = channels.pop() if len(channels) == 1 else Channel.VIDEO_SUB
        files = _container_files(TASKS[name], split)
        files |= {key: value for key, value in inherited.items() if value is not None}
        for entry in own[:1]:
            files |= _entry_files(entry, split)
        if given.get("channel", channel) == Channel.VIDEO_ONLY:
            storage = given.get("storage") or usable_storage(saved.get("storage"))
            if not _has_subtitles(files, given, storage):
                learnt = [path for entry in own for path in entry.caption_dbs]
                captions = next(iter(learnt), f"/txt/{TASKS[name].train[0]}")
                files |= {"sub_txt_db": None, "cap_txt_db": captions}
        return files | {"task": name, "split": split, "channel": channel.value}

    @property
    def reads_subtitles(self) -> bool:
        """Whether subtitles are read."""
        return self.channel != Channel.VIDEO_ONLY

    @property
    def splits(self: _OfDataSet) -> tuple[str, ...]:
        """Those of the data set."""
        return ("train", *TASKS[self.task].evaluated)

    @property
    def results_name(self: _OfDataSet) -> str:
        """Folder of the results, in the run's."""
        return f"results_{self.task}_{self.split}"

    def check(self) -> None:
        """A channel with subtitles knows their database."""
        super().check()
        if self.sub_txt_db is None and self.reads_subtitles:
            raise UserError(f"missing options: --sub_txt_db (channel {self.channel} reads them)")


def _container_files(task: ValueTask, split: str) -> dict[str, Any]:
    """Return where the container has a data set's files."""
    evaluated = task.evaluated.get(split, task.train[0])
    return {
        "query_txt_db": f"/txt/{evaluated}",
        "target_clip": f"/txt/{evaluated}",
        "sub_txt_db": f"/txt/{task.subtitles}",
        "vfeat_db": f"/video/{task.corpus}",
    }


def _has_subtitles(files: Mapping[str, Any], given: Mapping[str, Any], storage: str | None) -> bool:
    """Return whether there is a subtitle database, which a run without subtitles does not need."""
    if "sub_txt_db" in given:
        return given["sub_txt_db"] is not None
    return Path(from_container(files["sub_txt_db"], storage)).is_dir()


def _entry_files(entry: DataSet, split: str) -> dict[str, Any]:
    """Return what an entry of a run's lists names of its data set."""
    files = {"vfeat_db": entry.vfeat_db, "sub_txt_db": entry.sub_txt_db}
    if entry.split == split:
        files |= {"query_txt_db": entry.query_txt_db, "target_clip": entry.gt_anno}
    return {name: file for name, file in files.items() if file is not None}


@dataclass(frozen=True, kw_only=True)
class ValueVcmrEvalOptions(ValueForm, VcmrEvalOptions):
    """Corpus moment retrieval, VALUE"""

    KIND: ClassVar[Kind] = Kind.MOMENTS


@dataclass(frozen=True, kw_only=True)
class ValueVrEvalOptions(ValueForm, VrEvalOptions):
    """Video retrieval, VALUE"""

    KIND: ClassVar[Kind] = Kind.VIDEOS

    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 1.5)


@dataclass(frozen=True, kw_only=True)
class ValueQaEvalOptions(ValueForm, VideoQaEvalOptions):
    """Video question answering, VALUE"""

    KIND: ClassVar[Kind] = Kind.QUESTIONS


@dataclass(frozen=True, kw_only=True)
class ValueViolinEvalOptions(ValueForm, ViolinEvalOptions):
    """Video-and-language inference, VALUE"""

    KIND: ClassVar[Kind] = Kind.STATEMENTS


@dataclass(frozen=True, kw_only=True)
class ValueTvcInferenceOptions(ValueForm, TvcInferenceOptions):
    """Captioning, VALUE (inf_tvc.py)"""

    KIND: ClassVar[Kind] = Kind.CAPTIONS
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "val_batch_size", "batch_size")

    output: str | None = redefault(TvcInferenceOptions, "output", None)  # type: ignore[assignment]
    val_batch_size: int = redefault(TvcInferenceOptions, "val_batch_size", 30)

    @classmethod
    def task_names(cls) -> tuple[str, ...]:
        """The script's data set."""
        return ("tvc",)

    @property
    def task(self) -> str:
        """The data set."""
        return self.task_names()[0]

    @property
    def split(self) -> str:
        """What the clips are of, by the name of their file; where that does not tell, the split
        that selects a checkpoint."""
        task, name = TASKS[self.task], Path(self.target_clip).name
        return next((s for s, file in task.evaluated.items() if file == name), task.selection)

    def output_file(self, label: str) -> str | Path:
        """Return where the captions of the checkpoint ``label`` go."""
        # TVC's published name says "test" of any split.
        split = "test" if self.task == "tvc" else self.split
        return self.output_in(self.run_folder, f"{self.task}_{split}_step{label}.jsonl")

    def output_in(self, folder: Path, default: str) -> str | Path:
        """``output``, or else ``default``, in a folder; "" where that is given: no file has it."""
        name = default if self.output is None else self.output
        return name and folder / name


@dataclass(frozen=True, kw_only=True)
class Yc2cInferenceOptions(ValueTvcInferenceOptions):
    """Captioning, VALUE (inf_yc2c.py)"""

    val_batch_size: int = redefault(TvcInferenceOptions, "val_batch_size", 16)

    @classmethod
    def task_names(cls) -> tuple[str, ...]:
        """The script's data set."""
        return ("yc2c",)


@dataclass(frozen=True, kw_only=True)
class VatexInferenceOptions(ValueTvcInferenceOptions):
    """Captioning, VALUE (inf_vatex_en_c.py)"""

    val_batch_size: int = redefault(TvcInferenceOptions, "val_batch_size", 96)

    @classmethod
    def task_names(cls) -> tuple[str, ...]:
        """The script's data set."""
        return ("vatex_en_c",)


# Options of a run that is VALUE's, by those of the script.
VALUE_FORMS: Mapping[type[RunOptions], type[ValueForm]] = {
    VcmrEvalOptions: ValueVcmrEvalOptions,
    VrEvalOptions: ValueVrEvalOptions,
    VideoQaEvalOptions: ValueQaEvalOptions,
    ViolinEvalOptions: ValueViolinEvalOptions,
    TvcInferenceOptions: ValueTvcInferenceOptions,
}


@dataclass(frozen=True, kw_only=True)
class SearchOptions(MomentEvalOptions, RetrievalDbOptions, RunOptions):
    """Search (scripts/search_videos.py)"""

    RUN_FOLDER: ClassVar[str] = "run_dir"
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "nms_thd")

    run_dir: str = option(
        help="folder of a finished run of train_vcmr.py (an exported model needs none)"
    )
    query: list[str] = option(help="one sentence or more, each in quotes")
    top: int = option(10, help="moments listed per sentence", rule=POSITIVE)
    output: str | None = option(None, help="JSON file to write the moments to")
    toker: str | None = option(
        None, help="tokenizer, hub name or folder (null: the one that made the subtitle database)"
    )
    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")
    nms_thd: float = redefault(MomentEvalOptions, "nms_thd", 0.5)


@dataclass(frozen=True, kw_only=True)
class ScorerOptions(MomentEvalOptions, RunOptions):
    """A model to search an index with (index_videos.py, search_videos.py)"""

    RUN_FOLDER: ClassVar[str] = "run_dir"
    # What is searched is not what the run read.
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "vfeat_db", "sub_txt_db")

    run_dir: str = redefault(SearchOptions, "run_dir", MISSING)
    toker: str | None = redefault(SearchOptions, "toker", None)
    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")
    vfeat_db: str | None = redefault(VideoDbOptions, "vfeat_db", None)  # type: ignore[assignment]
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)  # type: ignore[assignment]
