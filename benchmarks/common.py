"""What the benchmarks share: options, timing, memory, synthetic videos, the full-size model."""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import av
import numpy as np

from config.model_config import ModelConfig
from data.batch import MomentBatch
from data.vcmr import MomentItem, collate_moments
from data.video import Subtitle, VideoItem
from model.hero import FEATURE_SIZE

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 50265  # of RoBERTa


def make_parser(doc: str, **numbers: float) -> argparse.ArgumentParser:
    """Return a parser that shows a module's text, with an option for each number.

    Args:
        doc: the module's text.
        numbers: default of each option, by its name; values have the default's type.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


def median_times(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of every run, taken in turns after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def wall_and_cpu(run: Callable[[], object], repeats: int = 1) -> tuple[float, float]:
    """Return median wall-clock and CPU seconds of a run; CPU time includes child processes that
    end during it."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time() + children_cpu()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() + children_cpu() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def children_cpu() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def status_mib(field: str, process: int | str = "self") -> float:
    """Return MiB of a field of a process's status (Linux): ``VmRSS`` (resident), ``VmHWM`` (its
    peak), ``RssAnon`` (without pages of files)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def added_mib(run: Callable[[], object]) -> float:
    """Return by how many MiB a run raises the resident memory at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = status_mib("VmRSS")
    run()
    return status_mib("VmHWM") - before


def model_config(name: str = "hero_finetune") -> ModelConfig:
    """Return a model config of ``config/``."""
    return ModelConfig.from_json(ROOT / "config" / f"{name}.json")


def draw_tokens(rng: np.random.Generator, count: int) -> list[int]:
    """Return token ids drawn at random, no special ones."""
    return rng.integers(4, 50000, size=count).tolist()


def tvr_like_videos(videos: int, seed: int = 0) -> list[VideoItem]:
    """Return videos of about 50 frames with about 25 subtitles, each over 1–4 frames with 3–40
    tokens."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(videos):
        frames = int(rng.integers(42, 60))
        edges = np.sort(rng.choice(np.arange(1, frames), size=24, replace=False))
        runs = np.split(np.arange(frames), edges)
        lengths = np.clip(rng.lognormal(2.2, 0.6, size=len(runs)), 3, 60).astype(int)
        subtitles = [
            Subtitle(draw_tokens(rng, length), run.tolist())
            for run, length in zip(runs, lengths, strict=True)
        ]
        features = rng.standard_normal((frames, FEATURE_SIZE), dtype=np.float32)
        items.append(VideoItem(f"video{number}", features, subtitles))
    return items


def tvr_like_batch(videos: int) -> MomentBatch:
    """Return the videos of :func:`tvr_like_videos`, each with a query of 8 to 20 tokens."""
    rng = np.random.default_rng(1)
    items = []
    for number, video in enumerate(tvr_like_videos(videos)):
        query = draw_tokens(rng, int(rng.integers(8, 21)))
        items.append(MomentItem(video, [query], [(3, 9)], [f"query{number}"]))
    return collate_moments(items)


def make_film(
    path: Path, seconds: int, size: tuple[int, int], rate: int = 25, seed: int = 0
) -> Path:
    """Write a film (H.264) as a camera's: things move, and pixels are noisy."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 24, (8, height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    scene = np.stack([rows % 200, columns % 200, (rows + columns) % 200], -1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * rate):
            image = np.roll(scene, 3 * number, axis=1) + noise[number % 8]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path
