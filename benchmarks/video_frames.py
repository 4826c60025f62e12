"""Windows of a film: one pass of decoding against a seek for each frame.

python benchmarks/video_frames.py [--video FILM] [--interval 1.5] [--repeats 3]

Without --video, a minute of 720p is made first.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.video_frames import Picture, Sampling, read_windows
from data.prepare.video_stream import Film, open_film

WIDTH, HEIGHT, RATE = 1280, 720, 24


def make_film(path: Path, seconds: int) -> Path:
    """Write a film in which a noisy picture moves."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), np.uint8)
    scene = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * RATE):
            left = 2 * number % WIDTH
            picture = np.ascontiguousarray(scene[:, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def one_pass(path: Path, sampling: Sampling, threads: int = 1) -> list[np.ndarray]:
    """Return the windows as the extraction reads them."""
    return list(read_windows(path, sampling, threads))


def every_frame(path: Path, sampling: Sampling) -> list[np.ndarray]:
    """Return them with the frames decoded that no window and no other frame needs."""
    with mock.patch.object(Film, "_is_needed", return_value=True):
        return one_pass(path, sampling)


def with_seeks(path: Path, sampling: Sampling) -> list[np.ndarray]:
    """Return them by a seek for each frame."""
    with open_film(path, 1) as film:
        *_, last = film.frames(lambda start, end: False)
    windows, shown = [], Picture()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        stream.codec_context.thread_count = 1
        for window in range(sampling.count(last.end, last.end - last.start)):
            frames = []
            for time_of in sampling.times:
                stamp = int((window + time_of) * sampling.interval / stream.time_base)
                container.seek(stamp, stream=stream)
                before = None
                for frame in container.decode(stream):
                    assert frame.pts is not None
                    if frame.pts > stamp and before is not None:
                        break
                    before = frame
                assert before is not None
                frames.append(shown.of(before))
            windows.append(np.stack(frames))
    return windows


def measure(read: Callable[[], list[np.ndarray]], repeats: int) -> tuple[float, float]:
    """Return median wall and CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        read()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def main(argv: list[str] | None = None) -> float:
    """Print the times of all ways and return seeks' CPU time over one pass's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a film with time stamps from 0, as MP4")
    parser.add_argument("--interval", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    sampling = Sampling(options.interval, (0.5,))
    with tempfile.TemporaryDirectory() as folder:
        path = options.video or make_film(Path(folder) / "film.mp4", 60)
        right = one_pass(path, sampling)
        cpus = {}
        for name, read in WAYS.items():
            if not np.array_equal(right, read(path, sampling)):
                raise RuntimeError(f"{name}: other frames")
            wall, cpus[name] = measure(partial(read, path, sampling), options.repeats)
            print(f"{name:22} {wall:6.2f} s, {cpus[name]:6.2f} CPU s for {len(right)} windows")
    ratio = cpus["seeks"] / cpus["one pass"]
    print(f"{'ratio':22} {ratio:6.1f} x")
    return ratio


WAYS: dict[str, Callable[[Path, Sampling], list[np.ndarray]]] = {
    "one pass": one_pass,
    "one pass, 2 threads": partial(one_pass, threads=2),
    "one pass, every frame": every_frame,
    "seeks": with_seeks,
}


if __name__ == "__main__":
    main()
