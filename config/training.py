# ruff: noqa: RUF009 (option() and redefault() declare fields)
"""Options of the scripts that train a task. Defaults follow the published recipe of the task."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from config.groups import (
    DecodingOptions,
    Kind,
    MomentEvalOptions,
    QueryDbOptions,
    RankingLossOptions,
    RetrievalDbOptions,
    RetrievalEvalOptions,
    SpanLossOptions,
    TrainingOptions,
    VideoDbOptions,
    VideoOptions,
    VideoRankingOptions,
)
from config.options import FRACTION, POSITIVE_OR_OFF, option, redefault

VcmrTask = Literal["tvr", "how2r", "didemo_video_sub", "didemo_video_only"]
VrTask = Literal["msrvtt_video_sub", "msrvtt_video_only"]
VideoQaTask = Literal["tvqa", "how2qa"]
ViolinTask = Literal["violin"]


def evaluation_by(script: str) -> str:
    """``NEXT`` of a task that ``script`` evaluates."""
    return f"evaluate it: python {script} --output_dir {{output_dir}} --checkpoint {{best}}"


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(
    RetrievalEvalOptions, RankingLossOptions, TrainingOptions, RetrievalDbOptions, QueryDbOptions
):
    """Retrieval training"""

    sampled_by_q: bool = option(True, help="an item is one query; off: a video with five of its")
    gradient_accumulation_steps: int = redefault(TrainingOptions, "gradient_accumulation_steps", 2)


@dataclass(frozen=True, kw_only=True)
class VcmrOptions(MomentEvalOptions, SpanLossOptions, RetrievalOptions):
    """Corpus moment retrieval (train_vcmr.py)"""

    KIND = Kind.MOMENTS
    NEXT = evaluation_by("eval_vcmr.py")

    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")


@dataclass(frozen=True, kw_only=True)
class VrOptions(VideoRankingOptions, RetrievalOptions):
    """Video retrieval (train_vr.py)"""

    KIND = Kind.VIDEOS
    NEXT = evaluation_by("eval_vr.py")

    task: VrTask = redefault(RetrievalDbOptions, "task", "msrvtt_video_sub")
    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 2.0)
    sub_ctx_len: int = redefault(VideoOptions, "sub_ctx_len", 1)
    train_batch_size: int = redefault(TrainingOptions, "train_batch_size", 96)
    learning_rate: float = redefault(TrainingOptions, "learning_rate", 7e-5)
    num_train_steps: int = redefault(TrainingOptions, "num_train_steps", 4000)
    lw_neg_q: float = redefault(RankingLossOptions, "lw_neg_q", 10.0)
    lw_neg_ctx: float = redefault(RankingLossOptions, "lw_neg_ctx", 10.0)
    hard_pool_size: list[int] = redefault(RankingLossOptions, "hard_pool_size", [80])


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(TrainingOptions, VideoDbOptions, QueryDbOptions):
    """Questions and statements"""

    if TYPE_CHECKING:  # every task declares it with its own data sets
        task: str
    max_txt_len: int = redefault(TrainingOptions, "max_txt_len", 120)
    train_batch_size: int = redefault(TrainingOptions, "train_batch_size", 4)
    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 10)
    gradient_accumulation_steps: int = redefault(TrainingOptions, "gradient_accumulation_steps", 2)


@dataclass(frozen=True, kw_only=True)
class VideoQaOptions(AnswerOptions):
    """Video question answering (train_videoQA.py)"""

    KIND = Kind.QUESTIONS
    NEXT = evaluation_by("eval_videoQA.py")

    task: VideoQaTask = option("tvqa", help="data set")
    lw_st_ed: float = redefault(SpanLossOptions, "lw_st_ed", 0.4)
    learning_rate: float = redefault(TrainingOptions, "learning_rate", 5e-5)
    lr_mul: float = redefault(TrainingOptions, "lr_mul", 10.0)
    num_train_steps: int = redefault(TrainingOptions, "num_train_steps", 10_000)


@dataclass(frozen=True, kw_only=True)
class ViolinOptions(AnswerOptions):
    """Video-and-language inference (train_violin.py)"""

    KIND = Kind.STATEMENTS
    NEXT = evaluation_by("eval_violin.py")

    task: ViolinTask = option("violin", help="data set")
    sub_ctx_len: int = redefault(VideoOptions, "sub_ctx_len", 2)
    learning_rate: float = redefault(TrainingOptions, "learning_rate", 3e-5)
    lr_mul: float = redefault(TrainingOptions, "lr_mul", 8.0)
    num_train_steps: int = redefault(TrainingOptions, "num_train_steps", 6000)


@dataclass(frozen=True, kw_only=True)
class TvcOptions(DecodingOptions, TrainingOptions, VideoDbOptions):
    """Captioning (train_tvc.py)"""

    KIND = Kind.CAPTIONS
    NEXT = (
        "caption with it: python inf_tvc.py --model_dir {output_dir} --checkpoint {best} "
        "--target_clip {val_ref} --output captions.jsonl"
    )

    task: Literal["tvc"] = option("tvc", help="data set")
    train_db: str = option(help="caption database to train on, e.g. /txt/tvc_train.db")
    val_db: str = option(help="caption database of the validation clips")
    val_ref: str = option(help="JSON lines of the validation clips and their reference captions")
    max_cap_per_vid: int = option(
        -1, help="captions drawn per video in training, -1: all", rule=POSITIVE_OR_OFF
    )
    lsr: float = option(0.1, help="label smoothing", rule=FRACTION)
    model_config: str = redefault(TrainingOptions, "model_config", "config/hero_tvc.json")
    sub_ctx_len: int = redefault(VideoOptions, "sub_ctx_len", 1)
    train_batch_size: int = redefault(TrainingOptions, "train_batch_size", 4)
    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 8)
    lr_mul: float = redefault(TrainingOptions, "lr_mul", 10.0)
    num_train_steps: int = redefault(TrainingOptions, "num_train_steps", 7000)
    valid_steps: int = redefault(TrainingOptions, "valid_steps", 500)
