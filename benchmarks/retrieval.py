"""Corpus moment retrieval: pairs along the allowed diagonals against the full tensor of pairs.

    python benchmarks/retrieval.py [--videos 2179] [--hidden 768] [--queries 80] [--repeats 9]

First the ranking of frame pairs alone, at a size where (queries × videos × T × T) still fits; both
ways must list the same moments. Then the whole search of a corpus of TVR's validation size (videos
of 20…80 frames): milliseconds per query, and the memory that a search adds to the corpus's own.
Times are CPU time on one thread, so that neither the number of processors nor what else they do
counts; medians of repeated runs, turn by turn in one process.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.model_config import ModelConfig
from evaluation.ranking import CorpusIndex, SearchSettings, top_moments
from model.vcmr import MomentRetrievalModel

MODEL_CONFIG = Path(__file__).resolve().parents[1] / "config" / "hero_debug.json"
PAIR_QUERIES, PAIR_VIDEOS, PAIR_FRAMES = 20, 100, 100
MANY_BATCHES = 10
SETTINGS = SearchSettings(
    tasks=("VCMR", "SVMR", "VR"),
    listed_videos=100,
    searched_videos=100,
    listed_moments=200,
    min_pred_l=2,
    max_pred_l=16,
    interval=1.5,
    q2c_alpha=20.0,
)


def plain_top_moments(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and places among the M·T·T pairs, from the full tensor (N, M, T, T)."""
    frames = start.shape[-1]
    distance = torch.arange(frames) - torch.arange(frames)[:, None]
    allowed = (distance >= SETTINGS.min_pred_l) & (distance < SETTINGS.max_pred_l)
    products = start[..., :, None] * end[..., None, :] * allowed
    return products.flatten(1).topk(SETTINGS.listed_moments)


def diagonal_top_moments(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The same from :func:`evaluation.ranking.top_moments`."""
    best = top_moments(
        start, end, SETTINGS.min_pred_l, SETTINGS.max_pred_l, SETTINGS.listed_moments
    )
    frames = start.shape[-1]
    return best.scores, (best.row * frames + best.first) * frames + best.last


def median_seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU time of every run, taken in turns after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            times[name].append(time.process_time() - begun)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def compare_pairs(repeats: int) -> list[list]:
    """Rows of the table: full tensor, diagonals, ratio."""
    shape = (2, PAIR_QUERIES, PAIR_VIDEOS, PAIR_FRAMES)
    start, end = torch.randn(shape).mul(2).softmax(dim=-1)
    ways = {"full tensor": plain_top_moments, "diagonals": diagonal_top_moments}
    for plain, ours in zip(*(way(start, end) for way in ways.values())):
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    seconds = median_seconds(
        {name: partial(way, start, end) for name, way in ways.items()}, repeats
    )
    rows = [[f"pairs, {name} (ms/query)", 1e3 * s / PAIR_QUERIES] for name, s in seconds.items()]
    return [*rows, ["pairs, ratio", seconds["full tensor"] / seconds["diagonals"]]]


def added_megabytes(run: Callable[[], object]) -> float:
    """By how much a run raises the resident memory at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the former peak
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def search_corpus(videos: int, hidden: int, queries: int, repeats: int) -> list[list]:
    """Rows of the table: memory, time of video scores and of the whole search."""
    lengths = torch.randint(20, 81, (videos,)).tolist()
    frames = torch.randn(sum(lengths), hidden).split(lengths)
    model = MomentRetrievalModel(ModelConfig.from_json(MODEL_CONFIG))  # its head knows no width
    corpus = {str(place): embeddings for place, embeddings in enumerate(frames)}
    index = CorpusIndex(corpus, model.pool_scores, model.span_probabilities)
    del frames, corpus
    vectors = torch.randn(queries, hidden)
    span_queries = torch.randn(queries, hidden) / hidden**0.5
    true_videos = torch.randint(videos, (queries,))

    def search(batches: int = 1) -> None:
        for _ in range(batches):
            index.search(vectors, SETTINGS, span_queries, true_videos)

    first = added_megabytes(search)
    more = added_megabytes(lambda: search(MANY_BATCHES))
    runs: dict[str, Callable[[], object]] = {
        "video scores": lambda: index.video_scores(vectors),
        "VCMR + SVMR + VR": search,
    }
    seconds = median_seconds(runs, repeats)
    return [
        *([f"search, {name} (ms/query)", 1e3 * s / queries] for name, s in seconds.items()),
        ["frames of the corpus (MB)", sum(lengths) * hidden * 4 / 2**20],
        ["added by a search (MB)", first],
        [f"added by {MANY_BATCHES} more (MB)", more],
    ]


@torch.no_grad()
def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table and return it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=2179)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--queries", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = compare_pairs(options.repeats)
    rows += search_corpus(options.videos, options.hidden, options.queries, options.repeats)
    print(tabulate(rows, floatfmt=".2f"))
    return dict(rows)


if __name__ == "__main__":
    main()
