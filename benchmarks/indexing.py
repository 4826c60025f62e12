"""The cost of indexing without its extractors, and of a process that was killed.

    python benchmarks/indexing.py --folder /tmp/bench [--films 3] [--seconds 60] [--long 600] \
        [--size 1280x720]

Makes films with a subtitle every four seconds and a full-size HERO with random weights. Measures
CPU time with one thread: extraction alone (decoding, ResNet-152, SlowFast R50, as
scripts/extract_features.py does it), then everything else that index_videos.py does, with these
features given. Last, what is repeated after a process was killed at the end of a film of --long
seconds: skipping the windows whose features exist; compared with decoding all of them.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import torch
from tabulate import tabulate

from benchmarks.common import make_film, make_parser, wall_and_cpu
from benchmarks.extraction import INTERVAL, extract, untrained
from benchmarks.search import make_run, make_tokenizer
from data.prepare.find_videos import find_videos
from data.prepare.problems import Problems
from data.prepare.video_frames import Sampling, read_windows
from engine.extractors import describe
from model.extractors.build import HERO_EXTRACTORS
from model.extractors.extractor import FeatureExtractor
from search.film_folder import FEATURES_FOLDER, FilmFolder
from search.hero_scorer import HeroScorer
from search.indexing import update_index
from search.store import IndexWriter

LINE_SECONDS = 4


def make_subtitles(path: Path, seconds: int) -> None:
    """Write a line of eight words every four seconds."""
    lines = [
        f"{number + 1}\n00:{at // 60:02}:{at % 60:02},000 --> 00:{at // 60:02}:{at % 60:02},900\n"
        "Somebody says eight words in a single breath.\n"
        for number, at in enumerate(range(0, seconds, LINE_SECONDS))
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def measure(folder: Path, films: Path) -> list[tuple[str, float, float]]:
    """Return the rows of the first table."""
    models, index = untrained(HERO_EXTRACTORS), folder / "index"
    extractor = FeatureExtractor(models, torch.device("cpu"))
    made_by = {name: describe(model, None, INTERVAL) for name, model in models.items()}
    extraction = wall_and_cpu(partial(extract, films, models, 1, index / FEATURES_FOLDER))
    scorer = HeroScorer.open(folder / "run", "1", str(folder / "toker"))

    def update() -> None:
        with IndexWriter(index, scorer.maker) as writer:
            problems = Problems(index / "failed.json")
            source = FilmFolder(find_videos(films), index, extractor, made_by, problems)
            *_, summary = update_index(writer, scorer, source)
            assert summary.added + summary.unchanged == len(source.files) and not problems.failures

    return [
        ("extraction", *extraction),
        ("everything else", *wall_and_cpu(update)),
        ("again, nothing new", *wall_and_cpu(update)),
    ]


def read_all(film: Path, sampling: Sampling) -> None:
    for _ in read_windows(film, sampling, threads=1):
        pass


def measure_skipping(film: Path, seconds: int) -> list[tuple[str, float, float]]:
    """Return the rows of the second table."""
    times = FeatureExtractor(untrained(HERO_EXTRACTORS), torch.device("cpu")).times
    last = int(seconds / INTERVAL) - 1
    return [
        (title, *wall_and_cpu(partial(read_all, film, Sampling(INTERVAL, times, first))))
        for title, first in (("all windows", 0), ("all but the last skipped", last))
    ]


def main() -> None:
    parser = make_parser(__doc__, films=3, seconds=60, long=600)
    parser.add_argument("--folder", type=Path, required=True, help="empty, for what is made")
    parser.add_argument("--size", default="1280x720")
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = map(int, options.size.split("x"))
    films = options.folder / "films"
    films.mkdir(parents=True)
    for number in range(options.films):
        make_film(films / f"{number}.mp4", options.seconds, (width, height), seed=number)
        make_subtitles(films / f"{number}.srt", options.seconds)
    make_tokenizer(options.folder / "toker")
    make_run(options.folder / "run")
    rows = measure(options.folder, films)
    shares = [(name, cpu, wall, f"{cpu / rows[0][2]:.2%}") for name, wall, cpu in rows]
    print(tabulate(shares, ("part", "CPU s", "wall s", "of extraction"), floatfmt=".2f"))
    film = make_film(options.folder / "long.mp4", options.long, (width, height))
    rows = measure_skipping(film, options.long)
    print(tabulate(rows, ("decoding", "wall s", "CPU s"), floatfmt=".2f"))


if __name__ == "__main__":
    main()
