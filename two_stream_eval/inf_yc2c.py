#!/usr/bin/env python
"""Caption videos with two runs, one of each channel: YC2C of VALUE.

python two_stream_eval/inf_yc2c.py --target_clip /txt/yc2c_val_release.jsonl \\
    --video_only_model_dir /storage/yc2c_video_only --video_only_ckpt_step best \\
    --sub_only_model_dir /storage/yc2c_sub_only --sub_only_ckpt_step best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import Yc2cInferenceOptions
from two_stream_eval.inf_tvc import caption
from utils.errors import run_main

main = partial(caption, Yc2cInferenceOptions)

if __name__ == "__main__":
    run_main(main)
