"""A loader's worker: CPU time of reading videos, packing a batch, and sending it.

    python benchmarks/loader.py [--videos 200] [--batch 32] [--repeats 15] [--folder FOLDER]

TVR-like videos (42…59 frames of 4352 values, some 25 subtitles) from stores in the page cache. CPU
time, to which other load on the machine matters little. The rate of 16 workers is 16 times that of
one; the main process's own time bounds it.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader

from benchmarks.common import children_cpu, make_parser, tvr_like_videos
from data.stores.feature_codecs import FeatureFormat
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter
from data.video import SubtitleSource, VideoItem, collate_videos

WORKERS = 16
STORES: list[tuple[FeatureFormat, type]] = [
    ("lmdb", np.float32),
    ("lmdb", np.float16),
    ("safetensors", np.float16),
]


def write_subtitles(folder: Path, videos: list[VideoItem]) -> TextDb:
    """Write a subtitle database of the videos and open it."""
    path = folder / "subtitles.db"
    with TextDbWriter(path, force=True) as writer:
        for item in videos:
            frames = [[number, subtitle.frames] for number, subtitle in enumerate(item.subtitles)]
            texts = [subtitle.tokens for subtitle in item.subtitles]
            writer.put(item.vid, {"input_ids": texts, "unique_sub2frames": frames})
        writer.write_side("meta.json", {"CLS": 0, "SEP": 2, "toker": "some/toker"})
    return TextDb(path)


def write_features(
    folder: Path, videos: list[VideoItem], format_: FeatureFormat, dtype: type
) -> FeatureDb:
    """Write a feature database of the videos, and read its files once."""
    folder = folder / f"{format_}_{np.dtype(dtype).name}"
    with FeatureDbWriter(folder, format_=format_, force=True) as writer:
        for item in videos:
            writer.put(item.vid, item.features.astype(dtype))
    db = FeatureDb(folder, format_=format_)
    for item in videos:
        db[item.vid]
    return db


def cpu_ms(run: Callable[[int], object], repeats: int) -> float:
    """Return the least CPU time of a call (ms): other load on the machine only adds to it."""
    times = []
    for number in range(repeats + 1):
        begun = time.process_time()
        run(number)
        times.append(time.process_time() - begun)
    return 1e3 * min(times[1:])


def worker_ms(source: SubtitleSource, batches: list[list[str]], passes: int) -> tuple[float, float]:
    """Return CPU time of a batch (ms) in a worker, all included, and in the main process.

    A long pass less a short one, so that starting and ending a worker is left out.
    """
    every = [vid for vids in batches for vid in vids]
    used = [(children_cpu(), time.process_time())]
    for count in (1, passes + 1):
        loader: DataLoader[str] = DataLoader(
            every * count,  # type: ignore[arg-type]  # PyTorch needs no Dataset, only its methods
            batch_size=len(batches[0]),
            collate_fn=lambda vids: collate_videos([source(vid) for vid in vids]),
            num_workers=1,
        )
        for batch in loader:
            batch.features.sum()  # reads them, as a copy to the device does
        del loader
        used.append((children_cpu(), time.process_time()))
    start, short, long = used
    more = passes * len(batches)
    workers, own = (
        1e3 * (c - 2 * b + a) / more for a, b, c in zip(start, short, long, strict=True)
    )
    return workers, own


def measure(source: SubtitleSource, batches: list[list[str]], repeats: int) -> list[float]:
    """Return ms of reading a video and of packing a batch, megabytes of features, ms a batch of
    worker and main process, and videos a second of 16 workers."""
    items = [[source(vid) for vid in vids] for vids in batches]

    def read(number: int) -> None:
        for vid in batches[number % len(batches)]:
            source(vid)

    count = len(batches[0])
    reading = cpu_ms(read, repeats) / count
    packing = cpu_ms(lambda number: collate_videos(items[number % len(items)]), repeats)
    megabytes = collate_videos(items[0]).features.nbytes / 1e6
    worker, main_process = worker_ms(source, batches, repeats // len(batches) + 1)
    return [reading, packing, megabytes, worker, main_process, WORKERS * 1e3 * count / worker]


def main() -> None:
    parser = make_parser(__doc__, videos=200, batch=32, repeats=15)
    parser.add_argument("--folder", type=Path, help="for the stores (a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    videos = tvr_like_videos(options.videos)
    vids = [item.vid for item in videos]
    batches = [vids[i : i + options.batch] for i in range(0, len(vids), options.batch)]
    full = [batch for batch in batches if len(batch) == options.batch]
    numbers = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        texts = write_subtitles(Path(folder), videos)
        for format_, dtype in STORES:
            db = write_features(Path(folder), videos, format_, dtype)
            name = f"{format_}, {np.dtype(dtype).name}"
            numbers[name] = measure(SubtitleSource(texts, db), full, options.repeats)
            db.close()
    headers = ["store", "read (ms)", "pack (ms)", "MB", "worker (ms)", "main (ms)", "videos/s"]
    print(tabulate([(name, *row) for name, row in numbers.items()], headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
