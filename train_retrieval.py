#!/usr/bin/env python
"""Another name of train_all_multitask.py, for retrieval: TVR, How2R, YC2R, VATEX-EN-R.

python train_retrieval.py --config config/value/train-yc2r-4gpu.json
"""

from train_all_multitask import main
from utils.errors import run_main

if __name__ == "__main__":
    run_main(main)
