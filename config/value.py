"""VALUE: its data sets, and the options of a run over one of them or several (arXiv 2106.04632)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

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

# A JSON file that has one of these keys is VALUE's.
VALUE_KEYS = frozenset({"train_datasets", "no_fp16"})

QUESTION_SPAN_WEIGHT = 0.4  # the default


@dataclass(frozen=True)
class ValueTask:
    """One of VALUE's data sets.

    Attributes:
        name: of the data set.
        task: its task in the lists.
        kind: what its databases hold.
        corpus: of its videos: ``/txt/{corpus}_subtitles.db``, ``/video/{corpus}``.
        metric: by which it is scored.
        script: that evaluates it.
        train: files to train on, in ``/txt``.
        evaluated: file of every split to evaluate: a query database, or clips to caption.
        selection: split that selects a checkpoint.
        submitted: its two splits in a submission.
        span_weight: option with the weight of its span loss.
        choices: number of answers to each question, statement or example.
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


RETRIEVAL = (Kind.MOMENTS, Kind.VIDEOS)
_KINDS = {"vcmr": Kind.MOMENTS, "vr": Kind.VIDEOS, "videoQA": Kind.QUESTIONS}
_KINDS["violin"] = Kind.STATEMENTS


def _queries(
    name: str, task: str, corpus: str, files: Mapping[str, str], **others: Any
) -> ValueTask:
    """Return a data set with query databases ``{name}_{ending}.db``: split → ending."""
    selection, last = list(files)[:2]
    return ValueTask(
        name=name,
        task=task,
        kind=_KINDS[task],
        corpus=corpus,
        metric=AVERAGE_RECALL if _KINDS[task] in RETRIEVAL else ACCURACY,
        script=f"eval_{task}.py",
        train=(f"{name}_train.db",),
        evaluated={split: f"{name}_{ending}.db" for split, ending in files.items()},
        **{"selection": selection, "submitted": (selection, last)} | others,
    )


def _captions(name: str, corpus: str, train: tuple[str, ...], splits: tuple[str, str]) -> ValueTask:
    """Return a data set with clips to caption, ``{name}_{split}_release.jsonl``."""
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

# The eleven tasks in the order of the leaderboard.
TASKS: Mapping[str, ValueTask] = {
    each.name: each
    for each in (
        _queries("tvr", "vcmr", "tv", _TEST, span_weight="lw_st_ed"),
        _queries("how2r", "vcmr", "how2", _HOW2R, span_weight="lw_st_ed"),
        _queries("yc2r", "vr", "yc2", _TEST),
        _queries("vatex_en_r", "vr", "vatex", _PUBLIC),
        _queries("tvqa", "videoQA", "tv", _TEST, span_weight="qa_lw_st_ed", choices=5),
        _queries("how2qa", "videoQA", "how2", _PUBLIC, span_weight="qa_lw_st_ed", choices=4),
        _queries(
            *("violin", "violin", "violin", _VIOLIN), submitted=("test", "test_private"), choices=2
        ),
        _queries("vlep", "videoQA", "vlep", _VLEP, span_weight="vlep_lw_st_ed", choices=2),
        _captions("tvc", "tv", ("tvc_train.db",), ("val", "test")),
        _captions("yc2c", "yc2", ("yc2r_train.db",), ("val", "test")),
        _captions("vatex_en_c", "vatex", _VATEX_EN_C, ("test_public", "test_private")),
    )
}
# Kind → name of its head.
HEADS = {
    **dict.fromkeys(RETRIEVAL, "retrieval"),
    **dict.fromkeys((Kind.QUESTIONS, Kind.STATEMENTS), "answers"),
    Kind.CAPTIONS: "captions",
}

# Other names of data sets in the published lists and scripts.
OTHER_NAMES = {"vatex": "vatex_en_r"}
_NAME = re.compile(rf"(\w+?)_({'|'.join(Channel)})(?:_(\w+))?")


def parse_name(name: str) -> tuple[str, Channel, str]:
    """Return data set, channel and split of ``{data set}_{channel}_{split}``.

    The split is that of ``vid2dur_idx.json`` (``val`` of ``val_1k``), "" where the name has none.

    Raises:
        ValueError: the name has another form.
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
    """An entry of the lists: a data set to train or validate on."""

    task: str  # vcmr, vr, videoQA, violin, videoCap
    name: str  # {data set}_{channel}_{split}
    vfeat_db: str
    sub_txt_db: str | None = None  # needed for channels with subtitles
    query_txt_db: str | None = None
    cap_txt_db: str | list[str] | None = None  # to learn captions from
    gt_anno: str | None = None  # JSON lines of clips to caption
    batch_size: int | None = None  # (null: that of the options)
    ratio: float = 1.0  # relative probability of being drawn

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
        """Return the file of an option that the entry's kind needs (:meth:`ValueOptions.check`).

        Raises:
            ValueError: the entry has none.
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
        """Input modalities."""
        return parse_name(self.name)[1]

    @property
    def split(self) -> str:
        """Split as ``vid2dur_idx.json`` names it."""
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
        """Command that evaluates a run on it, as :attr:`TrainingOptions.NEXT`."""
        script = f"python {self.value_task.script}"
        if self.kind is Kind.CAPTIONS:
            return f"{script} --model_dir {{output_dir}} --checkpoint {{best}}"
        run = "--output_dir {output_dir} --checkpoint {best}"
        return f"{script} {run} --task {self.data_set} --split {self.split}"


