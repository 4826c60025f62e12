"""Corpus moment retrieval: pairs along the allowed diagonals against the full tensor of pairs.

    python benchmarks/retrieval.py [--videos 2179] [--hidden 768] [--queries 80] [--repeats 9]

First the ranking of frame pairs alone, at a size where (queries × videos × T × T) still fits; both
list the same moments. Then the complete search of a corpus of TVR's validation size (videos of
20…80 frames): milliseconds per query, and the memory that a search adds to the corpus. Times are
CPU time on one thread, medians of runs in turns in one process.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import added_mib, make_parser, median_times, model_config
from evaluation.ranking import CorpusIndex, SearchSettings, top_moments
from model.vcmr import MomentRetrievalModel

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
    """Return scores and indices among the M·T·T pairs, from the full tensor (N, M, T, T)."""
    frames = start.shape[-1]
    distance = torch.arange(frames) - torch.arange(frames)[:, None]
    allowed = (distance >= SETTINGS.min_pred_l) & (distance < SETTINGS.max_pred_l)
    products = start[..., :, None] * end[..., None, :] * allowed
    return products.flatten(1).topk(SETTINGS.listed_moments)


def diagonal_top_moments(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same from :func:`evaluation.ranking.top_moments`."""
    best = top_moments(
        start, end, SETTINGS.min_pred_l, SETTINGS.max_pred_l, SETTINGS.listed_moments
    )
    frames = start.shape[-1]
    return best.scores, (best.row * frames + best.first) * frames + best.last


def compare_pairs(repeats: int) -> list[list]:
    """Return rows of the table: full tensor, diagonals, ratio."""
    shape = (2, PAIR_QUERIES, PAIR_VIDEOS, PAIR_FRAMES)
    start, end = torch.randn(shape).mul(2).softmax(dim=-1)
    runs = {
        "full tensor": partial(plain_top_moments, start, end),
        "diagonals": partial(diagonal_top_moments, start, end),
    }
    for plain, ours in zip(*(run() for run in runs.values())):
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    seconds = median_times(runs, repeats, time.process_time)
    rows = [[f"pairs, {name} (ms/query)", 1e3 * s / PAIR_QUERIES] for name, s in seconds.items()]
    return [*rows, ["pairs, ratio", seconds["full tensor"] / seconds["diagonals"]]]


def search_corpus(videos: int, hidden: int, queries: int, repeats: int) -> list[list]:
    """Return rows of the table: time of video scores and of the complete search, memory."""
    lengths = torch.randint(20, 81, (videos,)).tolist()
    frames = torch.randn(sum(lengths), hidden).split(lengths)
    model = MomentRetrievalModel(model_config("hero_debug"))  # its scores suit any width
    corpus = {str(number): embeddings for number, embeddings in enumerate(frames)}
    index = CorpusIndex(corpus, model.pool_scores, model.span_probabilities)
    del frames, corpus
    vectors = torch.randn(queries, hidden)
    span_queries = torch.randn(queries, hidden) / hidden**0.5
    true_videos = torch.randint(videos, (queries,))

    def search(batches: int = 1) -> None:
        for _ in range(batches):
            index.search(vectors, SETTINGS, span_queries, true_videos)

    first = added_mib(search)
    more = added_mib(lambda: search(MANY_BATCHES))
    runs: dict[str, Callable[[], object]] = {
        "video scores": lambda: index.video_scores(vectors),
        "VCMR + SVMR + VR": search,
    }
    seconds = median_times(runs, repeats, time.process_time)
    return [
        *([f"search, {name} (ms/query)", 1e3 * s / queries] for name, s in seconds.items()),
        ["frames of the corpus (MB)", sum(lengths) * hidden * 4 / 2**20],
        ["added by a search (MB)", first],
        [f"added by {MANY_BATCHES} more (MB)", more],
    ]


@torch.no_grad()
def main() -> None:
    options = make_parser(__doc__, videos=2179, hidden=768, queries=80, repeats=9).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = compare_pairs(options.repeats)
    rows += search_corpus(options.videos, options.hidden, options.queries, options.repeats)
    print(tabulate(rows, floatfmt=".2f"))


if __name__ == "__main__":
    main()
