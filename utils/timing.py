"""Time of the phases of a training step, measured without waiting for the device."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepClock:
    """Sums the seconds of named phases.

    On a CPU it reads the clock. On a GPU it records events on the stream and reads them only in
    :meth:`take_means`.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.seconds: dict[str, float] = defaultdict(float)
        self.pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase ``name``."""
        if self.cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self.pending.append((name, start, end))
        else:
            begun = time.perf_counter()
            yield
            self.seconds[name] += time.perf_counter() - begun

    def take_means(self, steps: int) -> dict[str, float]:
        """Return the seconds of each phase per step, as ``seconds/name``, and reset them."""
        if self.pending:
            torch.cuda.synchronize()
        for name, start, end in self.pending:
            self.seconds[name] += start.elapsed_time(end) / 1000
        means = {f"seconds/{name}": total / steps for name, total in self.seconds.items()}
        self.seconds.clear()
        self.pending.clear()
        return means
