"""Small videos whose grey level tells the time, and videos whose frames carry their number."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data.prepare.video_frames import Problem, Sampling, read_windows

BITS, STRIPE = 10, 4  # of a frame's number; pixels
CENTRES = Sampling(1.5, (0.5,))


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
    return write_film(path, greys, rate, size, codec, times, options)


def make_numbered(
    path: Path,
    count: int,
    rate: int = 10,
    codec: str = "libx264",
    first: int = 0,
    times: list[Fraction] | None = None,
    sound: float = 0,
    sound_starts: float = 0,
    coding: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of 64 × 48 whose frames carry their number, from ``first`` on.

    Args:
        path, rate, codec, times, options: as :func:`make_video`.
        count: of frames.
        sound, sound_starts: when it ends and starts, in seconds; 0: none.
        coding: options of the codec.
    """
    pictures = (numbered(first + number) for number in range(count))
    return write_film(
        path, pictures, rate, (64, 48), codec, times, options, (sound_starts, sound), coding
    )


def make_sound(path: Path, seconds: float, **options: str) -> Path:
    """A file of sound alone."""
    with av.open(str(path), "w", options=options) as container:
        voice = _Sound(container, path.suffix, 0)
        voice.play(seconds)
        voice.end()
    return path


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


def write_film(
    path: Path,
    pictures: Iterable[np.ndarray],
    rate: int,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    times: list[Fraction] | None = None,
    options: dict[str, str] | None = None,
    sound: tuple[float, float] = (0, 0),
    coding: dict[str, str] | None = None,
) -> Path:
    """A video of pictures (height, width, 3) uint8; see :func:`make_numbered`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=coding)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        voice = _Sound(container, path.suffix, sound[0]) if sound[1] else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.time_base = Fraction(1, 1000)
                frame.pts = int(times[number] * 1000)
            if voice is not None:
                voice.play(min(sound[1], float(times[number]) if times else number / rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            voice.play(sound[1])
            voice.end()
    return path


class _Sound:
    """A silent track, written beside the pictures."""

    def __init__(self, container: av.container.OutputContainer, suffix: str, start: float) -> None:
        codecs = {".webm": "libopus", ".mp4": "aac", ".mov": "aac", ".flv": "libmp3lame"}
        self._rate = 48000 if suffix == ".webm" else 44100
        self._container = container
        self._stream = container.add_stream(
            codecs.get(suffix, "mp2"), rate=self._rate, layout="mono"
        )
        self._samples = round(start * self._rate)

    def play(self, seconds: float) -> None:
        """Go on up to a time."""
        step = self._stream.codec_context.frame_size or 960
        kind = self._stream.codec_context.format.name
        dtypes = {"s16": np.int16, "s32": np.int32}
        zeros = np.zeros((1, step), dtypes.get(kind.rstrip("p"), np.float32))
        while self._samples < seconds * self._rate:
            frame = av.AudioFrame.from_ndarray(zeros, kind, "mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            frame.time_base = Fraction(1, self._rate)
            self._container.mux(self._stream.encode(frame))
            self._samples += step

    def end(self) -> None:
        """Write what the encoder holds."""
        self._container.mux(self._stream.encode())


def read_film(
    path: Path, sampling: Sampling = CENTRES, threads: int = 1
) -> tuple[list[int], Problem | None]:
    """The number of each window's first frame, and what is wrong with the film."""
    windows = read_windows(path, sampling, threads)
    numbers = []
    try:
        while True:
            numbers.append(number_of(next(windows)))
    except StopIteration as end:
        return numbers, end.value


def centres(count: int, rate: int, interval: float = 1.5, first: int = 0) -> list[int]:
    """The number of the frame at the centre of each window of a film."""
    windows = -(-count // round(interval * rate))
    return [first + min(int((w + 0.5) * interval * rate), count - 1) for w in range(windows)]


def assert_close(found: list[int], right: list[int]) -> None:
    """At most one frame off."""
    assert len(found) == len(right)
    np.testing.assert_allclose(found, right, atol=1)


def ffmpeg_count(path: Path, otherwise: float) -> float:
    """How many frames FFmpeg's own program decodes; ``otherwise`` where it is not installed."""
    if shutil.which("ffmpeg") is None:
        return otherwise
    command = ["ffmpeg", "-hide_banner", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    ended = subprocess.run(command, capture_output=True, check=False)
    return int(re.findall(rb"frame=\s*(\d+)", ended.stderr)[-1])


def remux(source: Path, target: Path, edit: Callable[[list[av.Packet]], None]) -> Path:
    """Write the packets of a video again, edited."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        streams = {s.index: written.add_stream_from_template(s) for s in read.streams}
        packets = [packet for packet in read.demux() if packet.dts is not None]
        edit(packets)
        for packet in packets:
            packet.stream = streams[packet.stream_index]
            written.mux(packet)
    return target


def joined(path: Path, *parts: Path) -> Path:
    """One file after another, as ``cat`` joins them."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def forget_source(path: Path) -> None:
    """As a feature file was before it said which video it is of; its date stays."""
    known = path.stat()
    with np.load(path) as entries:
        kept = {name: entries[name] for name in entries if name != "made_of"}
    np.savez(path, **kept)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


SRT = """\
1
00:00:00,500 --> 00:00:02,000
<i>Yusuf lifts the tiny rope.</i>

2
00:00:02,500 --> 00:00:04,400
Mara hides the red notebook in the kitchen.
"""


_list_folder = Path.iterdir


def private_refused(path: Path) -> Iterator[Path]:
    """``Path.iterdir`` where folders that are called ``private`` are somebody else's."""
    if path.name == "private":
        raise PermissionError(13, "Permission denied", str(path))
    return _list_folder(path)
