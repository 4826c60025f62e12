#!/usr/bin/env python
"""Another name of train_all_multitask.py, for questions, events and statements.

horovodrun -np 8 python train_qa.py --config config/value/train-vlep-8gpu.json
"""

from train_all_multitask import main
from utils.errors import run_main

if __name__ == "__main__":
    run_main(main)
