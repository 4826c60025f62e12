"""Films per minute of feature extraction, and what of it decoding and each network take.

    python benchmarks/extraction.py [--films 3] [--seconds 60] [--size 1280x720] [--workers 1 2]
        [--models resnet slowfast | --models clip]

Makes films (H.264, 25 frames a second, moving shapes and noise), then measures each part alone,
with one thread: decoding all windows of all films, and the networks (untrained: their work is the
same) over batches of windows. At last the whole extraction, by so many decoding
processes and with PyTorch's usual number of threads. Nothing is compared with a plain version: the
share of each part tells where time is to be had.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import av
import numpy as np
import torch
from tabulate import tabulate

from data.prepare.extract_videos import extract_videos
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import find_videos
from data.prepare.video_frames import Sampling, read_windows
from engine.extractors import describe
from model.extractors.build import EXTRACTORS, HERO_EXTRACTORS, build_extractor
from model.extractors.extractor import Extractor, FeatureExtractor

INTERVAL, RATE, BATCH = 1.5, 25, 8


def make_film(path: Path, seconds: int, size: tuple[int, int], seed: int) -> None:
    """A film as a camera's: things move, and pixels are noisy."""
    rng = np.random.default_rng(seed)
    width, height = size
    noise = rng.integers(0, 24, (8, height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    still = np.stack([rows % 200, columns % 200, (rows + columns) % 200], -1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * RATE):
            image = np.roll(still, 3 * number, axis=1) + noise[number % 8]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU time of some work, all threads of this process together: the median of some runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def parts(folder: Path, models: Mapping[str, Extractor], repeats: int) -> dict[str, float]:
    """CPU seconds a film of decoding and of each network."""
    extractor = FeatureExtractor(models, torch.device("cpu"))
    sampling = Sampling(INTERVAL, extractor.times, whole=extractor.whole)
    films = sorted(folder.iterdir())

    def decode() -> int:
        return sum(1 for film in films for _ in read_windows(film, sampling, threads=1))

    windows = decode()
    picture = next(iter(read_windows(films[0], sampling, threads=1))).shape[1:]
    times = {"decoding": cpu_seconds(decode, repeats)}
    for name, model in models.items():
        alone = FeatureExtractor({name: model}, torch.device("cpu"))
        batch = np.zeros((BATCH, len(alone.times), *picture), np.uint8)
        alone(batch)
        times[name] = cpu_seconds(partial(alone, batch), repeats) / BATCH * windows
    return {name: taken / len(films) for name, taken in times.items()}


def whole(folder: Path, models: Mapping[str, Extractor], workers: int) -> tuple[float, float]:
    """Seconds of an extraction, start to end, and CPU seconds of all its processes."""
    extractor = FeatureExtractor(models, torch.device("cpu"))
    sampling = Sampling(INTERVAL, extractor.times, whole=extractor.whole)
    made_by = {name: describe(model, None, INTERVAL) for name, model in models.items()}
    videos = find_videos(folder).videos
    with tempfile.TemporaryDirectory() as output:
        features = FeatureFolder(output, made_by, force=False)
        start, used = time.monotonic(), cpu_of_all()
        sizes = {"batch_size": BATCH, "workers": workers}
        outcomes = list(extract_videos(videos, extractor, sampling, features, **sizes))
        taken = time.monotonic() - start, cpu_of_all() - used
    assert all(outcome.problem is None for outcome in outcomes)
    return taken


def cpu_of_all() -> float:
    """CPU seconds of this process and of those it has ended."""
    return sum(os.times()[:4])


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="of a film")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--models", nargs="+", choices=EXTRACTORS, default=HERO_EXTRACTORS)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="of each part")
    options = parser.parse_args(argv)
    width, height = map(int, options.size.split("x"))
    device = torch.device("cpu")
    models = {name: build_extractor(name, None, device, half=False) for name in options.models}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(options.films):
            make_film(folder / f"{number}.mp4", options.seconds, (width, height), number)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        taken = parts(folder, models, options.repeats)
        torch.set_num_threads(threads)
        total = sum(taken.values())
        rows = [(name, f"{of:.2f}", f"{of / total:.1%}") for name, of in taken.items()]
        columns = ("part", "CPU seconds a film", "share")
        print(tabulate(rows, columns, disable_numparse=True), flush=True)
        for workers in options.workers:
            seconds, used = whole(folder, models, workers)
            print(
                f"--workers {workers}: {60 * options.films / seconds:.2f} films of "
                f"{options.seconds} s a minute; {used / options.films:.1f} CPU seconds a film"
            )


if __name__ == "__main__":
    main()
