"""Option groups that the scripts share. Names and meanings are those of the published recipes."""

from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

from config.options import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_OFF,
    PROBABILITY,
    PROBABILITY_OR_OFF,
    SEED,
    STEP_OR_NEVER,
    Options,
    option,
)
from config.storage import FOLDERS, VARIABLE, from_container
from utils.errors import UserError


class Kind(StrEnum):
    """What a task's databases hold."""

    MOMENTS = "moments"  # queries for moments of videos
    VIDEOS = "videos"  # queries for whole videos
    QUESTIONS = "questions"  # with candidate answers
    STATEMENTS = "statements"  # true or false
    CAPTIONS = "captions"  # of clips
    CORPORA = "corpora"  # subtitles only, of one or more corpora of videos
    LISTS = "lists"  # several data sets, each of one of these kinds


class Channel(StrEnum):
    """Input modalities of a run."""

    VIDEO_SUB = "video_sub"  # frames and subtitles
    VIDEO_ONLY = "video_only"  # frames
    SUB_ONLY = "sub_only"  # subtitles, over frames without features


class StorageOptions(Options):
    """Folders"""

    storage: str | None = option(
        None,
        help=f"folder that has {', '.join(FOLDERS.values())}: paths that begin with "
        f"{' '.join(FOLDERS)} lie there (null: {VARIABLE}, or they are the container's)",
        affects_result=False,
    )

    def resolve(self) -> None:
        """Move the container's paths below the storage folder."""
        super().resolve()
        if self.storage is None:
            return
        object.__setattr__(self, "storage", str(Path(self.storage).expanduser().absolute()))
        for name in (declared.name for declared in fields(self) if declared.name != "storage"):
            object.__setattr__(self, name, from_container(getattr(self, name), self.storage))

    def check(self) -> None:
        """Check that the storage folder exists."""
        super().check()
        exists = self.storage is None or Path(self.storage).is_dir()
        self.require(exists, "storage", f"a folder (with {', '.join(FOLDERS.values())})")


class PrecisionOptions(Options):
    """Number format"""

    fp16: bool = option(False, help="half precision with dynamic loss scaling (CUDA)")
    bf16: bool = option(False, help="bfloat16 (CUDA and CPU)")
    apex: bool = option(False, help="use apex's fused layer norm and optimizer where installed")

    def check(self) -> None:
        """Check that fp16 and bf16 are not both on."""
        super().check()
        self.require(not (self.fp16 and self.bf16), "fp16", "off (--no_fp16) when bf16 is on")


class LoaderOptions(Options):
    """Loading"""

    n_workers: int = option(
        4,
        help="loader processes per rank (max: CPU cores)",
        rule=NOT_NEGATIVE,
        affects_result=False,
    )
    pin_mem: bool = option(False, help="page-locked memory for batches", affects_result=False)


class VideoOptions(Options):
    """Video input"""

    vfeat_version: str = option("resnet_slowfast", help="kind of the frame features")
    compressed_db: bool = option(False, help="read the compressed feature database")
    max_clip_len: int = option(100, help="frames kept per video, -1: all", rule=POSITIVE_OR_OFF)
    sub_ctx_len: int = option(0, help="preceding subtitles joined to each one", rule=NOT_NEGATIVE)
    only_available: bool = option(
        False,
        help="leave out videos that the feature or subtitle database lacks, and their texts; "
        "metrics are then marked as partial",
    )


class VideoDbOptions(VideoOptions):
    """Video databases"""

    sub_txt_db: str = option(help="subtitle database, e.g. /txt/tv_subtitles.db")
    vfeat_db: str = option(help="folder of the frame features, e.g. /video/tv")
    vfeat_interval: float = option(1.5, help="seconds per frame", rule=POSITIVE)


class RetrievalDbOptions(VideoDbOptions):
    """Task"""

    task: str = option(help="data set and kind of input")
    sub_txt_db: str | None = None  # type: ignore[assignment]  # wider, see Options

    @property
    def reads_subtitles(self) -> bool:
        """Whether subtitles are read."""
        return not self.task.endswith(f"_{Channel.VIDEO_ONLY}")

    def check(self) -> None:
        """Check that a task that reads subtitles has their database."""
        super().check()
        if self.sub_txt_db is None and self.reads_subtitles:
            raise UserError(f"missing options: --sub_txt_db (task {self.task} reads subtitles)")


class QueryDbOptions(Options):
    """Query databases"""

    train_query_txt_db: str = option(help="queries to train on, e.g. /txt/tvr_train.db")
    val_query_txt_db: str = option(help="queries to validate on")
    test_query_txt_db: str | None = option(
        None, help="more queries to validate on (null: none)", affects_result=False
    )

    def validation_dbs(self) -> dict[str, str]:
        """Return the query database of every validated split, val first."""
        dbs = {"val": self.val_query_txt_db}
        if self.test_query_txt_db:
            public = Path(self.test_query_txt_db).stem.endswith("test_public")
            dbs["test_public" if public else "test"] = self.test_query_txt_db
        return dbs


