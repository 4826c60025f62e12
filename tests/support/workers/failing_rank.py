"""Run on two ranks: something happens to rank 1 while rank 0 waits for it in a collective.

Each rank first writes its process's number to FOLDER/RANK. FOLDER/slept tells that rank 1 came to
the collective after all: nothing had ended the run before.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from utils.distributed import init_communicator
from utils.distributed.watch import BEAT_SECONDS
from utils.errors import run_main


def main(fault: str, folder: Path) -> None:
    comm = init_communicator()
    (folder / str(comm.rank)).write_text(str(os.getpid()))
    comm.all_reduce_(torch.ones(1))
    comm.step = 7
    if comm.rank == 1:
        time.sleep(2 * BEAT_SECONDS)
        if fault == "dies":
            raise ValueError("the planted fault")
        if fault == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "is stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(120)
        (folder / "slept").touch()
    comm.all_reduce_(torch.ones(3, 2), "mean")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1], Path(sys.argv[2])))
