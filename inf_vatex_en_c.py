#!/usr/bin/env python
"""Caption videos with a fine-tuned model: VATEX-EN-C of VALUE.

python inf_vatex_en_c.py --model_dir /storage/vatex_en_c_default --checkpoint best \\
    --target_clip /txt/vatex_en_c_test_public_release.jsonl --output captions.jsonl
"""

from config.config import VatexInferenceOptions, parse_options
from inf_tvc import caption_clips
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the captions; returns their metrics where the target has references."""
    return caption_clips(parse_options(VatexInferenceOptions, argv))


if __name__ == "__main__":
    run_main(main)
