"""What indexing costs besides its extractors, and what a kill costs.

    python benchmarks/indexing.py --folder /tmp/bench [--films 3] [--seconds 60] [--long 600] \
        [--size 1280x720]

Makes films with a subtitle every four seconds and a HERO of full size with random weights. Measures
CPU time with one thread: extraction alone (decoding, ResNet-152, SlowFast R50, as
scripts/extract_features.py does it), then indexing with these features there: all that
index_videos.py does besides. At last what a process that was killed at the end of a film of --long
seconds does again: passing over the windows that it has the features of; and beside it the decoding
of all of them.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import torch
from tabulate import tabulate

from benchmarks.extraction import BATCH, INTERVAL, make_film
from benchmarks.search import make_run, make_tokenizer
from data.prepare.extract_videos import extract_videos
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import find_videos
from data.prepare.problems import Problems
from data.prepare.video_frames import Sampling, read_windows
from engine.extractors import describe
from model.extractors.build import EXTRACTORS, HERO_EXTRACTORS, build_extractor
from model.extractors.extractor import FeatureExtractor
from search.film_folder import FEATURES_FOLDER, FilmFolder
from search.hero_scorer import HeroScorer
from search.indexing import update_index
from search.store import IndexWriter

LINE_SECONDS = 4


def make_subtitles(path: Path, seconds: int) -> None:
    """A line of eight words every four seconds."""
    lines = [
        f"{number + 1}\n00:{at // 60:02}:{at % 60:02},000 --> 00:{at // 60:02}:{at % 60:02},900\n"
        "Somebody says eight words in a single breath.\n"
        for number, at in enumerate(range(0, seconds, LINE_SECONDS))
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """CPU time and wall clock of some work, in seconds."""
    begun = time.process_time(), time.monotonic()
    work()
    return time.process_time() - begun[0], time.monotonic() - begun[1]


def measure(folder: Path, films: Path) -> list[tuple[str, float, float]]:
    """Rows of the first table."""
    device = torch.device("cpu")
    models = {name: build_extractor(name, None, device, half=False) for name in HERO_EXTRACTORS}
    extractor = FeatureExtractor(models, device)
    made_by = {name: describe(model, None, INTERVAL) for name, model in models.items()}
    index = folder / "index"
    kept = FeatureFolder(index / FEATURES_FOLDER, made_by, force=False)
    videos = find_videos(films).videos
    sampling, sizes = Sampling(INTERVAL, extractor.times), {"batch_size": BATCH, "workers": 1}
    extraction = taken(lambda: list(extract_videos(videos, extractor, sampling, kept, **sizes)))
    scorer = HeroScorer.open(folder / "run", "1", str(folder / "toker"))

    def update() -> None:
        with IndexWriter(index, scorer.maker) as writer:
            problems = Problems(index / "failed.json")
            source = FilmFolder(find_videos(films), index, extractor, made_by, problems)
            *_, summary = update_index(writer, scorer, source)
            assert summary.added + summary.unchanged == len(videos) and not problems.failures

    return [
        ("extraction", *extraction),
        ("all else", *taken(update)),
        ("again, nothing is new", *taken(update)),
    ]


def _read_all(film: Path, sampling: Sampling) -> None:
    for _ in read_windows(film, sampling, threads=1):
        pass


def measure_passing(film: Path, seconds: int) -> list[tuple[str, float, float]]:
    """Rows of the second table."""
    times = sorted({t for name in HERO_EXTRACTORS for t in EXTRACTORS[name].frame_times})
    last = int(seconds / INTERVAL) - 1
    rows = []
    for what, first in (("all windows", 0), ("all but the last passed over", last)):
        sampling = Sampling(INTERVAL, tuple(times), first)
        rows.append((what, *taken(partial(_read_all, film, sampling))))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="empty, for what is made")
    parser.add_argument("--films", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="of a film")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--long", type=int, default=600, help="seconds of the film that is resumed")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    width, height = map(int, options.size.split("x"))
    films = options.folder / "films"
    films.mkdir(parents=True)
    for number in range(options.films):
        make_film(films / f"{number}.mp4", options.seconds, (width, height), number)
        make_subtitles(films / f"{number}.srt", options.seconds)
    make_tokenizer(options.folder / "toker")
    make_run(options.folder / "run")
    rows = measure(options.folder, films)
    shares = [(name, cpu, wall, f"{cpu / rows[0][1]:.2%}") for name, cpu, wall in rows]
    print(tabulate(shares, ("part", "CPU s", "wall s", "of extraction"), floatfmt=".2f"))
    make_film(options.folder / "long.mp4", options.long, (width, height), 0)
    rows = measure_passing(options.folder / "long.mp4", options.long)
    print(tabulate(rows, ("decoding", "CPU s", "wall s"), floatfmt=".2f"))


if __name__ == "__main__":
    main()
