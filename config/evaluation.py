# ruff: noqa: RUF009 (option() and redefault() declare fields)
"""Options of the scripts that evaluate a finished run, whose own options fill what is not given."""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal

from config.groups import (
    DecodingOptions,
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
from config.options import POSITIVE, option, redefault
from config.training import VcmrTask, VideoQaTask, VrTask


@dataclass(frozen=True, kw_only=True)
class RunOptions(PrecisionOptions, LoaderOptions, VideoDbOptions, StorageOptions):
    """Run"""

    # How to compute is chosen anew for every evaluation: training's choice does not carry over.
    OWN: ClassVar[tuple[str, ...]] = (
        *inspect.get_annotations(PrecisionOptions),
        *inspect.get_annotations(LoaderOptions),
        "checkpoint",  # in training, the weights to start from
    )

    checkpoint: str = option(
        help="step of one of the run's checkpoints, best, or a file; or an exported model (folder "
        "or hub name), whose options then hold instead of a run's"
    )

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Everything but ``OWN`` follows the run."""
        return {key: value for key, value in saved.items() if key not in cls.OWN}


@dataclass(frozen=True, kw_only=True)
class EvalOptions(RunOptions):
    """What to evaluate"""

    RUN_FOLDER: ClassVar[str] = "output_dir"
    RESULTS_IN_RUN: ClassVar[bool] = True
    OWN: ClassVar[tuple[str, ...]] = (*RunOptions.OWN, "output_dir", "split")

    output_dir: str = option(help="folder of the finished run; results are written there too")
    split: Literal["train", "val", "test", "test_public"] = option(
        "val", help="split of the queries"
    )
    query_txt_db: str = option(help="query database (not given: the run's own for this split)")

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Queries that are not given are those that the run had for the split."""
        split, _, _ = given.get("split", cls.split).partition("_")
        queries = {"query_txt_db": saved.get(f"{split}_query_txt_db")}
        return super().from_run(saved, given) | queries


@dataclass(frozen=True, kw_only=True)
class VcmrEvalOptions(MomentEvalOptions, RetrievalDbOptions, EvalOptions):
    """Corpus moment retrieval (eval_vcmr.py)"""

    task: VcmrTask = redefault(RetrievalDbOptions, "task", "tvr")
    vcmr_eval_q_batch_size: int = redefault(
        RetrievalEvalOptions, "vcmr_eval_q_batch_size", 80, aliases=("batch_size",)
    )


@dataclass(frozen=True, kw_only=True)
class VrEvalOptions(VideoRankingOptions, RetrievalEvalOptions, RetrievalDbOptions, EvalOptions):
    """Video retrieval (eval_vr.py)"""

    task: VrTask = redefault(RetrievalDbOptions, "task", "msrvtt_video_sub")
    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 2.0)
    vcmr_eval_q_batch_size: int = redefault(
        RetrievalEvalOptions, "vcmr_eval_q_batch_size", 80, aliases=("batch_size",)
    )


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

    task: VideoQaTask = option("tvqa", help="data set")


@dataclass(frozen=True, kw_only=True)
class ViolinEvalOptions(AnswerEvalOptions):
    """Video-and-language inference (eval_violin.py)"""

    task: Literal["violin"] = option("violin", help="data set")


@dataclass(frozen=True, kw_only=True)
class TvcInferenceOptions(DecodingOptions, RunOptions):
    """Captioning (inf_tvc.py)"""

    RUN_FOLDER: ClassVar[str] = "model_dir"

    model_dir: str = option(help="folder of the finished run (an exported model needs none)")
    checkpoint: str = redefault(RunOptions, "checkpoint", MISSING, aliases=("ckpt_step",))
    target_clip: str = option(help="JSON lines of the clips to caption")
    output: str = option(help="JSON lines to write, in the format of the TVC server")
    val_batch_size: int = redefault(TrainingOptions, "val_batch_size", 8, aliases=("batch_size",))
    # fp16 is the published default here; a machine without CUDA then computes in fp32.
    fp16: bool | None = option(None, help="half precision (null: where there is CUDA)")


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
    vfeat_db: str | None = redefault(VideoDbOptions, "vfeat_db", None)
    sub_txt_db: str | None = redefault(VideoDbOptions, "sub_txt_db", None)
