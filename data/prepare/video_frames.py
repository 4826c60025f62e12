"""Sample frames of raw video by their time stamps.

Feature f of a video covers the window [f·i, (f+1)·i) seconds, i = interval. Time 0 is the start of
the file (of its earliest stream), as in players and subtitle files. The frame at a time is the last
one whose time stamp is not later; before the first frame it is the first, past the end the last. A
video has ⌈duration / i⌉ windows, at least one; it ends with the display of its last frame.

Every frame is scaled to 256 pixels on its shorter side, and the centre 224 × 224 is kept (as in the
evaluation of ImageNet and Kinetics networks), rotated as the file's metadata says. A model with its
own preprocessing gets whole pictures, in the size of the film's first one.
"""

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter

from data.prepare.problems import Problem
from data.prepare.video_files import FETCH_AGAIN, VideoError, message
from data.prepare.video_stream import NoEntryError, TimedFrame, open_film

SHORT_SIDE, CROP = 256, 224
# Containers round time stamps: a rest this short after the last window is not another window.
SLACK_SECONDS, SLACK_WINDOWS = 0.01, 0.01
FRAME_SLACK, FRAME_SLACK_SECONDS = 0.9, 0.05
EDGE_SECONDS = 0.001  # tolerance of the time stamps of a frame
MAX_ASPECT_RATIO = 32  # longer side to shorter one; a panorama has 10


@dataclass(frozen=True, slots=True)
class Sampling:
    """The frames to sample from each window."""

    interval: float  # seconds of a window
    times: tuple[float, ...]  # as fractions of the window, ascending, each ≥ 0 and < 1
    first: int = 0  # window to begin with; those before it are skipped
    enter: bool = False  # the film is intact up to ``first``: decoding may begin near there
    whole: bool = False  # whole pictures instead of their scaled centre

    def count(self, duration: float, frame: float = 0.0) -> int:
        """Return the number of windows of a video of ``duration`` seconds.

        Args:
            frame: seconds that its last frame is shown; a window in which no frame begins, as
                after a sound track that starts milliseconds earlier, does not count.
        """
        slack = min(SLACK_SECONDS, SLACK_WINDOWS * self.interval)
        slack = max(slack, min(FRAME_SLACK * frame, FRAME_SLACK_SECONDS, self.interval / 10))
        return max(1, math.ceil((duration - slack) / self.interval))

    def wants(self, start: float, end: float) -> bool:
        """Return whether a frame on display from ``start`` to ``end`` seconds is needed."""
        times = self.instants(max(self.first, math.floor(start / self.interval)))
        return next(time for time in times if time >= start - EDGE_SECONDS) <= end + EDGE_SECONDS

    def instants(self, window: int) -> Iterator[float]:
        """Yield the times to sample in seconds, from a window on, without end."""
        return ((w + t) * self.interval for w in itertools.count(window) for t in self.times)


def read_windows(
    path: Path,
    sampling: Sampling,
    threads: int = 0,
    on_damage: Callable[[], object] = lambda: None,
) -> Generator[np.ndarray, None, Problem | None]:
    """Yield the sampled frames of each window, (K, 224, 224, 3) uint8 RGB, decoded on demand.

    Whole pictures (``sampling.whole``) are (K, height, width, 3), the same for all of a video. The
    generator's return value is the problem of a video that is used nevertheless, or None.

    Args:
        path: any file that FFmpeg reads.
        sampling: K times of each window.
        threads: of the decoder; 0: its choice.
        on_damage: called before each window once something could not be decoded.

    Raises:
        VideoError: the file is damaged, cut short, or has no video.
    """
    entry = sampling.first * sampling.interval if sampling.enter else 0.0
    try:
        try:
            return (yield from _read(path, sampling, threads, on_damage, entry))
        except NoEntryError:  # before the first window
            return (yield from _read(path, sampling, threads, on_damage, 0.0))
    except VideoError:
        raise
    except Exception as error:  # of FFmpeg's bindings, for this file
        reason = message(error) or type(error).__name__
        raise VideoError(f"it cannot be decoded ({reason}); {FETCH_AGAIN}") from error


def _read(
    path: Path,
    sampling: Sampling,
    threads: int,
    on_damage: Callable[[], object],
    entry: float,
) -> Generator[np.ndarray, None, Problem | None]:
    """See :func:`read_windows`, and :meth:`data.prepare.video_stream.Film.frames`."""
    with open_film(path, threads) as film:
        for window in _windows(film.frames(sampling.wants, entry), sampling):
            if film.is_damaged:
                on_damage()
            yield window
        return film.problem()


def _windows(frames: Iterable[TimedFrame], sampling: Sampling) -> Iterator[np.ndarray]:
    size = len(sampling.times)
    window: list[np.ndarray] = []
    instants = sampling.instants(sampling.first)
    instant = next(instants)
    given, last, shown = sampling.first, None, Picture(sampling.whole)
    for frame in frames:
        if last is None:
            shown.size = frame.image.width, frame.image.height
        while instant < frame.start:
            window.append(shown.of((last or frame).image))
            instant = next(instants)
            if len(window) == size:
                yield np.stack(window)
                given, window = given + 1, []
        last = frame
    if last is None:
        raise VideoError("it has no frames")
    for _ in range(sampling.count(last.end, last.end - last.start) - given):
        window += [shown.of(last.image)] * (size - len(window))
        yield np.stack(window)
        window = []


class Picture:
    """Converts frames to arrays; the last one is cached.

    Args:
        whole: keep all of a picture.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self.size: tuple[int, int] | None = None  # width and height of whole pictures; None: any
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame, np.ndarray] | None = None

    def of(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the picture of a frame, (224, 224, 3) or (height, width, 3) uint8 RGB."""
        if self._last is None or frame is not self._last[0]:
            self._last = frame, self._convert(frame)
        return self._last[1]

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        short, long = sorted((frame.width, frame.height))
        if long > MAX_ASPECT_RATIO * short:
            raise VideoError(f"its pictures are {frame.width} × {frame.height}: too thin to use")
        if self._whole:
            width, height = self.size or (frame.width, frame.height)
        else:
            scale = SHORT_SIDE / short
            width, height = round(frame.width * scale), round(frame.height * scale)
        scaled = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
        if not self._whole:
            top, left = (height - CROP) // 2, (width - CROP) // 2
            scaled = scaled[top : top + CROP, left : left + CROP]
        return np.ascontiguousarray(_upright(scaled, frame))


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotate and mirror a picture by the frame's display matrix.

    It maps a point (x, y) to (a·x + c·y, b·x + d·y); the nearest multiple of 90° is taken.
    """
    data = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # by kind too
    if data is None:
        return picture
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(float)
    if abs(b) + abs(c) > abs(a) + abs(d):  # the axes change places
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
