"""Excerpts of films: a thumbnail, and a moment as a video file."""

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
SOUND_FRAME = 1024  # samples of a frame of AAC
MAX_RATE = Fraction(60)  # frames a second of a clip
DEFAULT_RATE = Fraction(25)  # of a film without a frame rate

FrameT = TypeVar("FrameT", av.VideoFrame, av.AudioFrame)


def thumbnail(film: Path, seconds: float, width: int = THUMBNAIL_WIDTH) -> bytes:
    """Return the frame on display at a time as a JPEG file, at most so many pixels wide.

    Raises:
        UserError: the film cannot be read.
    """
    picture = next(_displayed(film, [seconds]))
    width = min(_even(width), _even(picture.width))
    height = _even(picture.height * width / picture.width)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = 1 / DEFAULT_RATE
    small = picture.reformat(width, height, "yuvj420p")
    small.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(small), *codec.encode()])


def write_clip(film: Path, start: float, end: float, target: Path) -> None:
    """Write an excerpt of a film, with its sound, as an MP4 file; exact to half a frame.

    Raises:
        UserError: the film cannot be read.
    """
    with _film(film) as container:
        stream = container.streams.best("video")
        average = stream.average_rate if stream else None
    rate = min(Fraction(average or DEFAULT_RATE), MAX_RATE)
    count = max(1, round((end - start) * rate))
    frames = _displayed(film, [start + float(number / rate) for number in range(count)])
    sound = _sound(film, start, end)
    with atomic_write(target) as temporary, av.open(str(temporary), "w", format="mp4") as clip:
        video = clip.add_stream("libx264", rate=rate, options={"crf": "20"})
        if sound is not None:
            audio = clip.add_stream("aac", rate=SOUND_RATE, layout=SOUND_LAYOUT)
        for number, picture in enumerate(frames):
            if number == 0:
                video.width, video.height = _even(picture.width), _even(picture.height)
                video.pix_fmt = "yuv420p"
            picture = picture.reformat(video.width, video.height, "yuv420p")
            picture.pts, picture.time_base = number, 1 / rate
            clip.mux(video.encode(picture))
        clip.mux(video.encode())
        if sound is not None:
            for piece in _sound_frames(sound):
                clip.mux(audio.encode(piece))
            clip.mux(audio.encode())


@contextmanager
def _film(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a film; UserError if it cannot be read, or has no video."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if container.streams.best("video") is None:
                raise UserError(f"{path} has no video stream")
            yield container
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); is it where it was?") from error


def _displayed(film: Path, times: list[float]) -> Iterator[av.VideoFrame]:
    """Yield the upright frame on display at each time (ascending): the last one that is not later;
    before the first frame the first one, past the end the last one."""
    done, latest = 0, None
    for frame, start in _frames(film, av.VideoFrame, times[0]):
        while start > times[done]:
            yield _upright(latest or frame)
            done += 1
            if done == len(times):
                return
        latest = frame
    if latest is None:
        raise UserError(f"{film} has no frames that can be decoded")
    for _ in times[done:]:
        yield _upright(latest)


def _frames(film: Path, kind: type[FrameT], start: float) -> Iterator[tuple[FrameT, float]]:
    """Yield decoded frames and their times, from one on that is not later than ``start``, if there
    is one."""
    if start > 0:
        frames = _decoded(film, kind, start)
        first = next(frames, None)
        if first is not None and first[1] <= start:
            yield first
            yield from frames
            return
    yield from _decoded(film, kind, 0)  # without seeking


def _decoded(film: Path, kind: type[FrameT], start: float) -> Iterator[tuple[FrameT, float]]:
    """Yield frames and times from the key frame before ``start`` on; none if seeking fails."""
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
    """Return samples (2, n) float32 between two times, zeros where there are none; None: the film
    has no sound."""
    with _film(film) as container:
        if container.streams.best("audio") is None:
            return None
    samples = np.zeros((2, round((end - start) * SOUND_RATE)), np.float32)
    resampler = av.AudioResampler(SOUND_FORMAT, SOUND_LAYOUT, SOUND_RATE)
    at = None  # sample of the clip that the resampler's next output starts at
    for frame, time in _frames(film, av.AudioFrame, start):
        if time >= end:
            break
        at = round((time - start) * SOUND_RATE) if at is None else at
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
