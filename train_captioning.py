#!/usr/bin/env python
"""Fine-tune HERO on VALUE's captioning: TVC, YC2C, VATEX-EN-C; another name of train_all_multitask.py.

horovodrun -np 8 python train_captioning.py --config config/value/train-yc2c-8gpu.json
"""

from train_all_multitask import main
from utils.errors import run_main

if __name__ == "__main__":
    run_main(main)
