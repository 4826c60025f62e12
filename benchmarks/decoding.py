"""Greedy captions with keys and values kept, against recomputing every prefix.

    python benchmarks/decoding.py [--clips 40] [--steps 30] [--beam 4] [--repeats 3]

The full-size decoder (hidden 768, 2 layers, 50272 words) on clips of 3…12 frames; no caption ends
early. Both ways write the same words. The encoder, which both need once, is left out. Times are
medians of repeated runs in one process, turn by turn.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from config.model_config import ModelConfig
from data.batch import ClipBatch
from data.video import collate_texts
from model.decoding import DecodingSettings, search
from model.tvc import CaptionStepper, HeroForTvc
from utils.packing import PackedLayout

WORDS = 50265
BEGIN, END = 0, 2


def make_clips(count: int, hidden: int, device: torch.device) -> tuple[Tensor, ClipBatch]:
    """Frame embeddings of one long video, and clips all over it."""
    rng = np.random.default_rng(0)
    lengths = torch.from_numpy(rng.integers(3, 13, size=count))
    frames = torch.randn(100, hidden, generator=torch.Generator().manual_seed(0))
    first = torch.from_numpy(rng.integers(0, 88, size=count))
    return frames.to(device), ClipBatch(first, lengths, int(lengths.max())).to(device)


def write_kept(
    model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
) -> Tensor:
    """As :meth:`model.tvc.HeroForTvc.generate` does."""
    stepper = CaptionStepper(model, frames, clips, settings)
    return search(stepper, len(clips.first), frames.device, settings)


def write_anew(
    model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
) -> Tensor:
    """Every step runs the decoder over all words so far; the word scores are of the last only."""
    count, device = len(clips.first), frames.device
    written = torch.full((count, 1), settings.begin, device=device)
    forbidden = settings.forbidden(model.v_encoder.f_encoder.lm_head.bias.shape[0], device)
    for step in range(1, settings.max_steps + 1):
        text = collate_texts(written.tolist()).to(device)
        x = model.embed(text.token_ids, text.positions)
        by_clip = PackedLayout.from_lengths([step] * count, attended=False).to(device)
        x = model.decoder(x, text.layout, frames, clips, by_clip).view(count, step, -1)
        logits = model.v_encoder.f_encoder.lm_head(x[:, -1])
        word = logits.masked_fill(forbidden, float("-inf")).argmax(dim=-1)
        written = torch.cat([written, word[:, None]], dim=1)
    return written[:, 1:]


def median_seconds(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median of every run, taken in turns after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run().tolist()  # waits for the device
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def build_model(device: torch.device, name: str = "hero_tvc") -> HeroForTvc:
    """The full-size model, or one of other sizes in ``config/``, with random weights."""
    torch.manual_seed(0)
    config = ModelConfig.from_json(Path(__file__).parents[1] / "config" / f"{name}.json")
    return HeroForTvc(config).to(device).eval()


@torch.no_grad()
def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; returns seconds by way of writing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(device)
    frames, clips = make_clips(options.clips, model.position_embeddings.embedding_dim, device)
    endless = tuple(i for i in range(WORDS) if i != END)
    greedy = DecodingSettings(BEGIN, END, endless, options.steps)
    wide = DecodingSettings(BEGIN, END, endless, options.steps, options.beam)
    same = torch.equal(
        write_kept(model, frames, clips, greedy), write_anew(model, frames, clips, greedy)
    )
    seconds = median_seconds(
        {
            "greedy, every prefix recomputed": lambda: write_anew(model, frames, clips, greedy),
            "greedy, kept": lambda: write_kept(model, frames, clips, greedy),
            f"beam {options.beam}, kept": lambda: write_kept(model, frames, clips, wide),
        },
        options.repeats,
    )
    recomputed = next(iter(seconds.values()))
    rows = [
        [name, value, 1000 * value / options.clips, recomputed / value]
        for name, value in seconds.items()
    ]
    print(f"{options.clips} clips, {options.steps} words each, {device}; same words: {same}")
    print(tabulate(rows, headers=["", "s", "ms per clip", "times faster"], floatfmt=".2f"))
    return seconds


if __name__ == "__main__":
    main()
