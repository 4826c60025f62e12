# ruff: noqa: RUF009 (a default is an option with that default)
"""VALUE: its data sets, and the options of a run over one of them or several (arXiv 2106.04632)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from config.groups import (
    Channel,
    DecodingOptions,
    Kind,
    MomentEvalOptions,
    RankingLossOptions,
    RetrievalEvalOptions,
    SpanLossOptions,
    TrainingOptions,
    VideoDbOptions,
    VideoRankingOptions,
)
from config.options import FRACTION, NOT_NEGATIVE, option, redefault
from utils.logger import LOGGER

AVERAGE_RECALL, ACCURACY, CIDER = "AveR", "accuracy", "CIDEr"  # what a data set is scored by
META_AVERAGE = "Meta-Ave"

# Keys of which a JSON file has one at least if it is VALUE's.
VALUE_KEYS = frozenset({"train_datasets", "no_fp16"})

QUESTION_SPAN_WEIGHT = 0.4  # where the options name none


@dataclass(frozen=True)
class ValueTask:
    """One of VALUE's data sets.

    Attributes:
        name: of the data set.
        task: what its lists call the task.
        kind: what its databases hold.
        corpus: whose videos it has: ``/txt/{corpus}_subtitles.db``, ``/video/{corpus}``.
        metric: that it is scored by.
        script: that evaluates it.
        train: files to train on, in ``/txt``.
        evaluated: file of every split to evaluate: a query database, or clips to caption.
        selection: split that selects a checkpoint.
        submitted: its two splits in a submission.
        span_weight: option that weighs its span loss.
        choices: how many answers each of its questions, statements or examples offers.
    """

    name: str
    task: str
    kind: Kind
    corpus: str
    metric: str
    script: str
    train: tuple[str, ...]
    evaluated: Mapping[str, str]
    selection: str
    submitted: tuple[str, str]
    span_weight: str | None = None
    choices: int = 0

    @property
    def subtitles(self) -> str:
        """Its subtitle database, in ``/txt``."""
        return f"{self.corpus}_subtitles.db"


def _queries(
    name: str, task: str, kind: Kind, corpus: str, files: Mapping[str, str], **others: Any
) -> ValueTask:
    """A data set with query databases ``{name}_{ending}.db``: split → ending."""
    of_retrieval = kind in (Kind.MOMENTS, Kind.VIDEOS)
    scripts = {"vcmr": "eval_vcmr.py", "vr": "eval_vr.py", "violin": "eval_violin.py"}
    selection, last = list(files)[:2]
    return ValueTask(
        name=name,
        task=task,
        kind=kind,
        corpus=corpus,
        metric=AVERAGE_RECALL if of_retrieval else ACCURACY,
        script=scripts.get(task, "eval_videoQA.py"),
        train=(f"{name}_train.db",),
        evaluated={split: f"{name}_{ending}.db" for split, ending in files.items()},
        **{"selection": selection, "submitted": (selection, last)} | others,
    )


def _captions(name: str, corpus: str, train: tuple[str, ...], splits: tuple[str, str]) -> ValueTask:
    """A data set with clips to caption, ``{name}_{split}_release.jsonl``."""
    return ValueTask(
        name=name,
        task="videoCap",
        kind=Kind.CAPTIONS,
        corpus=corpus,
        metric=CIDER,
        script=f"inf_{name}.py",
        train=train,
        evaluated={split: f"{name}_{split}_release.jsonl" for split in splits},
        selection=splits[0],
        submitted=splits,
    )


_TEST = {"val": "val", "test": "test"}
_PUBLIC = {"val": "val", "test_public": "test_public"}
_HOW2R = {"val": "val_1k", "test_public": "test_public_1k"}
_VLEP = {"dev": "dev", "test": "test"}
_VIOLIN = _TEST | {"test_private": "test_private"}
_VATEX_EN_C = ("vatex_en_r_train.db", "vatex_en_r_val.db")

# All that is known of the eleven tasks, in the order of the leaderboard.
TASKS: Mapping[str, ValueTask] = {
    each.name: each
    for each in (
        _queries("tvr", "vcmr", Kind.MOMENTS, "tv", _TEST, span_weight="lw_st_ed"),
        _queries("how2r", "vcmr", Kind.MOMENTS, "how2", _HOW2R, span_weight="lw_st_ed"),
        _queries("yc2r", "vr", Kind.VIDEOS, "yc2", _TEST),
        _queries("vatex_en_r", "vr", Kind.VIDEOS, "vatex", _PUBLIC),
        _queries(
            *("tvqa", "videoQA", Kind.QUESTIONS, "tv", _TEST), span_weight="qa_lw_st_ed", choices=5
        ),
        _queries(
            *("how2qa", "videoQA", Kind.QUESTIONS, "how2", _PUBLIC),
            span_weight="qa_lw_st_ed",
            choices=4,
        ),
        _queries(
            *("violin", "violin", Kind.STATEMENTS, "violin", _VIOLIN),
            submitted=("test", "test_private"),
            choices=2,
        ),
        _queries(
            *("vlep", "videoQA", Kind.QUESTIONS, "vlep", _VLEP),
            span_weight="vlep_lw_st_ed",
            choices=2,
        ),
        _captions("tvc", "tv", ("tvc_train.db",), ("val", "test")),
        _captions("yc2c", "yc2", ("yc2r_train.db",), ("val", "test")),
        _captions("vatex_en_c", "vatex", _VATEX_EN_C, ("test_public", "test_private")),
    )
}
RETRIEVAL = (Kind.MOMENTS, Kind.VIDEOS)
# Kinds of one head have one name of it.
HEADS = {
    **dict.fromkeys(RETRIEVAL, "retrieval"),
    **dict.fromkeys((Kind.QUESTIONS, Kind.STATEMENTS), "answers"),
    Kind.CAPTIONS: "captions",
}

# Other names of data sets, as the published lists and scripts have them.
OTHER_NAMES = {"vatex": "vatex_en_r"}
_NAME = re.compile(rf"(\w+?)_({'|'.join(Channel)})(?:_(\w+))?")


def parse_name(name: str) -> tuple[str, Channel, str]:
    """Return data set, channel and split of ``{data set}_{channel}_{split}``.

    The split is that of ``vid2dur_idx.json`` (``val`` of ``val_1k``), "" where the name has none.

    Raises:
        ValueError: it is no such name.
    """
    parts = _NAME.fullmatch(name)
    if parts and (data_set := OTHER_NAMES.get(parts[1], parts[1])) in TASKS:
        return data_set, Channel(parts[2]), (parts[3] or "").removesuffix("_1k")
    raise ValueError(
        f"name {name!r} must be DATASET_CHANNEL_SPLIT: a data set ({', '.join(TASKS)}), a "
        f"channel ({', '.join(Channel)}) and a split"
    )


@dataclass(frozen=True)
class DataSet:
    """An entry of the lists: a data set to train or to validate on."""

    task: str  # vcmr, vr, videoQA, violin, videoCap
    name: str  # {data set}_{channel}_{split}
    vfeat_db: str
    sub_txt_db: str | None = None  # needed for channels with subtitles
    query_txt_db: str | None = None
    cap_txt_db: str | list[str] | None = None  # to learn captions from
    gt_anno: str | None = None  # JSON lines of clips to caption
    batch_size: int | None = None  # (null: that of the options)
    ratio: float = 1.0  # chance to be drawn, relative to the others'

    def __post_init__(self) -> None:
        object.__setattr__(self, "cap_txt_db", self.caption_dbs)
        data_set, channel, split = parse_name(self.name)
        if not split:
            raise ValueError(f"name {self.name!r} lacks the split after the channel")
        task = TASKS[data_set].task
        if self.task != task:
            raise ValueError(f"task {self.task!r} of {self.name} must be {task!r}")
        if channel != Channel.VIDEO_ONLY and self.sub_txt_db is None:
            raise ValueError(f"{self.name} needs sub_txt_db: its channel reads subtitles")
        if not self.ratio > 0 or not (self.batch_size is None or self.batch_size > 0):
            raise ValueError(f"ratio and batch_size of {self.name} must be greater than 0")

    @property
    def caption_dbs(self) -> list[str]:
        """``cap_txt_db`` as a list."""
        if isinstance(self.cap_txt_db, list):
            return self.cap_txt_db
        return [self.cap_txt_db] if self.cap_txt_db else []

    def given(self, name: str) -> str:
        """Return a file that the entry names, as its kind must (see :meth:`ValueOptions.check`).

        Raises:
            ValueError: it names none.
        """
        file = getattr(self, name)
        if not file:
            raise ValueError(f"{self.name} names no {name}")
        return file

    @property
    def data_set(self) -> str:
        """Its name in :data:`TASKS`."""
        return parse_name(self.name)[0]

    @property
    def channel(self) -> Channel:
        """What is read of its videos."""
        return parse_name(self.name)[1]

    @property
    def split(self) -> str:
        """As ``vid2dur_idx.json`` has it."""
        return parse_name(self.name)[2]

    @property
    def value_task(self) -> ValueTask:
        """Its row of :data:`TASKS`."""
        return TASKS[self.data_set]

    @property
    def kind(self) -> Kind:
        """What its databases hold."""
        return self.value_task.kind

    @property
    def evaluation(self) -> str:
        """The command that evaluates a run on it, with the names of what is put in."""
        script = f"python {self.value_task.script}"
        if self.kind is Kind.CAPTIONS:
            return f"{script} --model_dir {{output_dir}} --checkpoint {{best}}"
        place = "--output_dir {output_dir} --checkpoint {best}"
        return f"{script} {place} --task {self.data_set} --split {self.split}"


def is_value(saved: Mapping[str, Any]) -> bool:
    """Return whether a config or saved options are of a run by VALUE's rules: none of HERO's has
    them."""
    return not VALUE_KEYS.isdisjoint(saved)


@dataclass(frozen=True, kw_only=True)
class ListOptions(
    DecodingOptions,
    VideoRankingOptions,
    MomentEvalOptions,
    SpanLossOptions,
    RankingLossOptions,
    TrainingOptions,
):
    """VALUE's data sets"""

    VALUE: ClassVar[bool] = True

    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 1.5)
    lw_st_ed: float | None = None  # type: ignore[assignment]
    qa_lw_st_ed: float | None = option(
        None,
        help=f"weight of the span loss of questions (null: {QUESTION_SPAN_WEIGHT:g}, or lw_st_ed "
        "where no retrieval trains)",
        rule=NOT_NEGATIVE,
    )
    vlep_lw_st_ed: float = option(
        0.0, help="weight of the span loss of VLEP, which no other option sets", rule=NOT_NEGATIVE
    )
    lsr: float = option(0.1, help="label smoothing of captions", rule=FRACTION)
    # The published default is half precision; a machine without CUDA then computes in fp32.
    fp16: bool | None = None  # type: ignore[assignment]
    pin_mem: bool = True
    model_config: str = "config/model_config/hero_finetune.json"
    vcmr_eval_q_batch_size: int = redefault(
        RetrievalEvalOptions, "vcmr_eval_q_batch_size", 80, aliases=("vr_eval_batch_size",)
    )


