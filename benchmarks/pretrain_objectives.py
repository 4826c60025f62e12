"""Throughput of each pre-training objective, packed against padded.

    python benchmarks/pretrain_objectives.py [--videos 4] [--repeats 2] [--objectives mlm vsm …]

A step is forward and backward of one batch of TVR-like videos through the full-size model. Both
versions have the same weights and the same heads; losses agree. Times are medians.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.padded import (
    PaddedVideos,
    padded_frame_vectors,
    padded_sequences,
    padded_temporal,
    standing_in,
)
from benchmarks.train_step import tvr_like_videos
from config.model_config import ModelConfig
from data.batch import ObjectiveBatch, VideoBatch
from data.fom import SHUFFLED_SHARE, FomItem, shuffle_some
from data.mfm import MfmItem, choose_frames
from data.mlm import MlmItem, TokenMasking
from data.pretraining import OBJECTIVES
from data.vcmr import QUERIES_PER_VIDEO, MomentItem
from data.video import Subtitle, VideoItem
from data.vsm import subtitle_frames
from model.hero import HierarchicalEncoder
from model.layers import set_dropout
from model.pretrain import HeroForPretraining
from utils.batch import TensorBatch

MASK_PROB = 0.15
MASKING = TokenMasking(MASK_PROB, mask_id=50264, replacements=np.arange(4, 50000))


@runtime_checkable
class OfVideos(Protocol):
    """A batch about videos."""

    video: VideoBatch


def videos_of(batch: TensorBatch) -> VideoBatch:
    """The videos that a batch of any task is about."""
    about = batch.batch if isinstance(batch, ObjectiveBatch) else batch
    assert isinstance(about, OfVideos)
    return about.video


class PaddedEncoder(nn.Module):
    """Answers like the encoder it wraps, but computes everything padded to the longest."""

    def __init__(self, encoder: HierarchicalEncoder, batch: TensorBatch) -> None:
        super().__init__()
        self.encoder = encoder
        self.f_encoder = encoder.f_encoder
        self.feat_regress = encoder.feat_regress
        self.fom_output = encoder.fom_output
        video = videos_of(batch)
        about = batch.batch if isinstance(batch, ObjectiveBatch) else batch
        mask = getattr(about, "frame_mask", None)
        if mask is not None:
            hidden = video.features.masked_fill(mask[:, None], 0)
            video = dataclasses.replace(video, features=hidden)
        self.video = PaddedVideos(video)

    def forward(self, video: VideoBatch) -> Tensor:
        return self.temporal(self.frame_vectors(video), video)

    def frame_vectors(self, video: VideoBatch, frame_mask: Tensor | None = None) -> Tensor:
        return padded_frame_vectors(self.encoder, self.video)

    def temporal(self, frames: Tensor, video: VideoBatch) -> Tensor:
        return video.layout.unpad(padded_temporal(self.encoder, *video.layout.pad(frames)))

    def subtitle_vectors(
        self, video: VideoBatch, features: Tensor, frame_mask: Tensor | None, rows: Tensor
    ) -> Tensor:
        outputs = video.subtitles.layout.unpad(padded_sequences(self.encoder, self.video))
        return outputs.index_select(0, rows)

    def with_texts(self, video: VideoBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
        sequences = padded_sequences(self.encoder, self.video)
        frames = padded_frame_vectors(self.encoder, self.video, sequences=sequences)
        texts = video.subtitles.layout.unpad(sequences).index_select(0, rows)
        return self.temporal(frames, video), texts


def mlm_item(video: VideoItem, rng: np.random.Generator) -> MlmItem:
    masked = [MASKING(subtitle.tokens, rng) for subtitle in video.subtitles]
    subtitles = [
        Subtitle(read, subtitle.frames)
        for (read, _), subtitle in zip(masked, video.subtitles, strict=True)
    ]
    return MlmItem(dataclasses.replace(video, subtitles=subtitles), [true for _, true in masked])


def vsm_item(video: VideoItem, rng: np.random.Generator) -> MomentItem:
    drawn = np.sort(rng.permutation(len(video.subtitles))[:QUERIES_PER_VIDEO])
    queries = [video.subtitles[number] for number in drawn]
    subtitles = [
        Subtitle(subtitle.tokens[:1] if subtitle in queries else subtitle.tokens, subtitle.frames)
        for subtitle in video.subtitles
    ]
    return MomentItem(
        dataclasses.replace(video, subtitles=subtitles),
        [query.tokens for query in queries],
        [subtitle_frames(query.frames, video.num_frames) for query in queries],
        [video.vid] * QUERIES_PER_VIDEO,
    )


def make_batches(count: int) -> dict[str, ObjectiveBatch]:
    """A batch of ``count`` videos for every objective."""
    rng = np.random.default_rng(0)
    videos = tvr_like_videos(count)
    masks = [choose_frames(video.num_frames, MASK_PROB, rng) for video in videos]
    items: dict[str, Sequence[object]] = {
        "mlm": [mlm_item(video, rng) for video in videos],
        "mfm-nce": [MfmItem(video, mask) for video, mask in zip(videos, masks)],
        "mffr": [MfmItem(video, mask) for video, mask in zip(videos, masks)],
        "fom": [FomItem(v, *shuffle_some(v.num_frames, SHUFFLED_SHARE, rng)) for v in videos],
        "vsm": [vsm_item(video, rng) for video in videos],
    }
    return {name: OBJECTIVES[name].batch(some) for name, some in items.items()}


def build_model(dropout: float) -> HeroForPretraining:
    """The full-size model. Mask embeddings are zero: the padded version leaves them out."""
    torch.manual_seed(0)
    config = ModelConfig.from_json(Path(__file__).parents[1] / "config" / "hero_pretrain.json")
    model = HeroForPretraining(config).train()
    set_dropout(model, dropout)
    for table in (
        model.v_encoder.mask_embedding,
        model.v_encoder.f_encoder.img_embeddings.mask_embedding,
    ):
        nn.init.zeros_(table.weight)
    return model


def steps(model: HeroForPretraining, batch: ObjectiveBatch) -> dict[str, Callable[[], float]]:
    """Forward and backward of each version; they return the loss."""
    encoder = model.v_encoder
    padded = PaddedEncoder(encoder, batch)

    def run(version: nn.Module) -> Callable[[], float]:
        def step() -> float:
            model.zero_grad()
            with standing_in(model, version):
                loss = sum(model(batch).values())
                loss.backward()
            return loss.item()

        return step

    return {"packed": run(encoder), "padded": run(padded)}


def check_equal(batches: dict[str, ObjectiveBatch]) -> None:
    """Raise AssertionError where the two versions' losses differ."""
    model = build_model(dropout=0.0)
    for name, batch in batches.items():
        with torch.no_grad():
            packed = sum(model(batch).values())
            with standing_in(model, PaddedEncoder(model.v_encoder, batch)):
                padded = sum(model(batch).values())
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4, msg=name)


