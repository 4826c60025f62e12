#!/usr/bin/env python
"""Judge the statements of a split with two runs, one of each channel: VIOLIN of VALUE.

python two_stream_eval/eval_violin.py --split test --query_txt_db /txt/violin_test.db \\
    --vfeat_db /video/violin --sub_txt_db /txt/violin_subtitles.db \\
    --video_only_model_dir /storage/violin_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/violin_sub_only --sub_only_checkpoint best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_violin import STATEMENTS
from two_stream_eval.eval_videoQA import evaluate
from utils.errors import run_main

main = partial(evaluate, STATEMENTS)

if __name__ == "__main__":
    run_main(main)
