"""Options of the scripts that train a task; defaults are those of its published recipe."""

from typing import Literal

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
    VideoRankingOptions,
)
from config.options import FRACTION, POSITIVE_OR_OFF, option, redefault

VcmrTask = Literal["tvr", "how2r", "didemo_video_sub", "didemo_video_only"]
VrTask = Literal["msrvtt_video_sub", "msrvtt_video_only"]
VideoQaTask = Literal["tvqa", "how2qa"]
ViolinTask = Literal["violin"]


def evaluation_by(script: str) -> str:
    """Return ``NEXT`` of a task that ``script`` evaluates."""
    return f"evaluate it: python {script} --output_dir {{output_dir}} --checkpoint {{best}}"


class RetrievalOptions(
    RetrievalEvalOptions, RankingLossOptions, TrainingOptions, RetrievalDbOptions, QueryDbOptions
):
    """Retrieval training"""

    sampled_by_q: bool = option(True, help="an item is one query; off: a video with five of its")


class VcmrOptions(MomentEvalOptions, SpanLossOptions, RetrievalOptions):
    """Corpus moment retrieval (train_vcmr.py)"""

    KIND = Kind.MOMENTS
    NEXT = evaluation_by("eval_vcmr.py")

    task: VcmrTask = "tvr"


class VrOptions(VideoRankingOptions, RetrievalOptions):
    """Video retrieval (train_vr.py)"""

    KIND = Kind.VIDEOS
    NEXT = evaluation_by("eval_vr.py")

    task: VrTask = "msrvtt_video_sub"
    vfeat_interval: float = 2.0
    sub_ctx_len: int = 1
    train_batch_size: int = 96
    learning_rate: float = 7e-5
    num_train_steps: int = 4000
    lw_neg_q: float = 10.0
    lw_neg_ctx: float = 10.0
    hard_pool_size: list[int] = [80]  # noqa: RUF012


class AnswerOptions(TrainingOptions, VideoDbOptions, QueryDbOptions):
    """Questions and statements"""

    task: str = option(help="data set")
    max_txt_len: int = 120
    train_batch_size: int = 4
    val_batch_size: int = 10


class VideoQaOptions(AnswerOptions):
    """Video question answering (train_videoQA.py)"""

    KIND = Kind.QUESTIONS
    NEXT = evaluation_by("eval_videoQA.py")

    task: VideoQaTask = "tvqa"
    lw_st_ed: float = redefault(SpanLossOptions, "lw_st_ed", 0.4)
    learning_rate: float = 5e-5
    lr_mul: float = 10.0
    num_train_steps: int = 10_000


class ViolinOptions(AnswerOptions):
    """Video-and-language inference (train_violin.py)"""

    KIND = Kind.STATEMENTS
    NEXT = evaluation_by("eval_violin.py")

    task: ViolinTask = "violin"
    sub_ctx_len: int = 2
    learning_rate: float = 3e-5
    lr_mul: float = 8.0
    num_train_steps: int = 6000


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
    gradient_accumulation_steps: int = 1
    model_config: str = "config/hero_tvc.json"
    sub_ctx_len: int = 1
    train_batch_size: int = 4
    val_batch_size: int = 8
    lr_mul: float = 10.0
    num_train_steps: int = 7000
    valid_steps: int = 500