def is_value(saved: Mapping[str, Any]) -> bool:
    """Return whether a config or saved options are of a run by VALUE's rules."""
    return not VALUE_KEYS.isdisjoint(saved)


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
    lw_st_ed: float | None = None  # type: ignore[assignment]  # wider, see Options
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
    fp16: bool | None = None  # type: ignore[assignment]  # wider, see Options
    pin_mem: bool = True
    model_config: str = "config/model_config/hero_finetune.json"
    vcmr_eval_q_batch_size: int = redefault(
        RetrievalEvalOptions, "vcmr_eval_q_batch_size", 80, aliases=("vr_eval_batch_size",)
    )


class ValueOptions(ListOptions):
    """VALUE's lists (train_all_multitask.py)"""

    KIND: ClassVar[Kind] = Kind.LISTS

    train_datasets: list[DataSet] = option(help="data sets to train on, drawn by their ratio")
    val_datasets: list[DataSet] = option(help="data sets to validate on")
    keep_validation_apart: bool = option(
        False,
        help="train on no captions that are queries of val_datasets (the published mixes train "
        "VATEX-EN-C on vatex_en_r_val too)",
    )

    @property
    def next_step(self) -> str:
        """Commands that evaluate the run."""
        commands = dict.fromkeys(each.evaluation for each in self.val_datasets)
        return "evaluate it: " + "; ".join(commands)

    @property
    def validated_captions(self) -> list[str]:
        """Databases that are captions to train on and queries to validate on."""
        validated = {each.query_txt_db for each in self.val_datasets}
        learnt = (path for each in self.train_datasets for path in each.caption_dbs)
        return [path for path in learnt if path in validated]

    @property
    def trains_retrieval(self) -> bool:
        """Whether one of the data sets to train on is of retrieval."""
        return any(each.kind in RETRIEVAL for each in self.train_datasets)

    def resolve(self) -> None:
        """Set the batch size of each data set, and span weights by the tasks that are trained."""
        super().resolve()
        retrieval = self.trains_retrieval
        if self.lw_st_ed is None:
            default = SpanLossOptions.__dataclass_fields__["lw_st_ed"].default
            object.__setattr__(self, "lw_st_ed", default if retrieval else QUESTION_SPAN_WEIGHT)
        if self.qa_lw_st_ed is None:
            weight = QUESTION_SPAN_WEIGHT if retrieval else self.lw_st_ed
            object.__setattr__(self, "qa_lw_st_ed", weight)
        for part in ("train", "val"):
            size = getattr(self, f"{part}_batch_size")
            name = f"{part}_datasets"
            entries = [replace(e, batch_size=e.batch_size or size) for e in getattr(self, name)]
            object.__setattr__(self, name, entries)
        if (both := self.validated_captions) and self.keep_validation_apart:
            entries = [
                replace(each, cap_txt_db=[path for path in each.caption_dbs if path not in both])
                for each in self.train_datasets
            ]
            object.__setattr__(self, "train_datasets", entries)
        if retrieval and self.lr_mul != 1:
            LOGGER.warning(
                "lr_mul %g has no effect where retrieval trains: every parameter has the plain "
                "learning rate",
                self.lr_mul,
            )
            object.__setattr__(self, "lr_mul", 1.0)

    def check(self) -> None:
        """Check that lists are not empty, have no entry twice, and each the files it needs."""
        super().check()
        for name in ("train_datasets", "val_datasets"):
            self._check_list(name, getattr(self, name))
        trained = {HEADS[each.kind] for each in self.train_datasets}
        for each in self.val_datasets:
            rule = f"of tasks that are trained: no data set trains the head of {each.name}"
            self.require(HEADS[each.kind] in trained, "val_datasets", rule)
        self.require(self.token_budget is None, "token_budget", "null: data sets are mixed")
        listed = "VCMR" in self.full_eval_tasks
        moments = any(each.kind is Kind.MOMENTS for each in self.val_datasets)
        self.require(listed or not moments, "full_eval_tasks", "a list with VCMR: it is scored")

    def _check_list(self, name: str, entries: Iterable[DataSet]) -> None:
        self.require(bool(entries), name, "a list of one data set or more")
        captions = "cap_txt_db" if name == "train_datasets" else "gt_anno"
        names: set[str] = set()
        for each in entries:
            self.require(each.name not in names, name, f"a list in which {each.name} is once")
            names.add(each.name)
            needed = captions if each.kind is Kind.CAPTIONS else "query_txt_db"
            self.require(bool(getattr(each, needed)), name, f"given {needed} of {each.name}")

    def of(self, entry: DataSet) -> "SetOptions":
        """Return the options of one data set of the lists, as if it were alone."""
        values = {each.name: getattr(self, each.name) for each in fields(ListOptions)}
        values |= dict.fromkeys(("train_batch_size", "val_batch_size"), entry.batch_size)
        values |= {"sub_txt_db": entry.sub_txt_db, "vfeat_db": entry.vfeat_db}
        return SetOptions(**values, task=entry.data_set, channel=entry.channel.value)


class SetOptions(ListOptions):
    """One of VALUE's data sets"""

    task: str = option(help="data set")
    channel: str = option(help="input modalities")
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)
    vfeat_db: str = redefault(VideoDbOptions, "vfeat_db", "")
