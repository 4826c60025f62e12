#!/usr/bin/env python
# ruff: noqa: N999 (the name under which the task is published)
"""Answer the questions of a split with two runs, one of each channel: TVQA, How2QA, VLEP of VALUE.

python two_stream_eval/eval_videoQA.py --task vlep --split dev --query_txt_db /txt/vlep_dev.db \\
    --vfeat_db /video/vlep --sub_txt_db /txt/vlep_subtitles.db \\
    --video_only_model_dir /storage/vlep_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/vlep_sub_only --sub_only_checkpoint best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import VideoQaEvalOptions
from config.evaluation import AnswerEvalOptions
from engine.two_runs import TwoRuns
from eval_videoQA import Judging, open_answers, questions
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    runs = TwoRuns.parse(VideoQaEvalOptions, argv)
    return evaluate_answers(runs, questions(runs.video))


def evaluate_answers(runs: TwoRuns[AnswerEvalOptions], judging: Judging) -> dict[str, float]:
    """Evaluate any task that judges texts by a video."""
    video_run, sub_run = runs.start()
    video, model = open_answers(video_run, judging)
    sub, sub_model = open_answers(sub_run, judging)
    return video.evaluate(
        model,
        video_run.evaluated.label,
        runs.folder(video_run, runs.video.split),
        runs.video.save_logits,
        [partial(sub.answer, sub_model)],
    )


if __name__ == "__main__":
    run_main(main)
