#!/usr/bin/env python
"""Fine-tune HERO on video retrieval: MSR-VTT.

python train_vr.py --config config/train-msrvtt_video_sub-4gpu.json
"""

from config.config import VrOptions, parse_options
from evaluation.ranking import SearchSettings
from model.vcmr import ranking_weights
from model.vr import HeroForVr
from train_vcmr import train_retrieval
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(VrOptions, argv)
    settings = SearchSettings.for_videos(options)
    return train_retrieval(options, HeroForVr, ranking_weights(options), settings)


if __name__ == "__main__":
    run_main(main)
