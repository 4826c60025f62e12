"""Small videos whose grey level tells the time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            grey = np.full((size[1], size[0], 3), 255 * number // count, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            if times:
                frame.time_base = Fraction(1, 1000)
                frame.pts = int(times[number] * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
