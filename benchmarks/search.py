"""Searching one's own films: start to the first answer, a query when all is loaded, many frames.

    python benchmarks/search.py --folder /tmp/bench [--videos 2179] [--frames 10000 100000 1000000]

A model of full size with random weights and a vocabulary of 50,265 tokens, an index of --videos
films of 20…80 frames. First whole processes of search_videos.py, from start to end; then, in one
process, queries one at a time and sixteen at once, each another sentence; then the ranking alone
over --frames frames in a file (films of 60 frames). Wall clock and CPU time are medians, memory is
what is added to that of the process (without the file's pages, which the system may drop).

The tokenizer is a drawn one, which cuts words into pieces of four letters at most: real sentences
become twice the tokens that they are to RoBERTa's. Put another into FOLDER/toker to measure these.
"""

import argparse
import itertools
import os
import random
import statistics
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import numpy as np
import torch
from tabulate import tabulate
from tokenizers.pre_tokenizers import ByteLevel

from benchmarks.retrieval import _resident
from config.config import VcmrOptions, options_to_dict
from config.model_config import ModelConfig
from model.vcmr import HeroForVcmr
from search.engine import MomentSearch
from search.hero_scorer import HeroScorer
from search.records import Film, NewFilm, Segment
from search.scan import Corpus
from search.store import IndexArrays, IndexWriter
from utils.files import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL_CONFIG = REPOSITORY / "config" / "hero_finetune.json"
VOCABULARY, SPECIAL = 50265, ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FRAMES_OF_A_FILM, INTERVAL = 60, 1.5
STARTS, ALONE, BATCHES, SCANS = 5, 30, 8, 7
BATCH = 16


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE of RoBERTa's size: pieces of one to four letters."""
    letters = list(string.ascii_lowercase)
    merges = [pair for lead in (["Ġ"], letters) for pair in itertools.product(lead, letters)]
    pairs = ["".join(pair) for pair in merges]
    merges += itertools.product(pairs, letters)
    alphabet = sorted(ByteLevel.alphabet())
    merges += itertools.product(
        [a + b + c for a, b, c in itertools.product(letters, repeat=3)], letters
    )
    merges = merges[: VOCABULARY - len(alphabet) - len(SPECIAL)]
    tokens = [*SPECIAL[:4], *alphabet, *(a + b for a, b in merges), SPECIAL[4]]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: place for place, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_run(folder: Path) -> None:
    """A run that was never trained."""
    options = VcmrOptions(
        task="tvr",
        output_dir=str(folder),
        model_config=str(MODEL_CONFIG),
        train_query_txt_db="gone",
        val_query_txt_db="gone",
        vfeat_db="gone",
        sub_txt_db="gone",
    )
    write_json(folder / "log" / "hps.json", options_to_dict(options))
    config = ModelConfig.from_json(MODEL_CONFIG)
    write_json(folder / "log" / "model_config.json", config.to_dict())
    (folder / "ckpt").mkdir()
    torch.save(HeroForVcmr(config).state_dict(), folder / "ckpt" / "model_step_1.pt")


def make_index(folder: Path, scorer: HeroScorer, videos: int) -> None:
    """Films with frames drawn at random."""
    rng = np.random.default_rng(0)
    with IndexWriter(folder, scorer.maker) as writer:
        for place in range(videos):
            frames = rng.standard_normal((rng.integers(20, 81), scorer.maker.width), np.float32)
            segments = [(0, frames.astype(np.float16))]
            writer.put(NewFilm(f"{place}.mp4", len(frames) * INTERVAL, segments))


def sentences(count: int) -> list[str]:
    """Different ones, of 16 tokens on average, as TVR's are."""
    draw = random.Random(0)
    letters = string.ascii_lowercase
    words = ["".join(draw.choices(letters, k=draw.randint(2, 5))) for _ in range(1000)]
    return [" ".join(draw.choices(words, k=8)) for _ in range(count)]


