#!/usr/bin/env python
"""Rank a corpus of videos with two runs, one of each channel: YC2R, VATEX-EN-R of VALUE.

python two_stream_eval/eval_vr.py --task yc2r --split val --query_txt_db /txt/yc2r_val.db \\
    --vfeat_db /video/yc2 --sub_txt_db /txt/yc2_subtitles.db \\
    --video_only_model_dir /storage/yc2r_video_only --video_only_checkpoint best \\
    --sub_only_model_dir /storage/yc2r_sub_only --sub_only_checkpoint best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_vr import VIDEOS
from two_stream_eval.eval_vcmr import evaluate
from utils.errors import run_main

main = partial(evaluate, VIDEOS)

if __name__ == "__main__":
    run_main(main)