@dataclass(frozen=True, kw_only=True)
class ValueOptions(ListOptions):
    """VALUE's lists (train_all_multitask.py)"""

    KIND: ClassVar[Kind] = Kind.LISTS

    train_datasets: list[DataSet] = option(help="data sets to train on, drawn by their ratio")
    val_datasets: list[DataSet] = option(help="data sets to validate on")
    keep_validation_apart: bool = option(
        False,
        help="learn no captions from queries that val_datasets validate (the published mixes learn "
        "VATEX-EN-C's from vatex_en_r_val too)",
    )

    @property
    def next_step(self) -> str:
        """The commands that evaluate the run."""
        commands = dict.fromkeys(each.evaluation for each in self.val_datasets)
        return "evaluate it: " + "; ".join(commands)

    @property
    def validated_captions(self) -> list[str]:
        """Databases whose queries are captions to learn from, and validate retrieval."""
        validated = {each.query_txt_db for each in self.val_datasets}
        learnt = (path for each in self.train_datasets for path in each.caption_dbs)
        return [path for path in learnt if path in validated]

    @property
    def trains_retrieval(self) -> bool:
        """Whether a data set of retrieval is among those to train on."""
        return any(each.kind in RETRIEVAL for each in self.train_datasets)

    def resolve(self) -> None:
        """Data sets have a batch size each; span weights are those of what is trained."""
        super().resolve()
        retrieval = self.trains_retrieval
        if self.lw_st_ed is None:
            default = SpanLossOptions.__dataclass_fields__["lw_st_ed"].default
            object.__setattr__(self, "lw_st_ed", default if retrieval else QUESTION_SPAN_WEIGHT)
        if self.qa_lw_st_ed is None:
            weight = QUESTION_SPAN_WEIGHT if retrieval else self.lw_st_ed
            object.__setattr__(self, "qa_lw_st_ed", weight)
        for name, size in (
            ("train_datasets", self.train_batch_size),
            ("val_datasets", self.val_batch_size),
        ):
            entries = [
                each if each.batch_size else replace(each, batch_size=size)
                for each in getattr(self, name)
            ]
            object.__setattr__(self, name, entries)
        self._part_captions()
        if retrieval and self.lr_mul != 1:
            LOGGER.warning(
                "lr_mul %g has no effect where retrieval trains: every parameter has the plain "
                "learning rate",
                self.lr_mul,
            )
            object.__setattr__(self, "lr_mul", 1.0)

    def _part_captions(self) -> None:
        """Leave out captions of queries that are validated, if so asked."""
        if (both := self.validated_captions) and self.keep_validation_apart:
            entries = [
                replace(each, cap_txt_db=[p for p in each.caption_dbs if p not in both])
                for each in self.train_datasets
            ]
            object.__setattr__(self, "train_datasets", entries)

    def check(self) -> None:
        """Every list has an entry, no entry is there twice, and each has what it needs."""
        super().check()
        for name in ("train_datasets", "val_datasets"):
            self._check_list(name, getattr(self, name))
        trained = {HEADS[each.kind] for each in self.train_datasets}
        strange = [each.name for each in self.val_datasets if HEADS[each.kind] not in trained]
        rule = f"of tasks that are trained: no data set trains the head of {''.join(strange[:1])}"
        self.require(not strange, "val_datasets", rule)
        self.require(self.token_budget is None, "token_budget", "null: data sets are mixed")
        listed = "VCMR" in self.full_eval_tasks
        moments = any(each.kind is Kind.MOMENTS for each in self.val_datasets)
        self.require(listed or not moments, "full_eval_tasks", "a list with VCMR: it is scored")

    def _check_list(self, name: str, entries: Iterable[DataSet]) -> None:
        training = name == "train_datasets"
        twice = [each for each, count in Counter(e.name for e in entries).items() if count > 1]
        rule = f"a list in which {twice[0] if twice else ''} is once"
        self.require(not twice, name, rule)
        self.require(bool(entries), name, "a list of one data set or more")
        for each in entries:
            needed = "query_txt_db"
            if each.kind is Kind.CAPTIONS:
                needed = "cap_txt_db" if training else "gt_anno"
            self.require(bool(getattr(each, needed)), name, f"given {needed} of {each.name}")

    def of(self, entry: DataSet) -> "SetOptions":
        """The options as one data set of the lists has them."""
        shared = {each.name: getattr(self, each.name) for each in fields(ListOptions)}
        return SetOptions.of_entry(entry, shared)


@dataclass(frozen=True, kw_only=True)
class SetOptions(ListOptions):
    """One of VALUE's data sets, as if it were alone"""

    task: str = option(help="data set")
    channel: str = option(help="what is read of the videos")
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)
    vfeat_db: str = redefault(VideoDbOptions, "vfeat_db", "")

    @classmethod
    def of_entry(cls, entry: DataSet, shared: Mapping[str, Any]) -> Self:
        """The entry's databases and batch size, and what all data sets of a run share."""
        sizes = dict.fromkeys(("train_batch_size", "val_batch_size"), entry.batch_size)
        databases = {"sub_txt_db": entry.sub_txt_db, "vfeat_db": entry.vfeat_db}
        own = {"task": entry.data_set, "channel": entry.channel.value}
        return cls(**dict(shared) | sizes | databases | own)