def medians(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Wall clock and CPU time of a run, in milliseconds."""
    wall, cpu = [], []
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - begun[0])
        cpu.append(time.process_time() - begun[1])
    return 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu)


def time_starts(index: Path) -> list[list]:
    """Whole processes; the first one computes what the unrelated sentences score."""
    times = []
    for sentence in sentences(STARTS + 1):
        begun = time.perf_counter()
        words = [sys.executable, "search_videos.py", "--index", str(index), "--query", sentence]
        subprocess.run(words, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return [
        ["first process on a new index (s)", times[0], None],
        ["process, start to end (s)", statistics.median(times[1:]), None],
    ]


def time_queries(engine: MomentSearch) -> list[list]:
    """Queries in one process."""
    typed = iter(sentences(1 + ALONE + BATCH * BATCHES))
    engine.search(next(typed))
    alone = medians(lambda: engine.search(next(typed)), ALONE)
    batch = medians(lambda: engine.search([next(typed) for _ in range(BATCH)]), BATCHES)
    return [
        ["a query alone (ms)", *alone],
        [f"a query, {BATCH} at once (ms)", *(value / BATCH for value in batch)],
    ]


def frames_file(folder: Path, rows: int, width: int) -> np.ndarray:
    """Frames in a file, mapped."""
    path = folder / f"{rows}.f16"
    rng = np.random.default_rng(0)
    if not path.is_file() or path.stat().st_size != rows * width * 2:
        with path.open("wb") as file:
            for begin in range(0, rows, 10000):
                count = min(10000, rows - begin)
                file.write(rng.standard_normal((count, width), np.float32).astype(np.float16).data)
    return np.memmap(path, np.float16, "r", shape=(rows, width))


class PeakMemory:
    """Megabytes of its own (no file's pages) that a process adds at most; looked at every 2 ms."""

    added = 0.0

    def __enter__(self) -> Self:
        self._before, self._done = _resident("RssAnon"), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(0.002):
            self.added = max(self.added, _resident("RssAnon") - self._before)


def numpy_scores(frames: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The plain way, in the same blocks: cosines of all frames, the best of every film."""
    best = []
    for begin in range(0, len(frames), 2040):
        block = frames[begin : begin + 2040].astype(np.float32)
        cosines = block @ vectors.T / np.linalg.norm(block, axis=1, keepdims=True)
        best.append(cosines.reshape(-1, FRAMES_OF_A_FILM, len(vectors)).max(1))
    return np.concatenate(best)


def time_frames(folder: Path, scorer: HeroScorer, wanted: list[int]) -> list[list]:
    """Ranking alone, by number of frames."""
    rows = []
    for total in wanted:
        films = total // FRAMES_OF_A_FILM
        index = IndexArrays(scorer.maker, [])
        index.frames = frames_file(folder, films * FRAMES_OF_A_FILM, scorer.maker.width)
        seconds = FRAMES_OF_A_FILM * INTERVAL
        index.films = [Film(place, str(place), None, seconds) for place in range(films)]
        index.segments = [
            Segment(place, place * FRAMES_OF_A_FILM, FRAMES_OF_A_FILM, 0) for place in range(films)
        ]
        queries = scorer.encode_queries(sentences(BATCH))
        one = scorer.encode_queries(sentences(1))
        with PeakMemory() as memory:
            corpus = Corpus(index)
            for some in (one, queries):
                scorer.find(corpus, some, 100)
        alone = medians(lambda: scorer.find(corpus, one, 100), SCANS)  # noqa: B023
        batch = medians(lambda: scorer.find(corpus, queries, 100), SCANS)  # noqa: B023
        vectors = one.vectors.numpy()
        plain = medians(lambda: numpy_scores(index.frames, vectors), 3)  # noqa: B023
        rows.append(
            [films * FRAMES_OF_A_FILM, *alone, *(v / BATCH for v in batch), memory.added, plain[0]]
        )
    return rows


def main() -> None:
    """Make what is not there yet, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the run and the index")
    parser.add_argument("--videos", type=int, default=2179)
    parser.add_argument("--frames", type=int, nargs="*", default=[10**4, 10**5, 10**6])
    options = parser.parse_args()
    folder, run = options.folder, options.folder / "run"
    toker, index = folder / "toker", folder / f"index-{options.videos}"
    if not toker.is_dir():
        make_tokenizer(toker)
    if not (run / "ckpt").is_dir():
        make_run(run)
    scorer = HeroScorer.open(run, "1", str(toker))
    if not index.is_dir():
        make_index(index, scorer, options.videos)
    print(f"{os.cpu_count()} processors, {torch.get_num_threads()} threads")
    print(tabulate(time_starts(index), ["", "wall", "CPU"], floatfmt=".2f"))
    engine = MomentSearch.open(index)
    print(f"\n{options.videos} films, {len(engine.index.frames)} frames")
    print(tabulate(time_queries(engine), ["", "wall", "CPU"], floatfmt=".1f"))
    columns = ["frames", "alone, wall", "CPU", f"of {BATCH}, wall", "CPU", "MB added", "NumPy"]
    table = time_frames(folder, scorer, options.frames)
    print("\nranking, ms a query\n" + tabulate(table, columns, floatfmt=".1f"))


if __name__ == "__main__":
    main()
