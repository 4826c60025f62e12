"""Packed against padded: forward and backward of a training step, by task.

    python benchmarks/train_step.py [--tasks TVR mlm …] [--videos 8] [--repeats 5] [--dropout 0.1]

Full-size models on TVR-like videos; both versions share their weights, and their losses and
gradients agree. Seconds are medians in one process, in turns; peak memory is that of a process of
its own for each version, above what it held before the step.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate
from torch import nn

from benchmarks.cases import CASES, Case, Sizes
from benchmarks.common import added_mib, make_parser, median_times
from benchmarks.padded import replaced_encoder
from model.layers import set_dropout

VERSIONS = ("packed", "padded")


def make_case(task: str, videos: int, dropout: float) -> Case:
    """Return a full-size case in training mode, with the same weights at every call."""
    torch.manual_seed(0)
    case = CASES[task](Sizes("hero", videos, questions=1, captioned=videos))
    set_dropout(case.model.train(), dropout)
    return case


def steps(case: Case) -> dict[str, Callable[[], torch.Tensor]]:
    """Return forward and backward of each version; they return the loss."""

    def step(version: nn.Module) -> torch.Tensor:
        case.model.zero_grad(set_to_none=False)
        with replaced_encoder(case.model, version):
            loss = torch.stack([loss.sum() for loss in case.model(case.batch).values()]).sum()
            loss.backward()
        return loss.detach()

    encoder = case.model.v_encoder
    padded = case.padded(encoder, case.batch)
    return {"packed": partial(step, encoder), "padded": partial(step, padded)}


def check_equal(case: Case) -> None:
    """Raise AssertionError where the losses or gradients of the two versions differ.

    Mask embeddings are left out: the padded version has none.
    """
    results = []
    for step in steps(case).values():
        results.append({"loss": step()})
        for name, parameter in case.model.named_parameters():
            if parameter.grad is not None and "mask_embedding" not in name:
                results[-1][name] = parameter.grad.clone()
    packed, padded = results
    assert packed.keys() == padded.keys()
    for name, value in padded.items():
        tolerance = 1e-5 + 1e-3 * value.abs().max().item()
        torch.testing.assert_close(packed[name], value, atol=tolerance, rtol=0, msg=name)


def peak_mib(task: str, videos: int, dropout: float, version: str) -> float:
    """Return the memory that two steps add to this process, which holds model and gradients."""
    case = make_case(task, videos, dropout)
    for parameter in case.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    step = steps(case)[version]
    return added_mib(lambda: (step(), step()))


def measure_memory(task: str, videos: int, dropout: float) -> dict[str, float]:
    """Return :func:`peak_mib` of each version, each in a new process."""
    peaks = {}
    for version in VERSIONS:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            peaks[version] = process.submit(peak_mib, task, videos, dropout, version).result()
    return peaks


def main() -> None:
    parser = make_parser(__doc__, videos=8, repeats=5, dropout=0.1)
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=["TVR"])
    options = parser.parse_args()
    rows = []
    for task in options.tasks:
        check_equal(make_case(task, options.videos, dropout=0.0))
        case = make_case(task, options.videos, options.dropout)
        seconds = median_times(steps(case), options.repeats)
        peaks = measure_memory(task, options.videos, options.dropout)
        layout = case.video.subtitles.layout
        positions = {"packed": case.positions, "padded": len(layout.lengths) * layout.max_length}
        for name in VERSIONS:
            ratios = seconds["padded"] / seconds[name], peaks[name] / peaks["padded"]
            rows.append([task, name, positions[name], seconds[name], peaks[name], *ratios])
    headers = ["task", "version", "positions", "s", "peak MiB", "times faster", "times the memory"]
    print(tabulate(rows, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
