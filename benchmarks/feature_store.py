"""Frame features in LMDB and in safetensors files, single and half precision: size and speed.

python benchmarks/feature_store.py --folder FOLDER [--videos 5000] [--frames 60] [--reads 500]

Cold reads come from the disk: the files are dropped from the page cache first (Linux). FOLDER keeps
the databases for the next call.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tabulate import tabulate
from torch.utils.data import DataLoader
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import make_parser
from data.stores.feature_codecs import FeatureFormat
from data.stores.lmdb_environment import LmdbReader
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from data.video import VideoOnlySource, collate_videos

WIDTH = 4352  # ResNet and SlowFast
BATCH = 32
FORMATS: tuple[FeatureFormat, ...] = ("lmdb", "safetensors")
VARIANTS = [(format_, precision) for format_ in FORMATS for precision in (np.float32, np.float16)]


def make(options: argparse.Namespace) -> dict[str, FeatureDb]:
    """Write the same videos in every variant, unless they exist already."""
    databases = {}
    for format_, precision in VARIANTS:
        name = f"{format_} {np.dtype(precision).name}"
        folder = options.folder / name.replace(" ", "_")
        if not (folder / "id2nframe.json").exists():
            with FeatureDbWriter(folder, format_=format_, force=True) as writer:
                for vid, features in tqdm(videos(options), name, options.videos, disable=None):
                    writer.put(vid, features.astype(precision))
        databases[name] = FeatureDb(folder, format_=format_)
    return databases


def videos(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield non-negative noise, as pooled ReLU features are; exact in half precision."""
    rng = np.random.default_rng(0)
    for number in range(options.videos):
        noise = rng.standard_normal((options.frames, WIDTH), dtype=np.float32)
        yield f"video{number:06d}", np.maximum(noise, 0).astype(np.float16).astype(np.float32)


def files(db: FeatureDb) -> list[Path]:
    """Return the files of a database."""
    return [path for path in db.path.iterdir() if path.suffix in (".mdb", ".safetensors")]


def drop_from_cache(db: FeatureDb) -> None:
    """Drop a database's files from the page cache."""
    db.close()
    for path in files(db):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read(db: FeatureDb, vids: list[str]) -> float:
    """Return milliseconds per video, one after the other."""
    start = time.perf_counter()
    for vid in vids:
        if len(db[vid]) != db.id2nframe[vid]:
            raise RuntimeError(f"{vid} has lost frames")
    return (time.perf_counter() - start) / len(vids) * 1e3


def read_ahead(db: FeatureDb, options: argparse.Namespace) -> list[tuple[str, str, float]]:
    """Return cold reads of an LMDB in milliseconds per video, by order and read-ahead."""
    rows = []
    for order in ("random", "file"):
        for readahead in (False, True):
            times = []
            for repeat in range(options.repeats):
                first = repeat * options.reads % max(options.videos - options.reads, 1)
                numbers = np.arange(first, min(first + options.reads, options.videos))
                if order == "random":
                    numbers = np.random.default_rng(repeat).permutation(options.videos)
                drop_from_cache(db)
                reader = LmdbReader(db.path, readahead)
                start = time.perf_counter()
                for number in numbers[: options.reads]:
                    with reader.value(f"video{number:06d}") as value:
                        bytes(value or b"")
                times.append((time.perf_counter() - start) / options.reads * 1e3)
                reader.close()
            rows.append((order, "on" if readahead else "off", statistics.median(times)))
    return rows


def load(db: FeatureDb, vids: list[str], workers: int) -> float:
    """Return the videos per second that a training loop would get, in batches."""
    source = VideoOnlySource(db, 0)
    loader: DataLoader[str] = DataLoader(
        [*vids],  # type: ignore[arg-type]  # PyTorch needs no Dataset, only its methods
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=lambda batch: collate_videos([source(vid) for vid in batch]),
    )
    start = time.perf_counter()
    total = sum(len(batch.frame_lens) for batch in loader)
    return total / (time.perf_counter() - start)


def measure(db: FeatureDb, options: argparse.Namespace) -> list[float]:
    """Return gigabytes, cold and warm reads (ms), cold and warm loading (videos/s)."""
    cold, warm, cold_load, warm_load = [], [], [], []
    for repeat in range(options.repeats):
        order = np.random.default_rng(repeat).permutation(options.videos)[: options.reads]
        vids = [f"video{number:06d}" for number in order]
        drop_from_cache(db)
        cold.append(read(db, vids))
        warm.append(read(db, vids))
        drop_from_cache(db)
        cold_load.append(load(db, vids, options.workers))
        warm_load.append(load(db, vids, options.workers))
    gigabytes = sum(path.stat().st_size for path in files(db)) / 1e9
    return [gigabytes, *map(statistics.median, (cold, warm, cold_load, warm_load))]


def main() -> None:
    parser = make_parser(__doc__, videos=5000, frames=60, reads=500, repeats=3, workers=1)
    parser.add_argument("--folder", type=Path, required=True, help="for the databases")
    options = parser.parse_args()
    databases = make(options)
    numbers = {name: measure(db, options) for name, db in databases.items()}
    first, *others = (db[f"video{0:06d}"] for db in databases.values())
    if not all(np.array_equal(first, other) for other in others):
        raise RuntimeError("the variants disagree")
    headers = ("", "GB", "cold (ms)", "warm (ms)", "cold (videos/s)", "warm (videos/s)")
    rows = [(name, *values) for name, values in numbers.items()]
    print(tabulate(rows, headers=headers, floatfmt=".2f"))
    ahead = read_ahead(databases["lmdb float32"], options)
    print(tabulate(ahead, headers=("order", "read-ahead", "cold (ms)"), floatfmt=".2f"))


if __name__ == "__main__":
    main()
