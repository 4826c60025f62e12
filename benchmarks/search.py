"""Searching one's own films: start to the first answer, a query when all is loaded, many frames.

    python benchmarks/search.py --folder /tmp/bench [--videos 2179] [--frames 10000 100000 1000000]

A full-size model with random weights and a vocabulary of 50,265 tokens, an index of --videos films
of 20…80 frames. First complete processes of search_videos.py; then, in one process, queries one at
a time and sixteen at once, every sentence different; then the ranking alone over --frames frames in
a file (films of 60 frames). Wall-clock and CPU times are medians; memory is what a search adds to
the process (without the file's pages, which the system may drop).

The tokenizer is synthetic and splits words into pieces of at most four letters: real sentences get
twice as many tokens as from RoBERTa's. Put another one into FOLDER/toker to measure these.
"""

import itertools
import os
import random
import string
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import numpy as np
import torch
from tabulate import tabulate
from tokenizers.pre_tokenizers import ByteLevel

from benchmarks.common import ROOT, VOCABULARY, make_parser, model_config, status_mib, wall_and_cpu
from config.config import VcmrOptions, options_to_dict
from model.vcmr import HeroForVcmr
from search.engine import MomentSearch
from search.hero_scorer import HeroScorer
from search.scan import Corpus
from search.store import Film, IndexArrays, IndexWriter, Maker, NewFilm, Segment
from utils.files import write_json

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FRAMES_OF_A_FILM, INTERVAL = 60, 1.5
STARTS, ALONE, BATCHES, SCANS = 5, 30, 8, 7
BATCH = 16


def make_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE of RoBERTa's size: pieces of one to four letters."""
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
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_run(folder: Path) -> None:
    """Write a run with random weights."""
    options = VcmrOptions(
        task="tvr",
        output_dir=str(folder),
        model_config=str(ROOT / "config" / "hero_finetune.json"),
        train_query_txt_db="-",
        val_query_txt_db="-",
        vfeat_db="-",
        sub_txt_db="-",
    )
    write_json(folder / "log" / "hps.json", options_to_dict(options))
    config = model_config()
    write_json(folder / "log" / "model_config.json", config.to_dict())
    (folder / "ckpt").mkdir()
    torch.save(HeroForVcmr(config).state_dict(), folder / "ckpt" / "model_step_1.pt")


def make_index(folder: Path, scorer: HeroScorer, videos: int) -> None:
    """Write an index of films with random frames."""
    rng = np.random.default_rng(0)
    with IndexWriter(folder, scorer.maker) as writer:
        for number in range(videos):
            frames = rng.standard_normal((rng.integers(20, 81), scorer.maker.width), np.float32)
            segments = [(0, frames.astype(np.float16))]
            writer.put(NewFilm(f"{number}.mp4", len(frames) * INTERVAL, segments))


def sentences(count: int) -> list[str]:
    """Return different sentences of 16 tokens on average, as TVR's are."""
    draw = random.Random(0)
    letters = string.ascii_lowercase
    words = ["".join(draw.choices(letters, k=draw.randint(2, 5))) for _ in range(1000)]
    return [" ".join(draw.choices(words, k=8)) for _ in range(count)]


def time_starts(index: Path) -> list[list]:
    """Return rows about complete processes; the first also scores the unrelated sentences."""
    typed = iter(sentences(STARTS + 1))

    def start() -> None:
        words = [sys.executable, "search_videos.py", "--index", str(index), "--query", next(typed)]
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    return [
        ["first process on a new index (s)", *wall_and_cpu(start)],
        ["process, start to end (s)", *wall_and_cpu(start, STARTS)],
    ]


def time_queries(engine: MomentSearch) -> list[list]:
    """Return rows about queries in one process."""
    typed = iter(sentences(1 + ALONE + BATCH * BATCHES))
    engine.search(next(typed))
    alone = wall_and_cpu(lambda: engine.search(next(typed)), ALONE)
    batch = wall_and_cpu(lambda: engine.search([next(typed) for _ in range(BATCH)]), BATCHES)
    return [
        ["a query alone (ms)", *(1e3 * seconds for seconds in alone)],
        [f"a query, {BATCH} at once (ms)", *(1e3 * seconds / BATCH for seconds in batch)],
    ]


def frames_file(folder: Path, rows: int, width: int) -> np.ndarray:
    """Return memory-mapped frames of a file, which is written if it does not exist."""
    path = folder / f"{rows}.f16"
    rng = np.random.default_rng(0)
    if not path.is_file() or path.stat().st_size != rows * width * 2:
        with path.open("wb") as file:
            for begin in range(0, rows, 10000):
                count = min(10000, rows - begin)
                file.write(rng.standard_normal((count, width), np.float32).astype(np.float16).data)
    return np.memmap(path, np.float16, "r", shape=(rows, width))


class PeakMemory:
    """Peak of the MiB that this process adds (without files' pages), sampled every 2 ms."""

    added = 0.0

    def __enter__(self) -> Self:
        self._before, self._done = status_mib("RssAnon"), threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            self.added = max(self.added, status_mib("RssAnon") - self._before)


def numpy_scores(frames: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the best cosine of every film by plain NumPy, in the same blocks."""
    best = []
    for begin in range(0, len(frames), 2040):
        block = frames[begin : begin + 2040].astype(np.float32)
        cosines = block @ vectors.T / np.linalg.norm(block, axis=1, keepdims=True)
        best.append(cosines.reshape(-1, FRAMES_OF_A_FILM, len(vectors)).max(1))
    return np.concatenate(best)


def random_corpus(folder: Path, maker: Maker, films: int) -> IndexArrays:
    """Return an index of films of equal length over :func:`frames_file`."""
    index = IndexArrays(maker, [])
    index.frames = frames_file(folder, films * FRAMES_OF_A_FILM, maker.width)
    seconds = FRAMES_OF_A_FILM * INTERVAL
    index.films = [Film(number, str(number), None, seconds) for number in range(films)]
    index.segments = [
        Segment(number, number * FRAMES_OF_A_FILM, FRAMES_OF_A_FILM, 0) for number in range(films)
    ]
    return index


def time_frames(folder: Path, scorer: HeroScorer, total: int) -> list[float]:
    """Return a row about ranking alone, over ``total`` frames."""
    index = random_corpus(folder, scorer.maker, total // FRAMES_OF_A_FILM)
    one, many = (scorer.encode_queries(sentences(count)) for count in (1, BATCH))
    with PeakMemory() as memory:
        corpus = Corpus(index)
        for queries in (one, many):
            scorer.find(corpus, queries, 100)
    vectors = one.vectors.numpy()
    times = [
        *wall_and_cpu(lambda: scorer.find(corpus, one, 100), SCANS),
        *(s / BATCH for s in wall_and_cpu(lambda: scorer.find(corpus, many, 100), SCANS)),
        wall_and_cpu(lambda: numpy_scores(index.frames, vectors), 3)[0],
    ]
    return [len(index.frames), *(1e3 * seconds for seconds in times), memory.added]


def main() -> None:
    parser = make_parser(__doc__, videos=2179)
    parser.add_argument("--folder", type=Path, required=True, help="for the run and the index")
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
    columns = ["frames", "alone, wall", "CPU", f"of {BATCH}, wall", "CPU", "NumPy", "MiB added"]
    table = [time_frames(folder, scorer, total) for total in options.frames]
    print("\nranking, ms a query\n" + tabulate(table, columns, floatfmt=".1f"))


if __name__ == "__main__":
    main()
