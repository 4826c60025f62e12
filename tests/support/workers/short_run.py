"""Run on any number of ranks: one training step and one collective, then an orderly end.

It imports what training imports and builds the optimizer as training does. Prints, in one line, how
many threads of torch.distributed's collectives are left after the communicator's ``shutdown()``.
"""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import train_vcmr  # noqa: F401
from optim.build import build_optimizer
from tests.support.recorded_runs import recorded_options
from utils.distributed import GradientReducer, broadcast_parameters, setup


def collective_threads() -> int:
    """Threads of this process that torch.distributed named after Gloo."""
    names = (path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
    return sum("gloo" in name for name in names)


def main() -> None:
    comm, _ = setup(seed=1)
    layer = nn.Linear(64, 64)
    broadcast_parameters(comm, layer)
    reducer = GradientReducer(comm, layer.parameters())
    optimizer = build_optimizer(layer, recorded_options(1, accumulation=1, rate=1e-3, lr_mul=1.0))
    layer(torch.randn(8, 64)).square().mean().backward()
    reducer.finish()
    optimizer.step()
    comm.barrier()
    during = collective_threads()
    comm.shutdown()
    print(f"collective threads: {during} before shutdown, {collective_threads()} after")


if __name__ == "__main__":
    main()
