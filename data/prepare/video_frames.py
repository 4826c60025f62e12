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
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

SHORT_SIDE, CROP = 256, 224
# Containers round time stamps: so much of a window past the last whole one is not another window.
SLACK_SECONDS, SLACK_WINDOWS = 0.01, 0.01
LONGEST_GAP = 3600.0  # seconds without a frame; more is a broken time stamp
DEFAULT_RATE = Fraction(25)  # where nothing tells how long a frame lasts


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a video.

    Attributes:
        reason: one line for the user: what is wrong, and how to mend it.
        seconds: how much of the video could be decoded.
        used: it is used as far as a player shows it (a warning); False: it failed.
    """

    reason: str
    seconds: float
    used: bool


class VideoError(ValueError):
    """Why a video cannot be used; it is listed, and the others go on.

    Attributes:
        seconds: how much of the video could be decoded.
    """

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of each window are wanted.

    Attributes:
        interval: seconds of a window.
        times: as fractions of the window, ascending, each ≥ 0 and < 1.
        whole: pictures as the file has them, instead of their scaled centre.
    """

    interval: float
    times: tuple[float, ...]
    whole: bool = False

    def count(self, duration: float) -> int:
        """Windows of a video that lasts ``duration`` seconds."""
        slack = min(SLACK_SECONDS, SLACK_WINDOWS * self.interval)
        return max(1, math.ceil((duration - slack) / self.interval))

    def instants(self) -> Iterator[float]:
        """Wanted times in seconds, without end."""
        for window in itertools.count():
            for time in self.times:
                yield (window + time) * self.interval


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame, on display from ``start`` to ``end`` (seconds from the file's start)."""

    image: av.VideoFrame
    start: float
    end: float


def read_windows(
    path: Path, sampling: Sampling, threads: int = 0
) -> Generator[np.ndarray, None, Problem | None]:
    """The wanted frames of each window, (K, 224, 224, 3) uint8 RGB, decoded as one goes along.

    Whole pictures (``sampling.whole``) are (K, height, width, 3), the same for all of a video.

    The generator returns what is wrong with a video that is used all the same, None if all is well.

    Args:
        path: any file that FFmpeg reads.
        sampling: K times of each window.
        threads: of the decoder; 0: as it likes.

    Raises:
        VideoError: the file is damaged, cut short, or has no video.
    """
    try:
        # Time stamps do not depend on what tags say in which encoding.
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError("it has no video stream")
            stream.codec_context.thread_count = threads
            stream.thread_type = "AUTO"
            yield from _windows(_timed_frames(container, stream), sampling)
            return None
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"it cannot be decoded ({reason})") from error


def _windows(frames: Iterable[TimedFrame], sampling: Sampling) -> Iterator[np.ndarray]:
    size = len(sampling.times)
    window: list[np.ndarray] = []
    instants = sampling.instants()
    instant = next(instants)
    given, last, shown = 0, None, Picture(sampling.whole)
    for frame in frames:
        while instant < frame.start:
            window.append(shown.of((last or frame).image))
            instant = next(instants)
            if len(window) == size:
                yield np.stack(window)
                given, window = given + 1, []
        last = frame
    if last is None:
        raise VideoError("it has no frames")
    for _ in range(sampling.count(last.end) - given):
        window += [shown.of(last.image)] * (size - len(window))
        yield np.stack(window)
        window = []


class Picture:
    """Converts frames; one that is asked for again is not converted again.

    Args:
        whole: keep all of a picture, in the first one's size.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()
        self._frame: av.VideoFrame | None = None
        self._pixels: np.ndarray | None = None

    def of(self, frame: av.VideoFrame) -> np.ndarray:
        """(224, 224, 3) uint8 RGB, or as large as the first whole picture."""
        if frame is not self._frame:
            self._frame, self._pixels = frame, self._convert(frame)
        return self._pixels

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        if self._whole:
            self._size = self._size or (frame.width, frame.height)
            width, height = self._size
        else:
            scale = SHORT_SIDE / min(frame.width, frame.height)
            width, height = round(frame.width * scale), round(frame.height * scale)
        scaled = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1
        ).to_ndarray()
        if not self._whole:
            top, left = (height - CROP) // 2, (width - CROP) // 2
            scaled = scaled[top : top + CROP, left : left + CROP]
        return np.ascontiguousarray(np.rot90(scaled, round(frame.rotation / 90)))


def _timed_frames(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[TimedFrame]:
    """Frames in the order of display, with times from the file's start.

    A frame without a time stamp follows the one before it; one that is not later than the one
    before it is left out.
    """
    usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)
    origin = None if container.start_time is None else Fraction(container.start_time, av.time_base)
    end = before = Fraction(0)
    started = False
    with closing(container.decode(stream)) as decoded:
        for frame in decoded:
            time = end if frame.pts is None else frame.pts * frame.time_base - (origin or 0)
            if origin is None and frame.pts is not None:  # the first frame is the file's start
                origin, time = time, Fraction(0)
            time = max(time, Fraction(0))
            if started and time <= before:
                continue
            if time - before > LONGEST_GAP:
                jump = f"{float(before):g} to {float(time):g} seconds"
                raise VideoError(f"its time stamps jump from {jump}")
            lasts = frame.duration * frame.time_base if frame.duration else usual
            started, before, end = True, time, time + lasts
            yield TimedFrame(frame, float(time), float(end))
    _check_whole(stream, end)


def _check_whole(stream: av.VideoStream, end: Fraction) -> None:
    """Refuse a file whose frames end long before its header says."""
    promised = (stream.duration or 0) * (stream.time_base or 0)
    if promised - end > max(1, promised / 20):
        raise VideoError(
            f"it is cut short: frames end at {float(end):.1f} of {float(promised):.1f} seconds"
        )
