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

from engine.two_runs import TwoRuns
from eval_videoQA import QUESTIONS, AnswerTask
from utils.errors import run_main


def evaluate(task: AnswerTask, argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file of two runs; return its metrics where the split has ground truth."""
    runs = TwoRuns.parse(task.options_class, argv)
    video_run, sub_run = runs.start()
    video, model = task.open(video_run)
    sub, sub_model = task.open(sub_run)
    label, folder = video_run.evaluated.label, runs.folder(video_run, runs.video.split)
    others = [partial(sub.answer, sub_model)]
    return video.evaluate(model, label, folder, runs.video.save_logits, others)


main = partial(evaluate, QUESTIONS)

if __name__ == "__main__":
    run_main(main)
