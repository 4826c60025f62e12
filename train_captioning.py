#!/usr/bin/env python
"""Another name of train_all_multitask.py, for captioning: TVC, YC2C, VATEX-EN-C.

horovodrun -np 8 python train_captioning.py --config config/value/train-yc2c-8gpu.json
"""

from train_all_multitask import main
from utils.errors import run_main

if __name__ == "__main__":
    run_main(main)
