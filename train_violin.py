#!/usr/bin/env python
"""Fine-tune HERO on video-and-language inference: VIOLIN.

horovodrun -np 8 python train_violin.py --config config/train-violin-8gpu.json
"""

from config.config import ViolinOptions, parse_options
from data.violin import StatementDataset
from model.violin import MODELS
from train_videoQA import train_to_answer
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(ViolinOptions, argv)
    return train_to_answer(options, StatementDataset, MODELS[options.task], {"violin": 1.0})


if __name__ == "__main__":
    run_main(main)
