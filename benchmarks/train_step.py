"""Packed against padded: forward and backward of the encoder on a TVR-like batch.

    python benchmarks/train_step.py [--videos 8] [--repeats 5] [--dropout 0.1]

Times are medians of repeated runs in one process; peak memory is that of a process of its own for
each version, above what it held before the step.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.padded import PaddedVideos, padded_forward
from config.model_config import ModelConfig
from data.batch import VideoBatch
from data.video import Subtitle, VideoItem, collate_videos
from model.hero import FEATURE_SIZE, HierarchicalEncoder
from model.layers import set_dropout


def tvr_like_videos(videos: int, seed: int = 0) -> list[VideoItem]:
    """Videos of about 50 frames with about 25 subtitles, each over 1–4 frames with 3–40 tokens."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(videos):
        frames = int(rng.integers(42, 60))
        edges = np.sort(rng.choice(np.arange(1, frames), size=24, replace=False))
        runs = np.split(np.arange(frames), edges)
        lengths = np.clip(rng.lognormal(2.2, 0.6, size=len(runs)), 3, 60).astype(int)
        subtitles = [
            Subtitle(rng.integers(4, 50000, size=length).tolist(), run.tolist())
            for run, length in zip(runs, lengths, strict=True)
        ]
        features = rng.standard_normal((frames, FEATURE_SIZE), dtype=np.float32)
        items.append(VideoItem(f"video{number}", features, subtitles))
    return items


def tvr_like_batch(videos: int) -> VideoBatch:
    """The videos of :func:`tvr_like_videos`, packed."""
    return collate_videos(tvr_like_videos(videos))


def build_encoder(dropout: float) -> HierarchicalEncoder:
    """The full-size encoder: hidden 768, 6 + 3 layers."""
    torch.manual_seed(0)
    config = ModelConfig.from_json(Path(__file__).parents[1] / "config" / "hero_finetune.json")
    encoder = HierarchicalEncoder(config).train()
    set_dropout(encoder, dropout)
    return encoder


def steps(encoder: HierarchicalEncoder, video: VideoBatch) -> dict[str, Callable[[], torch.Tensor]]:
    """Forward and backward of each version; they return the frame embeddings (F, H)."""
    padded_video = PaddedVideos(video)

    def run(forward: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            encoder.zero_grad(set_to_none=False)
            frames = forward()
            frames.square().mean().backward()
            return frames.detach()

        return step

    return {
        "packed": run(lambda: encoder(video)),
        "padded": run(lambda: video.layout.unpad(padded_forward(encoder, padded_video))),
    }


def check_equal(video: VideoBatch) -> float:
    """Largest difference of outputs and of gradients (relative to the largest gradient)."""
    encoder = build_encoder(dropout=0.0)
    results = {}
    for name, step in steps(encoder, video).items():
        output = step()
        grads = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        results[name] = (output, grads)
    (packed, packed_grads), (padded, padded_grads) = results["packed"], results["padded"]
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(packed_grads, padded_grads, strict=True):
        largest = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, atol=1e-5 + 1e-3 * largest, rtol=0)
    return (packed - padded).abs().max().item()


def measure_seconds(video: VideoBatch, dropout: float, repeats: int) -> dict[str, float]:
    """Median seconds of each version, run in turn."""
    versions = steps(build_encoder(dropout), video)
    times: dict[str, list[float]] = {name: [] for name in versions}
    for number in range(repeats + 1):
        for name, step in versions.items():
            start = time.perf_counter()
            step()
            if number > 0:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _resident(line: str) -> float:
    """MiB of a line of this process' status: ``VmRSS`` now, ``VmHWM`` at its peak (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(text for text in status if text.startswith(line)).split()[1]) / 1024


def _peak(name: str, videos: int, dropout: float, answer: multiprocessing.Queue) -> None:
    """Peak resident memory (MiB) that two steps add to a process that holds model and gradients."""
    encoder = build_encoder(dropout)
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter).fill_(1.0)
    step = steps(encoder, tvr_like_batch(videos))[name]
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    step()
    step()
    answer.put(_resident("VmHWM") - before)


def measure_memory(videos: int, dropout: float) -> dict[str, float]:
    """MiB of each version, each in a new process."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in ("packed", "padded"):
        answer = context.Queue()
        process = context.Process(target=_peak, args=(name, videos, dropout, answer))
        process.start()
        peaks[name] = answer.get()
        process.join()
    return peaks


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.1)
    arguments = parser.parse_args()
    video = tvr_like_batch(arguments.videos)
    real = int(video.subtitles.layout.lengths.sum())
    cells = len(video.subtitles.layout.lengths) * video.subtitles.layout.max_length
    print(f"{len(video.subtitles.layout.lengths)} subtitles, {real} positions, {cells} padded")
    print(f"largest difference of the outputs: {check_equal(video):.1e}")
    seconds = measure_seconds(video, arguments.dropout, arguments.repeats)
    memory = measure_memory(arguments.videos, arguments.dropout)
    rows = [[name, f"{seconds[name]:.2f}", f"{memory[name]:.0f}"] for name in seconds]
    ratio = {
        "speed": seconds["padded"] / seconds["packed"],
        "memory": memory["packed"] / memory["padded"],
    }
    rows.append(["ratio", f"{ratio['speed']:.2f} × faster", f"{ratio['memory']:.2f} × the memory"])
    print(tabulate(rows, headers=["version", "seconds a step", "peak MiB"]))
    return ratio


if __name__ == "__main__":
    main()
