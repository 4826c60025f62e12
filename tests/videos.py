"""Small videos whose grey level tells the time, and videos whose frames carry their number."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, STRIPE = 10, 4  # of a frame's number; pixels
RATE = 48000  # of sound


def make_video(
    path: Path,
    seconds: float = 6,
    rate: int = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    times: list[Fraction] | None = None,
    **options: str,
) -> Path:
    """A video that goes from black to white.

    Args:
        path: its ending chooses the container.
        seconds: how long it is.
        rate: frames a second.
        size: width and height.
        codec: FFmpeg's name of it.
        times: time stamp of each frame in seconds; None: every 1 / rate.
        options: of the container.
    """
    count = len(times) if times else round(seconds * rate)
    greys = (
        np.full((size[1], size[0], 3), 255 * number // count, np.uint8) for number in range(count)
    )
    return _write(path, greys, rate, size, codec, times, options)


def make_numbered(
    path: Path,
    count: int,
    rate: int = 10,
    codec: str = "libx264",
    first: int = 0,
    times: list[Fraction] | None = None,
    sound: float = 0,
    coding: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of 64 × 48 whose frames carry their number, from ``first`` on.

    Args:
        path, rate, codec, times, options: as :func:`make_video`.
        count: of frames.
        sound: seconds of it; 0: none.
        coding: options of the codec.
    """
    pictures = (numbered(first + number) for number in range(count))
    return _write(path, pictures, rate, (64, 48), codec, times, options, sound, coding)


def numbered(number: int) -> np.ndarray:
    """A picture (48, 64, 3) with a number in black and white stripes."""
    picture = np.full((48, 64, 3), 128, np.uint8)
    for bit in range(BITS):
        left = 12 + STRIPE * bit
        picture[:, left : left + STRIPE] = 255 * (number >> bit & 1)
    return picture


def number_of(window: np.ndarray) -> int:
    """The number of the first frame of a window (K, 224, 224, 3)."""
    row = window[0, 112, :, 0]
    scale = 256 / 48  # of the shorter side; the centre 42 of 64 pixels are kept
    left = 12 - (64 - 42) / 2 + STRIPE / 2
    places = [round((left + STRIPE * bit) * scale) for bit in range(BITS)]
    return sum((int(row[place]) > 127) << bit for bit, place in enumerate(places))


def _write(
    path: Path,
    pictures: Iterable[np.ndarray],
    rate: int,
    size: tuple[int, int],
    codec: str,
    times: list[Fraction] | None,
    options: dict[str, str],
    sound: float = 0,
    coding: dict[str, str] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, options=coding)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        voice = _Sound(container, path.suffix) if sound else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.time_base = Fraction(1, 1000)
                frame.pts = int(times[number] * 1000)
            container.mux(stream.encode(frame))
            if voice is not None:
                voice.play(min(sound, float(times[number]) if times else number / rate))
        container.mux(stream.encode())
        if voice is not None:
            voice.play(sound)
            voice.end()
    return path


class _Sound:
    """A silent track, written beside the pictures."""

    def __init__(self, container: av.container.OutputContainer, suffix: str) -> None:
        codec = {".webm": "libopus", ".mp4": "aac", ".mov": "aac", ".flv": "aac"}.get(suffix, "mp2")
        self._container = container
        self._stream = container.add_stream(codec, rate=RATE, layout="mono")
        self._samples = 0

    def play(self, seconds: float) -> None:
        """Go on up to a time."""
        step = self._stream.codec_context.frame_size or 960
        kind = self._stream.codec_context.format.name
        zeros = np.zeros((1, step), np.int16 if kind.startswith("s16") else np.float32)
        while self._samples < seconds * RATE:
            frame = av.AudioFrame.from_ndarray(zeros, kind, "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._samples, Fraction(1, RATE)
            self._container.mux(self._stream.encode(frame))
            self._samples += step

    def end(self) -> None:
        """Write what the encoder holds."""
        self._container.mux(self._stream.encode())
