#!/usr/bin/env python
"""Search a corpus for moments with two runs, one of each channel: TVR, How2R of VALUE.

python two_stream_eval/eval_vcmr.py --task tvr --split val --query_txt_db /txt/tvr_val.db \\
    --vfeat_db /video/tv --sub_txt_db /txt/tv_subtitles.db \\
    --video_only_model_dir /storage/tvr_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/tvr_sub_only --sub_only_checkpoint best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.two_runs import TwoRuns
from eval_vcmr import MOMENTS, RetrievalTask
from utils.errors import UserError, run_main


def evaluate(task: RetrievalTask, argv: list[str] | None = None) -> dict[str, float | str]:
    """Write the results file of two runs; return its metrics where the split has ground truth."""
    runs = TwoRuns.parse(task.options_class, argv)
    video_run, sub_run = runs.start()
    video, model = task.open(video_run)
    sub, sub_model = task.open(sub_run)
    if video.video2idx != sub.video2idx:
        raise UserError(
            "the two runs search other videos: name databases for both (--query_txt_db, "
            "--vfeat_db, --sub_txt_db)"
        )
    folder = runs.folder(video_run, runs.video.split)
    return video.evaluate(model, video_run.evaluated.label, folder, [sub.stream(sub_model)])


main = partial(evaluate, MOMENTS)

if __name__ == "__main__":
    run_main(main)
