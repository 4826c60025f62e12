"""Run on two ranks: rank 1 dies, or is late, while rank 0 waits for it in a collective."""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.distributed import init_communicator


def main(fault: str) -> None:
    comm = init_communicator()
    comm.all_reduce_(torch.ones(1))
    if comm.rank == 1:
        if fault == "dies":
            raise ValueError("the planted fault")
        time.sleep(120)
    comm.all_reduce_(torch.ones(3, 2), "mean")


if __name__ == "__main__":
    main(sys.argv[1])
