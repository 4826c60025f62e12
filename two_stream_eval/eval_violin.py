#!/usr/bin/env python
"""Judge the statements of a split with two runs, one of each channel: VIOLIN of VALUE.

python two_stream_eval/eval_violin.py --split test --query_txt_db /txt/violin_test.db \\
    --vfeat_db /video/violin --sub_txt_db /txt/violin_subtitles.db \\
    --video_only_model_dir /storage/violin_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/violin_sub_only --sub_only_checkpoint best
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import ViolinEvalOptions
from engine.two_runs import TwoRuns
from eval_violin import statements
from two_stream_eval.eval_videoQA import evaluate_answers
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    runs = TwoRuns.parse(ViolinEvalOptions, argv)
    return evaluate_answers(runs, statements(runs.video))


if __name__ == "__main__":
    run_main(main)
