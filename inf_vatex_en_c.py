#!/usr/bin/env python
"""Caption videos with a fine-tuned model: VATEX-EN-C of VALUE.

python inf_vatex_en_c.py --model_dir /storage/vatex_en_c_default --checkpoint best \\
    --target_clip /txt/vatex_en_c_test_public_release.jsonl --output captions.jsonl
"""

from functools import partial

from config.config import VatexInferenceOptions
from inf_tvc import caption
from utils.errors import run_main

main = partial(caption, VatexInferenceOptions)

if __name__ == "__main__":
    run_main(main)
