"""Per-video feature files of the two extractors, in which the visible words can be found again."""

import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scripts.demo_corpus.scenes import Span
from scripts.demo_corpus.words import RESNET_WIDTH, SLOWFAST_WIDTH, stable_hash, word_look
from utils.files import atomic_write
from utils.processes import follow_parent

EXTRACTORS = {"resnet": RESNET_WIDTH, "slowfast": SLOWFAST_WIDTH}
_NOISE_DENSITY = 0.04  # share of units that fire for no reason
_BLINK = 0.1  # share of a word's frames in which it is not visible


@dataclass(frozen=True)
class FeatureJob:
    """One video file to write: its frames and what is visible when."""

    name: str
    folder: str | None  # below {extractor}_features/, as a show's name; None: {extractor}/ itself
    frames: int  # T
    interval: float  # seconds per frame
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class FeatureFormat:
    """Where and how the files are written."""

    root: Path
    seed: int
    half: bool = False  # float16 instead of float32 (of the same values)


def coverage(span: Span, frames: int, interval: float) -> np.ndarray:
    """Share of each frame's time that lies in the span: (T,) in [0, 1]."""
    edges = np.arange(frames + 1) * interval
    overlap = np.minimum(edges[1:], span.end) - np.maximum(edges[:-1], span.start)
    return (np.clip(overlap, 0.0, interval) / interval).astype(np.float32)


def frame_features(job: FeatureJob, extractor: str, frames: int, seed: int) -> np.ndarray:
    """Sum the looks of the visible words and noise: (T, width) float32, never negative.

    The values are representable in float16, so a half-precision copy loses nothing.
    """
    width = EXTRACTORS[extractor]
    rng = np.random.default_rng([seed, stable_hash(job.name), stable_hash(extractor)])
    features = np.zeros((frames, width), dtype=np.float32)
    noise = rng.integers(features.size, size=int(_NOISE_DENSITY * features.size))
    features.reshape(-1)[noise] = rng.uniform(0.0, 1.0, len(noise)).astype(np.float32)
    for span in job.spans:
        visible = coverage(span, frames, job.interval)
        for word in span.words:
            strength = visible * rng.uniform(0.7, 1.3, frames) * (rng.random(frames) > _BLINK)
            look = word_look(word, extractor, width, seed)
            features[:, look.units] += strength[:, None].astype(np.float32) * look.strengths
    return features.astype(np.float16).astype(np.float32)


def write_features(jobs: list[FeatureJob], form: FeatureFormat, workers: int) -> None:
    """Write the jobs' files; those that exist are kept, so a broken-off run can go on."""
    write = partial(_write_job, form=form)
    bar = partial(tqdm, total=len(jobs), desc=form.root.name, unit="video", disable=None)
    if workers == 1:
        for _ in bar(map(write, jobs)):
            pass
        return
    with get_context("spawn").Pool(workers, _start_worker) as pool:
        for _ in bar(pool.imap_unordered(write, jobs, chunksize=16)):
            pass


def _start_worker() -> None:
    follow_parent()
    # Ended by the pool, it still removes the file that it is writing.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def default_workers() -> int:
    """As many processes as this one may use cores, four at most."""
    return min(4, len(os.sched_getaffinity(0)))


def _write_job(job: FeatureJob, form: FeatureFormat) -> None:
    for extractor in EXTRACTORS:
        below = (extractor,) if job.folder is None else (f"{extractor}_features", job.folder)
        path = form.root.joinpath(*below, f"{job.name}.npz")
        if path.exists():
            continue
        frames = job.frames + _extra_frames(job.name, extractor)
        features = frame_features(job, extractor, frames, form.seed)
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            np.savez_compressed(
                out, features=features.astype(np.float16 if form.half else np.float32)
            )


def _extra_frames(name: str, extractor: str) -> int:
    """SlowFast sees one frame more than ResNet at the end of some videos, as in the wild."""
    return int(extractor == "slowfast" and stable_hash(name) % 5 == 0)
