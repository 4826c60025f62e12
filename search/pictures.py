"""Pieces of films for people to look at: a thumbnail, a moment as a video file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

THUMBNAIL_WIDTH = 320  # pixels
SOUND_RATE, SOUND_LAYOUT, SOUND_FORMAT = 48000, "stereo", "fltp"
SOUND_FRAME = 1024  # samples that AAC encodes at once
HIGHEST_RATE = Fraction(60)  # frames a second of a clip
USUAL_RATE = Fraction(25)  # where a film tells no rate

FrameT = TypeVar("FrameT", av.VideoFrame, av.AudioFrame)


def thumbnail(film: Path, seconds: float, width: int = THUMBNAIL_WIDTH) -> bytes:
    """Return the frame on display at a time as a JPEG file.

    Args:
        film: any file that FFmpeg reads.
        seconds: from the film's start.
        width: pixels; a film that is narrower keeps its own.

    Raises:
        UserError: the film cannot be read.
    """
    picture = _upright(next(_displayed(film, [seconds])))
    width = min(_even(width), _even(picture.width))
    height = _even(picture.height * width / picture.width)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = 1 / USUAL_RATE
    small = picture.reformat(width, height, "yuvj420p")
    small.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(small), *codec.encode()])


def write_clip(film: Path, start: float, end: float, target: Path) -> None:
    """Write what a film shows and says between two times as an MP4 file.

    It is encoded again, so that it begins and ends where it should (to half a frame), not at the
    key frames around.

    Raises:
        UserError: the film cannot be read.
    """
    with _film(film) as container:
        stream = container.streams.best("video")
        average = stream.average_rate if stream else None
    rate = min(Fraction(average or USUAL_RATE), HIGHEST_RATE)
    count = max(1, round((end - start) * rate))
    frames = _displayed(film, [start + float(number / rate) for number in range(count)])
    sound = _sound(film, start, end)
    with atomic_write(target) as temporary, av.open(str(temporary), "w", format="mp4") as clip:
        shown = clip.add_stream("libx264", rate=rate, options={"crf": "20"})
        heard = None
        if sound is not None:
            heard = clip.add_stream("aac", rate=SOUND_RATE, layout=SOUND_LAYOUT)
        for number, picture in enumerate(map(_upright, frames)):
            if number == 0:
                shown.width, shown.height = _even(picture.width), _even(picture.height)
                shown.pix_fmt = "yuv420p"
            picture = picture.reformat(shown.width, shown.height, "yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            clip.mux(shown.encode(picture))
        clip.mux(shown.encode())
        if heard is not None and sound is not None:
            for piece in _sound_frames(sound):
                clip.mux(heard.encode(piece))
            clip.mux(heard.encode())


@contextmanager
def _film(path: Path) -> Iterator[av.container.InputContainer]:
    """A film, opened; what is wrong with it is the user's."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if container.streams.best("video") is None:
                raise UserError(f"{path} has no video stream")
            yield container
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); is it where it was?") from error


def _displayed(film: Path, times: list[float]) -> Iterator[av.VideoFrame]:
    """The frame on display at each time (ascending): the last one that is not later; before the
    first frame the first one, past the end the last one."""
    wanted = iter(times)
    time: float | None = next(wanted)
    shown = None
    for frame, begins in _frames(film, av.VideoFrame, times[0]):
        while time is not None and begins > time:
            yield shown or frame
            time = next(wanted, None)
        if time is None:
            return
        shown = frame
    if shown is None:
        raise UserError(f"{film} has no frames that can be decoded")
    yield shown
    for _ in wanted:
        yield shown


def _frames(film: Path, kind: type[FrameT], start: float) -> Iterator[tuple[FrameT, float]]:
    """Decoded frames and their times, from one on that is not later than ``start``, if any is."""
    entered = False
    if start > 0:
        for frame, time in _decoded(film, kind, start):
            if not entered and time > start:
                break
            entered = True
            yield frame, time
    if not entered:  # it cannot be entered in the middle
        yield from _decoded(film, kind, 0)


def _decoded(film: Path, kind: type[FrameT], start: float) -> Iterator[tuple[FrameT, float]]:
    """Frames and times from the key frame before ``start`` on; none where it cannot be found."""
    with _film(film) as container:
        stream = container.streams.best("video" if kind is av.VideoFrame else "audio")
        if stream is None or stream.time_base is None:
            return
        if isinstance(stream, av.VideoStream):
            stream.thread_type = "AUTO"
        origin = (container.start_time or 0) / av.time_base
        if start > 0:
            try:
                container.seek(int((start + origin) / stream.time_base), stream=stream)
            except av.FFmpegError:
                return
        for frame in container.decode(stream):
            if isinstance(frame, kind) and frame.pts is not None and frame.time_base is not None:
                yield frame, float(frame.pts * frame.time_base) - origin


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    if not frame.rotation:
        return frame
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(turned, np.uint8), format="rgb24")


def _even(pixels: float) -> int:
    return max(2, 2 * round(pixels / 2))


def _sound(film: Path, start: float, end: float) -> np.ndarray | None:
    """Samples (2, n) float32 between two times, silence where there are none; None: no sound."""
    with _film(film) as container:
        if container.streams.best("audio") is None:
            return None
    samples = np.zeros((2, round((end - start) * SOUND_RATE)), np.float32)
    resampler = av.AudioResampler(SOUND_FORMAT, SOUND_LAYOUT, SOUND_RATE)
    at = None  # sample, from the clip's start, where the resampler's next output lies
    for frame, begins in _frames(film, av.AudioFrame, start):
        if begins >= end:
            break
        at = round((begins - start) * SOUND_RATE) if at is None else at
        for piece in resampler.resample(frame):
            values = piece.to_ndarray()
            low, high = max(at, 0), min(at + values.shape[1], samples.shape[1])
            if low < high:
                samples[:, low:high] = values[:, low - at : high - at]
            at += values.shape[1]
    return samples


def _sound_frames(samples: np.ndarray) -> Iterator[av.AudioFrame]:
    for first in range(0, samples.shape[1], SOUND_FRAME):
        values = np.ascontiguousarray(samples[:, first : first + SOUND_FRAME])
        frame = av.AudioFrame.from_ndarray(values, format=SOUND_FORMAT, layout=SOUND_LAYOUT)
        frame.sample_rate, frame.pts = SOUND_RATE, first
        frame.time_base = Fraction(1, SOUND_RATE)
        yield frame
