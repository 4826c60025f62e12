#!/usr/bin/env python
"""Search a corpus for moments with two runs, one of each channel: TVR, How2R of VALUE.

python two_stream_eval/eval_vcmr.py --task tvr --split val --query_txt_db /txt/tvr_val.db \\
    --vfeat_db /video/tv --sub_txt_db /txt/tv_subtitles.db \\
    --video_only_model_dir /storage/tvr_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/tvr_sub_only --sub_only_checkpoint best
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import VcmrEvalOptions
from config.evaluation import CorpusEvalOptions
from engine.two_runs import TwoRuns
from eval_vcmr import open_retrieval
from evaluation.ranking import SearchSettings
from model.vcmr import HeroForVcmr, MomentRetrievalModel
from utils.errors import UserError, run_main

OptionsT = TypeVar("OptionsT", bound=CorpusEvalOptions)


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Write the results file; returns its metrics where the split has ground truth."""
    runs = TwoRuns.parse(VcmrEvalOptions, argv)
    return evaluate_retrieval(runs, HeroForVcmr, SearchSettings.for_moments)


def evaluate_retrieval(
    runs: TwoRuns[OptionsT],
    model_class: type[MomentRetrievalModel],
    settings: Callable[[OptionsT], SearchSettings],
) -> dict[str, float | str]:
    """Evaluate any task that finds videos for queries.

    Args:
        runs: of the task.
        model_class: the task's model.
        settings: what to list for a query.
    """
    video_run, sub_run = runs.start()
    video, model = open_retrieval(video_run, model_class, settings(runs.video))
    sub, sub_model = open_retrieval(sub_run, model_class, settings(runs.sub))
    if video.video2idx != sub.video2idx:
        raise UserError(
            "the two runs search other videos: name databases for both (--query_txt_db, "
            "--vfeat_db, --sub_txt_db)"
        )
    folder = runs.folder(video_run, runs.video.split)
    return video.evaluate(model, video_run.evaluated.label, folder, [sub.stream(sub_model)])


if __name__ == "__main__":
    run_main(main)
