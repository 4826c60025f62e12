#!/usr/bin/env python
"""Caption clips with two runs, one of each channel: TVC of VALUE.

python two_stream_eval/inf_tvc.py --target_clip /txt/tvc_val_release.jsonl \\
    --video_only_model_dir /storage/tvc_video_only --video_only_ckpt_step best \\
    --sub_only_model_dir /storage/tvc_sub_only --sub_only_ckpt_step best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.evaluation import ValueTvcInferenceOptions
from engine.run import on_main
from engine.two_runs import TwoRuns
from inf_tvc import metrics_file, open_clips, save_metrics
from utils.errors import run_main
from utils.files import check_output


def caption(
    options_class: type[ValueTvcInferenceOptions], argv: list[str] | None = None
) -> dict[str, float]:
    """Write the captions of two runs; return their metrics where the clips have references."""
    runs = TwoRuns.parse(options_class, argv)
    video_run, sub_run = runs.start()
    label, own = video_run.evaluated.label, runs.video
    folder = runs.folder(video_run, own.split)
    output = own.output_in(folder, f"{own.task}_{own.split}_step{label}.jsonl")
    metrics = metrics_file(output, video_run)
    on_main(video_run.comm, lambda: check_output(output, metrics))
    (video, model), other = open_clips(video_run), open_clips(sub_run)
    return save_metrics(video.evaluate(model, output, [other]), video, metrics)


main = partial(caption, ValueTvcInferenceOptions)

if __name__ == "__main__":
    run_main(main)
