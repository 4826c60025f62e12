"""Films per minute of feature extraction, and the shares of decoding and of each network.

    python benchmarks/extraction.py [--films 3] [--seconds 60] [--size 1280x720] [--workers 1 2]
        [--models resnet slowfast | --models clip]

Makes films (H.264, 25 frames a second, moving shapes and noise), then measures each part alone,
with one thread: decoding all windows of all films, and the networks (untrained: their work is the
same) over batches of windows; last the whole extraction, by number of decoding processes and with
PyTorch's usual number of threads.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import numpy as np
import torch
from tabulate import tabulate

from benchmarks.common import make_film, make_parser, wall_and_cpu
from data.prepare.extract_videos import extract_videos
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import find_videos
from data.prepare.video_frames import Sampling, read_windows
from engine.extractors import describe
from model.extractors.build import EXTRACTORS, HERO_EXTRACTORS, build_extractor
from model.extractors.extractor import Extractor, FeatureExtractor

INTERVAL, BATCH = 1.5, 8


def untrained(names: Sequence[str]) -> dict[str, Extractor]:
    """Return extractors without their published weights, on the CPU."""
    device = torch.device("cpu")
    return {name: build_extractor(name, None, device, half=False) for name in names}


def parts(folder: Path, models: Mapping[str, Extractor], repeats: int) -> dict[str, float]:
    """Return CPU seconds a film of decoding and of each network."""
    extractor = FeatureExtractor(models, torch.device("cpu"))
    sampling = Sampling(INTERVAL, extractor.times, whole=extractor.whole)
    films = sorted(folder.iterdir())

    def decode() -> int:
        return sum(1 for film in films for _ in read_windows(film, sampling, threads=1))

    windows = decode()
    picture = next(iter(read_windows(films[0], sampling, threads=1))).shape[1:]
    times = {"decoding": wall_and_cpu(decode, repeats)[1]}
    for name, model in models.items():
        alone = FeatureExtractor({name: model}, torch.device("cpu"))
        batch = np.zeros((BATCH, len(alone.times), *picture), np.uint8)
        alone(batch)
        times[name] = wall_and_cpu(partial(alone, batch), repeats)[1] / BATCH * windows
    return {name: seconds / len(films) for name, seconds in times.items()}


def extract(folder: Path, models: Mapping[str, Extractor], workers: int, output: Path) -> None:
    """Extract the features of all films of a folder."""
    extractor = FeatureExtractor(models, torch.device("cpu"))
    sampling = Sampling(INTERVAL, extractor.times, whole=extractor.whole)
    made_by = {name: describe(model, None, INTERVAL) for name, model in models.items()}
    features = FeatureFolder(output, made_by, force=False)
    sizes = {"batch_size": BATCH, "workers": workers}
    outcomes = extract_videos(find_videos(folder).videos, extractor, sampling, features, **sizes)
    assert all(outcome.problem is None for outcome in outcomes)


def main() -> None:
    parser = make_parser(__doc__, films=3, seconds=60, repeats=3)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--models", nargs="+", choices=EXTRACTORS, default=HERO_EXTRACTORS)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    models = untrained(options.models)
    with tempfile.TemporaryDirectory() as temporary:
        films = Path(temporary) / "films"
        films.mkdir()
        for number in range(options.films):
            make_film(films / f"{number}.mp4", options.seconds, (width, height), seed=number)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        times = parts(films, models, options.repeats)
        torch.set_num_threads(threads)
        total = sum(times.values())
        rows = [(name, f"{cpu:.2f}", f"{cpu / total:.1%}") for name, cpu in times.items()]
        columns = ("part", "CPU seconds a film", "share")
        print(tabulate(rows, columns, disable_numparse=True), flush=True)
        for workers in options.workers:
            output = Path(temporary) / f"features-{workers}"
            seconds, cpu = wall_and_cpu(partial(extract, films, models, workers, output))
            print(
                f"--workers {workers}: {60 * options.films / seconds:.2f} films of "
                f"{options.seconds} s a minute; {cpu / options.films:.1f} CPU seconds a film"
            )


if __name__ == "__main__":
    main()