class ModelOptions(Options):
    """Model"""

    model_config: str = option("config/hero_finetune.json", help="JSON file of the model's sizes")
    checkpoint: str | None = option(
        None,
        help="weights to start from (null: random): a file, an exported model (folder or hub "
        "name), or RoBERTa",
    )
    load_partial_pretrained: bool = option(
        False, help="the checkpoint is RoBERTa: fill the cross-modal transformer from it"
    )
    skip_layer_loading: bool = option(
        False, help="from RoBERTa, take every (12/n)-th layer, not the first n"
    )
    reinit_feature_layers: bool = option(
        False,
        help="initialize the layers that depend on the width of the features, for a checkpoint "
        "trained on features of other extractors",
    )
    dropout: float = option(0.1, help="rate of every dropout module", rule=FRACTION)
    activation_checkpointing: bool = option(
        False,
        help="recompute activations in backward: less memory, more time",
        affects_result=False,
    )


class BatchOptions(Options):
    """Batches"""

    max_txt_len: int = option(
        60,
        help="leave longer texts out of training (captions, subtitles: cut them), -1: keep all",
        rule=POSITIVE_OR_OFF,
    )
    train_batch_size: int = option(32, help="items per rank and accumulation step", rule=POSITIVE)
    token_budget: int | None = option(
        None,
        help="size of a rank's batch in positions (frames and tokens) of its videos, instead of "
        "train_batch_size",
        rule=POSITIVE,
    )
    val_batch_size: int = option(20, help="items per rank in validation", rule=POSITIVE)
    gradient_accumulation_steps: int = option(2, help="batches summed per step", rule=POSITIVE)


class OptimizerOptions(Options):
    """Optimizer"""

    optim: Literal["adam", "adamax", "adamw"] = option("adamw", help="optimizer")
    num_gpus_of_recipe: int | None = option(
        None, help="keep the batch of a recipe for this many GPUs, by accumulation", rule=POSITIVE
    )
    learning_rate: float = option(1e-4, help="highest learning rate", rule=POSITIVE)
    lr_mul: float = option(1.0, help="factor on the learning rate of heads", rule=NOT_NEGATIVE)
    betas: list[float] = option([0.9, 0.98], help="the optimizer's two betas", rule=FRACTION)
    weight_decay: float = option(0.01, help="weight decay", rule=NOT_NEGATIVE)
    grad_norm: float = option(1.0, help="clip gradients to this norm", rule=POSITIVE_OR_OFF)

    def check(self) -> None:
        """Check that there are two betas."""
        super().check()
        self.require(len(self.betas) == 2, "betas", "two numbers, such as 0.9 0.98")


