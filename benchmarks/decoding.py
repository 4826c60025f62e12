"""Captions with cached keys and values, against recomputing every prefix.

    python benchmarks/decoding.py [--clips 40] [--steps 30] [--beam 4] [--repeats 3]

The full-size decoder (hidden 768, 2 layers, 50272 words) on clips of 3…12 frames; no caption ends
early, and both versions write the same words. The encoder, which both need once, is left out. Times
are medians of repeated runs in one process, in turns.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.common import VOCABULARY, make_parser, median_times, model_config
from data.batch import ClipBatch
from data.video import collate_texts
from model.decoding import DecodingSettings, search
from model.tvc import CaptionStepper, HeroForTvc
from utils.packing import PackedLayout

BEGIN, END = 0, 2


def make_clips(count: int, hidden: int, device: torch.device) -> tuple[Tensor, ClipBatch]:
    """Return frame embeddings of one long video, and clips all over it."""
    rng = np.random.default_rng(0)
    lengths = torch.from_numpy(rng.integers(3, 13, size=count))
    frames = torch.randn(100, hidden, generator=torch.Generator().manual_seed(0))
    first = torch.from_numpy(rng.integers(0, 88, size=count))
    return frames.to(device), ClipBatch(first, lengths, int(lengths.max())).to(device)


def write_cached(
    model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
) -> Tensor:
    """Write captions as :meth:`model.tvc.HeroForTvc.generate` does."""
    stepper = CaptionStepper(model, frames, clips, settings)
    return search(stepper, len(clips.first), frames.device, settings)


def write_recomputed(
    model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
) -> Tensor:
    """Write captions greedily, running the decoder over all words so far at every step."""
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


def build_model(device: torch.device, name: str = "hero_tvc") -> HeroForTvc:
    """Return the full-size model, or one of other sizes in ``config/``, with random weights."""
    torch.manual_seed(0)
    return HeroForTvc(model_config(name)).to(device).eval()


@torch.no_grad()
def main() -> None:
    options = make_parser(__doc__, clips=40, steps=30, beam=4, repeats=3).parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(device)
    frames, clips = make_clips(options.clips, model.position_embeddings.embedding_dim, device)
    endless = tuple(i for i in range(VOCABULARY) if i != END)
    greedy = DecodingSettings(BEGIN, END, endless, options.steps)
    wide = DecodingSettings(BEGIN, END, endless, options.steps, options.beam)
    runs = {
        "greedy, every prefix recomputed": partial(write_recomputed, model, frames, clips, greedy),
        "greedy, cached": partial(write_cached, model, frames, clips, greedy),
        f"beam {options.beam}, cached": partial(write_cached, model, frames, clips, wide),
    }
    recomputed, cached, _ = (run() for run in runs.values())
    same = torch.equal(recomputed, cached)
    waited = {name: lambda run=run: run().tolist() for name, run in runs.items()}  # type: ignore[misc]
    seconds = median_times(waited, options.repeats)
    slowest = next(iter(seconds.values()))
    rows = [[name, s, 1000 * s / options.clips, slowest / s] for name, s in seconds.items()]
    print(f"{options.clips} clips, {options.steps} words each, {device}; same words: {same}")
    print(tabulate(rows, ["", "s", "ms per clip", "times faster"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
