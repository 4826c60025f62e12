"""Gradients averaged during backward, against after it, and against not at all.

    torchrun --nproc-per-node 2 benchmarks/gradient_reduction.py [--videos 2] [--repeats 5]

Forward, backward and reduction of the full-size encoder. A step takes as long as its slowest rank;
the variants run in turns, and the table holds medians. ``horovodrun -np 2 python …`` works as well.
On one CPU host the ranks' messages cost computing time, which nothing can hide. A link as slow as
between hosts, which can be hidden, needs a network namespace of its own (as root)::

    unshare --net bash -c 'ip link set lo up
        tc qdisc add dev lo root tbf rate 4gbit burst 4mb latency 400ms
        torchrun --nproc-per-node 2 --master-addr 127.0.0.1 benchmarks/gradient_reduction.py'
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate

from benchmarks.common import make_parser, model_config, tvr_like_videos
from data.video import collate_videos
from model.hero import HierarchicalEncoder
from model.layers import set_dropout
from utils.distributed import Communicator, GradientReducer, broadcast_parameters, setup

STEPS_BEFORE_TIMING = 2  # the first step finds out which parameters are used


def make_step(
    comm: Communicator, device: torch.device, videos: int, reduce: str
) -> Callable[[], float]:
    """Return a training step without optimizer; it returns the slowest rank's seconds."""
    encoder = HierarchicalEncoder(model_config()).train().to(device)
    set_dropout(encoder, 0.0)
    broadcast_parameters(comm, encoder)
    batch = collate_videos(tvr_like_videos(videos)).to(device)
    reducer = GradientReducer(comm, encoder.parameters(), overlap=reduce == "during backward")

    def step() -> float:
        encoder.zero_grad(set_to_none=False)
        comm.barrier()
        start = time.perf_counter()
        loss = encoder(batch).square().mean()
        if reduce == "never":
            with reducer.accumulate():
                loss.backward()
        else:
            loss.backward()
            reducer.finish()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = torch.tensor([time.perf_counter() - start])
        return comm.all_reduce_(seconds, "max").item()

    return step


def main() -> None:
    options = make_parser(__doc__, videos=2, repeats=5).parse_args()
    comm, device = setup()
    variants = ("never", "after backward", "during backward")
    steps = {name: make_step(comm, device, options.videos, name) for name in variants}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(STEPS_BEFORE_TIMING + options.repeats):
        for name in variants:
            times[name].append(steps[name]())
    if comm.is_main:
        rows = [
            (name, f"{statistics.median(times[name][STEPS_BEFORE_TIMING:]):.3f}")
            for name in variants
        ]
        print(f"{comm.size} ranks ({comm.backend}) on {device.type}")
        print(tabulate(rows, ["gradients averaged", "step, s"], disable_numparse=True))
    comm.shutdown()


if __name__ == "__main__":
    main()