def measure(batches: dict[str, ObjectiveBatch], dropout: float, repeats: int) -> dict[str, dict]:
    """Median seconds of a step, by objective and version; versions run in turn."""
    model = build_model(dropout)
    seconds = {}
    for name, batch in batches.items():
        times: dict[str, list[float]] = {"packed": [], "padded": []}
        for number in range(repeats + 1):
            for version, step in steps(model, batch).items():
                start = time.perf_counter()
                step()
                if number > 0:  # the first round warms up
                    times[version].append(time.perf_counter() - start)
        seconds[name] = {version: statistics.median(values) for version, values in times.items()}
    return seconds


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--objectives", nargs="+", help="some of them only")
    arguments = parser.parse_args()
    batches = make_batches(arguments.videos)
    if arguments.objectives:
        batches = {name: batches[name] for name in arguments.objectives}
    check_equal(batches)
    seconds = measure(batches, arguments.dropout, arguments.repeats)
    ratios = {name: times["padded"] / times["packed"] for name, times in seconds.items()}
    rows = [
        [name, *(arguments.videos / seconds[name][v] for v in ("packed", "padded")), ratio]
        for name, ratio in ratios.items()
    ]
    headers = ["objective", "videos/s packed", "videos/s padded", "times faster"]
    print(tabulate(rows, headers=headers, floatfmt=".2f"))
    return ratios


if __name__ == "__main__":
    main()
