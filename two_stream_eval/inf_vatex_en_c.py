#!/usr/bin/env python
"""Caption videos with two runs, one of each channel: VATEX-EN-C of VALUE.

python two_stream_eval/inf_vatex_en_c.py --target_clip /txt/vatex_en_c_test_public_release.jsonl \\
    --video_only_model_dir /storage/vatex_en_c_video_only --video_only_ckpt_step best \\
    --sub_only_model_dir /storage/vatex_en_c_sub_only --sub_only_ckpt_step best
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import VatexInferenceOptions
from two_stream_eval.inf_tvc import caption
from utils.errors import run_main

main = partial(caption, VatexInferenceOptions)

if __name__ == "__main__":
    run_main(main)
