"""Frames of raw video, chosen by their time stamps.

Feature f of a video covers the window [f·i, (f+1)·i) seconds, i = interval. Time 0 is where the
file starts (its earliest stream), as in players, and so as in subtitle files. At any time the frame
on display counts: the last one whose time stamp is not later. Before the first frame that is the
first one, past the end the last one. A video has ⌈duration / i⌉ windows, at least one; it ends with
the display of its last frame.

Every frame is scaled to 256 pixels on its shorter side, and the centre 224 × 224 is kept (what
ImageNet and Kinetics networks are evaluated with), turned upright where the file says how. A model
with a preprocessing of its own gets whole pictures, in the size of the film's first one.
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
from data.prepare.video_files import FETCH_AGAIN, VideoError, said
from data.prepare.video_stream import NoEntryError, TimedFrame, open_film

SHORT_SIDE, CROP = 256, 224
# Containers round time stamps: so much of a window past the last whole one is not another window.
SLACK_SECONDS, SLACK_WINDOWS = 0.01, 0.01
FRAME_SLACK, FRAME_SLACK_SECONDS = 0.9, 0.05
EDGE_SECONDS = 0.001  # a frame is taken for on display before and after its time stamps say
# Of a picture's longer side to its shorter one: a panorama has 10, more takes memory for nothing.
MOST_STRETCHED = 32


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of each window are wanted."""

    interval: float  # seconds of a window
    times: tuple[float, ...]  # as fractions of the window, ascending, each ≥ 0 and < 1
    first: int = 0  # window to begin with; those before it are passed over
    # the film is known to be sound up to there: it need not be decoded from its beginning
    enter: bool = False
    whole: bool = False  # pictures as the file has them, instead of their scaled centre

    def count(self, duration: float, frame: float = 0.0) -> int:
        """Windows of a video that lasts ``duration`` seconds.

        Args:
            frame: seconds that its last frame is shown; a window in which no frame begins, as a
                sound track that starts some milliseconds earlier makes one, does not count.
        """
        slack = min(SLACK_SECONDS, SLACK_WINDOWS * self.interval)
        slack = max(slack, min(FRAME_SLACK * frame, FRAME_SLACK_SECONDS, self.interval / 10))
        return max(1, math.ceil((duration - slack) / self.interval))

    def wants(self, start: float, end: float) -> bool:
        """Return whether a frame is asked for that is on display from ``start`` to ``end``
        seconds."""
        window = max(self.first, math.floor(start / self.interval))
        later = ((w + t) * self.interval for w in itertools.count(window) for t in self.times)
        instant = next(time for time in later if time >= start - EDGE_SECONDS)
        return instant <= end + EDGE_SECONDS

    def instants(self) -> Iterator[float]:
        """Wanted times in seconds, without end."""
        for window in itertools.count(self.first):
            for time in self.times:
                yield (window + time) * self.interval


def read_windows(
    path: Path,
    sampling: Sampling,
    threads: int = 0,
    tell_damage: Callable[[], object] = lambda: None,
) -> Generator[np.ndarray, None, Problem | None]:
    """The wanted frames of each window, (K, 224, 224, 3) uint8 RGB, decoded as one goes along.

    Whole pictures (``sampling.whole``) are (K, height, width, 3), the same for all of a video.

    The generator returns what is wrong with a video that is used all the same, None if all is well.

    Args:
        path: any file that FFmpeg reads.
        sampling: K times of each window.
        threads: of the decoder; 0: as it likes.
        tell_damage: called before each window by which something could not be decoded.

    Raises:
        VideoError: the file is damaged, cut short, or has no video.
    """
    entry = sampling.first * sampling.interval if sampling.enter else 0.0
    try:
        try:
            return (yield from _read(path, sampling, threads, tell_damage, entry))
        except NoEntryError:  # before the first window
            return (yield from _read(path, sampling, threads, tell_damage, 0.0))
    except VideoError:
        raise
    except Exception as error:  # whatever FFmpeg's bindings raise, it is of this file
        reason = said(error) or type(error).__name__
        raise VideoError(f"it cannot be decoded ({reason}); {FETCH_AGAIN}") from error


def _read(
    path: Path,
    sampling: Sampling,
    threads: int,
    tell_damage: Callable[[], object],
    entry: float,
) -> Generator[np.ndarray, None, Problem | None]:
    """See :func:`read_windows`, and :meth:`data.prepare.video_stream.Film.frames`."""
    with open_film(path, threads) as film:
        for window in _windows(film.frames(sampling.wants, entry), sampling):
            if film.is_damaged:
                tell_damage()
            yield window
        return film.problem()


def _windows(frames: Iterable[TimedFrame], sampling: Sampling) -> Iterator[np.ndarray]:
    size = len(sampling.times)
    window: list[np.ndarray] = []
    instants = sampling.instants()
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
    """Converts frames; one that is asked for again is not converted again.

    Args:
        whole: keep all of a picture.

    Attributes:
        size: width and height of whole pictures; None: each has its own.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self.size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()
        self._last: tuple[av.VideoFrame, np.ndarray] | None = None

    def of(self, frame: av.VideoFrame) -> np.ndarray:
        """(224, 224, 3) uint8 RGB, or of the size of whole pictures."""
        if self._last is None or frame is not self._last[0]:
            self._last = frame, self._convert(frame)
        return self._last[1]

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        short, long = sorted((frame.width, frame.height))
        if long > MOST_STRETCHED * short:
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
    """Return a picture turned and mirrored as the frame's display matrix says.

    The matrix maps a point (x, y) to (a·x + c·y, b·x + d·y); of turns between multiples of 90° the
    nearest is taken.
    """
    data = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # by kind too
    if data is None:
        return picture
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].astype(float)
    if abs(b) + abs(c) > abs(a) + abs(d):  # the axes change places
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
