"""Start a loader process and be killed before it has begun to work."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.loader import evaluation_batches
from utils.distributed import SingleProcess


def main() -> None:
    os.register_at_fork(
        after_in_child=lambda: time.sleep(1),
        after_in_parent=lambda: os.kill(os.getpid(), signal.SIGKILL),
    )
    options = SimpleNamespace(n_workers=1, pin_mem=False)
    run = SimpleNamespace(options=options, comm=SingleProcess(), device=torch.device("cpu"))
    evaluation_batches(range(8), list, 2, run)


if __name__ == "__main__":
    main()
