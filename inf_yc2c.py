#!/usr/bin/env python
"""Caption videos with a fine-tuned model: YC2C of VALUE.

python inf_yc2c.py --model_dir /storage/yc2c_default --checkpoint best \\
    --target_clip /txt/yc2c_val_release.jsonl --output yc2c_val_output.jsonl
"""

from config.config import Yc2cInferenceOptions, parse_options
from inf_tvc import caption_clips
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the captions; returns their metrics where the target has references."""
    return caption_clips(parse_options(Yc2cInferenceOptions, argv))


if __name__ == "__main__":
    run_main(main)
