#!/usr/bin/env python
"""Caption videos with a fine-tuned model: YC2C of VALUE.

python inf_yc2c.py --model_dir /storage/yc2c_default --checkpoint best \\
    --target_clip /txt/yc2c_val_release.jsonl --output yc2c_val_output.jsonl
"""

from functools import partial

from config.config import Yc2cInferenceOptions
from inf_tvc import caption
from utils.errors import run_main

main = partial(caption, Yc2cInferenceOptions)

if __name__ == "__main__":
    run_main(main)
