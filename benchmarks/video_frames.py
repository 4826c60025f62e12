"""Windows of a film: one pass of decoding against a seek for each frame.

python benchmarks/video_frames.py [--video FILM] [--interval 1.5] [--repeats 3]

Without --video, a minute of 720p is made first.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import make_film, make_parser, wall_and_cpu
from data.prepare.video_frames import Picture, Sampling, read_windows
from data.prepare.video_stream import Film, open_film


def one_pass(path: Path, sampling: Sampling, threads: int = 1) -> list[np.ndarray]:
    """Return the windows as the extraction reads them."""
    return list(read_windows(path, sampling, threads))


def every_frame(path: Path, sampling: Sampling) -> list[np.ndarray]:
    """Return them, decoding also frames that no window and no other frame needs."""
    with mock.patch.object(Film, "_is_needed", return_value=True):
        return one_pass(path, sampling)


def with_seeks(path: Path, sampling: Sampling) -> list[np.ndarray]:
    """Return them, with a seek for each frame."""
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


VERSIONS: dict[str, Callable[[Path, Sampling], list[np.ndarray]]] = {
    "one pass": one_pass,
    "one pass, 2 threads": partial(one_pass, threads=2),
    "one pass, every frame": every_frame,
    "seeks": with_seeks,
}


def main() -> None:
    parser = make_parser(__doc__, interval=1.5, repeats=3)
    parser.add_argument("--video", type=Path, help="a film with time stamps from 0, as MP4")
    options = parser.parse_args()
    sampling = Sampling(options.interval, (0.5,))
    with tempfile.TemporaryDirectory() as folder:
        path = options.video or make_film(Path(folder) / "film.mp4", 60, (1280, 720), rate=24)
        expected = one_pass(path, sampling)
        for name, read in VERSIONS.items():
            if not np.array_equal(expected, read(path, sampling)):
                raise RuntimeError(f"{name}: other frames")
            wall, cpu = wall_and_cpu(partial(read, path, sampling), options.repeats)
            print(f"{name:22} {wall:6.2f} s, {cpu:6.2f} CPU s for {len(expected)} windows")


if __name__ == "__main__":
    main()
