"""Synthetic per-video feature files of two extractors: sums of the visible words' directions."""

from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data.prepare.work import map_in_chunks
from scripts.demo_corpus.scenes import Span
from scripts.demo_corpus.words import RESNET_WIDTH, SLOWFAST_WIDTH, stable_hash, word_look
from utils.files import atomic_write

EXTRACTORS = {"resnet": RESNET_WIDTH, "slowfast": SLOWFAST_WIDTH}
_NOISE_DENSITY = 0.04  # share of units that are active at random
_BLINK = 0.1  # share of a word's frames in which it is not visible


@dataclass(frozen=True)
class FeatureJob:
    """One feature file to write: a video's frames and its visible words."""

    name: str
    folder: str | None  # in {extractor}_features/, as of a show; None: {extractor}/ itself
    frames: int  # T
    interval: float  # seconds per frame
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class FeatureFormat:
    """Folder and format of the files."""

    root: Path
    seed: int
    half: bool = False  # float16 instead of float32 (of the same values)


def frame_features(job: FeatureJob, extractor: str, frames: int, seed: int) -> np.ndarray:
    """Sum the looks of the visible words and noise: (T, width) float32, never negative.

    The values are representable in float16, so a half-precision copy loses nothing.
    """
    width = EXTRACTORS[extractor]
    rng = np.random.default_rng([seed, stable_hash(job.name), stable_hash(extractor)])
    features = np.zeros((frames, width), dtype=np.float32)
    noise = rng.integers(features.size, size=int(_NOISE_DENSITY * features.size))
    features.reshape(-1)[noise] = rng.uniform(0.0, 1.0, len(noise)).astype(np.float32)
    edges = np.arange(frames + 1) * job.interval
    for span in job.spans:
        overlap = np.minimum(edges[1:], span.end) - np.maximum(edges[:-1], span.start)
        visible = (np.clip(overlap, 0.0, job.interval) / job.interval).astype(np.float32)
        for word in span.words:
            strength = visible * rng.uniform(0.7, 1.3, frames) * (rng.random(frames) > _BLINK)
            look = word_look(word, extractor, width, seed)
            features[:, look.units] += strength[:, None].astype(np.float32) * look.strengths
    return features.astype(np.float16).astype(np.float32)


def write_features(jobs: list[FeatureJob], form: FeatureFormat, workers: int) -> None:
    """Write the jobs' files; those that exist are kept, so that a run can be resumed."""
    deque(map_in_chunks(partial(_write_jobs, form=form), jobs, workers, len(jobs), 16), maxlen=0)


def _write_jobs(jobs: list[FeatureJob], form: FeatureFormat) -> list[FeatureJob]:
    for job in jobs:
        _write_job(job, form)
    return jobs


def _write_job(job: FeatureJob, form: FeatureFormat) -> None:
    for extractor in EXTRACTORS:
        below = (extractor,) if job.folder is None else (f"{extractor}_features", job.folder)
        path = form.root.joinpath(*below, f"{job.name}.npz")
        if path.exists():
            continue
        # As with some real videos, SlowFast may have a frame more than ResNet.
        extra = extractor == "slowfast" and stable_hash(job.name) % 5 == 0
        frames = job.frames + int(extra)
        features = frame_features(job, extractor, frames, form.seed)
        dtype = np.float16 if form.half else np.float32
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, features=features.astype(dtype))