class ScheduleOptions(Options):
    """Steps"""

    num_train_steps: int = option(5000, help="optimizer steps", rule=POSITIVE)
    warmup_steps: int | None = option(
        None, help="steps of linear warm-up (null: a tenth of num_train_steps)", rule=NOT_NEGATIVE
    )
    valid_steps: int = option(200, help="steps between validations", rule=POSITIVE)
    save_steps: int = option(
        0, help="steps per checkpoint (0: valid_steps)", rule=NOT_NEGATIVE, affects_result=False
    )
    restore_steps: int = option(
        0, help="steps per restore point (0: valid_steps)", rule=NOT_NEGATIVE, affects_result=False
    )
    log_steps: int = option(
        20, help="steps between logged losses", rule=POSITIVE, affects_result=False
    )

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up."""
        return self.num_train_steps // 10 if self.warmup_steps is None else self.warmup_steps

    def resolve(self) -> None:
        """Set the steps that depend on others."""
        super().resolve()
        object.__setattr__(self, "warmup_steps", self.warmup)
        for name in ("save_steps", "restore_steps"):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, self.valid_steps)

    def check(self) -> None:
        """Check that the warm-up lies within the run."""
        super().check()
        total = self.num_train_steps
        self.require(self.warmup <= total, "warmup_steps", f"at most num_train_steps ({total})")


class TrainingOptions(
    ScheduleOptions,
    OptimizerOptions,
    BatchOptions,
    ModelOptions,
    PrecisionOptions,
    LoaderOptions,
    VideoOptions,
    StorageOptions,
):
    """Run"""

    KIND: ClassVar[Kind]
    NEXT: ClassVar[str]  # what to do with a finished run: a template of option names and {best}

    output_dir: str = option(help="folder of the run (made, or resumed)", affects_result=False)
    seed: int = option(77, help="seed of every random generator", rule=SEED)
    deterministic: bool = option(
        False,
        help="use deterministic GPU kernels, slower: a run that is resumed then ends in the same "
        "bits, as it always does on a CPU",
    )
    allow_changed_options: bool = option(
        False, help="resume a run although its options changed", affects_result=False
    )
    skip_data_check: bool = option(
        False, help="start without checking that the databases fit each other", affects_result=False
    )

    @property
    def next_step(self) -> str:
        """What to do with this run when it is finished, as :attr:`NEXT`."""
        return self.NEXT


class RankingLossOptions(Options):
    """Ranking losses"""

    lw_neg_q: float = option(8.0, help="weight of the negative-query loss", rule=NOT_NEGATIVE)
    lw_neg_ctx: float = option(8.0, help="weight of the negative-video loss", rule=NOT_NEGATIVE)
    ranking_loss_type: Literal["hinge", "lse"] = option("hinge", help="form of the ranking losses")
    margin: float = option(0.1, help="margin of the hinge form", rule=NOT_NEGATIVE)
    use_all_neg: bool = option(True, help="use every negative of the batch, not one drawn")
    ranking_gradient: Literal["published", "undivided"] = option(
        "published",
        help="gradient of the ranking losses on several ranks: divided by the (recipe's) number of "
        "ranks, as published, or undivided",
    )
    hard_pool_size: list[int] = option([20], help="hard negatives, per stage", rule=POSITIVE)
    hard_neg_weights: list[float] = option(
        [10.0], help="weight of hard negatives, per stage", rule=NOT_NEGATIVE
    )
    hard_negtiave_start_step: list[int] = option(
        [2000],
        help="step at which each stage of hard negatives starts, -1: never",
        rule=STEP_OR_NEVER,
        aliases=("hard_negative_start_step",),
    )

    def check(self) -> None:
        """Check that the lists of hard-negative stages have one length."""
        super().check()
        stages = len(self.hard_pool_size)
        for name in ("hard_neg_weights", "hard_negtiave_start_step"):
            same = len(getattr(self, name)) == stages
            self.require(same, name, f"as long as hard_pool_size ({stages} values)")


class SpanLossOptions(Options):
    """Span loss"""

    lw_st_ed: float = option(0.01, help="weight of the span loss", rule=NOT_NEGATIVE)
    drop_svmr_prob: float = option(
        0.8, help="share of training batches without the span loss", rule=PROBABILITY
    )
    train_span_start_step: int = option(
        0, help="step at which the span loss starts, -1: never", rule=STEP_OR_NEVER
    )


class RetrievalEvalOptions(Options):
    """Retrieval evaluation"""

    vcmr_eval_video_batch_size: int = option(
        50, help="videos encoded at a time", rule=POSITIVE, aliases=("vr_eval_video_batch_size",)
    )
    vcmr_eval_q_batch_size: int = option(
        80,
        help="queries ranked at a time",
        rule=POSITIVE,
        aliases=("vcmr_eval_batch_size", "vr_eval_q_batch_size"),
    )
    distributed_eval: bool = option(
        True, help="always on, as in the published recipes", affects_result=False
    )


class MomentEvalOptions(RetrievalEvalOptions):
    """Moment evaluation"""

    full_eval_tasks: list[Literal["VCMR", "SVMR", "VR"]] = option(
        ["VCMR", "SVMR", "VR"], help="rankings to compute"
    )
    q2c_alpha: float = option(20.0, help="factor on the video score in the exponent", rule=POSITIVE)
    max_vcmr_video: int = option(100, help="best videos searched for moments", rule=POSITIVE)
    max_before_nms: int = option(200, help="moments kept before the final cut", rule=POSITIVE)
    max_after_nms: int = option(100, help="predictions kept per query", rule=POSITIVE)
    min_pred_l: int = option(2, help="least end - start, in frames", rule=NOT_NEGATIVE)
    max_pred_l: int = option(16, help="end - start stays below this, in frames", rule=POSITIVE)
    nms_thd: float = option(
        -1.0, help="temporal IoU of non-maximum suppression", rule=PROBABILITY_OR_OFF
    )
    eval_with_query_type: bool = option(True, help="also report per query type (v, t, vt)")

    def check(self) -> None:
        """Check that there is a ranking, and that the bounds of the moment length are in order."""
        super().check()
        self.require(bool(self.full_eval_tasks), "full_eval_tasks", "one or more tasks")
        shorter = self.min_pred_l < self.max_pred_l
        self.require(shorter, "min_pred_l", f"below max_pred_l ({self.max_pred_l})")


class VideoRankingOptions(Options):
    """Video ranking"""

    max_vr_video: int = option(100, help="videos listed per query", rule=POSITIVE)


class DecodingOptions(Options):
    """Decoding"""

    max_gen_step: int = option(30, help="longest caption, in tokens", rule=POSITIVE)
    beam: int = option(1, help="hypotheses kept per caption, 1: greedy", rule=POSITIVE)
    length_penalty: float = option(
        1.0, help="exponent of the length that divides a log-probability", rule=NOT_NEGATIVE
    )
    toker: str | None = option(
        None, help="tokenizer, hub name or folder (null: the one that made the database)"
    )
