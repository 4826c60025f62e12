"""How browsers play a film: its media type, and whether they can decode it."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av

# FFmpeg's names of codecs that every current browser plays, by container.
_EVERYWHERE = {"mp4": {"h264", "av1", "vp9"}, "webm": {"vp8", "vp9", "av1"}}
# Some browsers: Safari HEVC, Chromium Matroska and Ogg with the codecs that it knows.
_SOMEWHERE = {"mp4": {"hevc", "vp8"}, "webm": {"h264", "hevc"}, "ogg": {"theora", "vp8"}}
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "webm", "ogg": "ogg"}
_SOUND = {"aac", "mp3", "opus", "vorbis", "flac"}
# 8 bits, 4:2:0: all that hardware decoders and Firefox support of H.264.
_PIXELS = {"yuv420p", "yuvj420p"}
# Matroska has the type of its subset that browsers support.
_MEDIA_TYPES = {".mkv": "video/webm", ".m4v": "video/mp4", ".webm": "video/webm"}
_FIX = "convert it: ffmpeg -i FILM -c:v libx264 -pix_fmt yuv420p -c:a aac -movflags +faststart MP4"


@dataclass(frozen=True)
class Playback:
    """How a film plays in a browser.

    Attributes:
        codec: FFmpeg's name of the video codec; empty if the film cannot be read.
        plays: whether any browser plays it.
        problem: what does not work, and how to fix it; empty if everything does.
    """

    codec: str
    plays: bool
    problem: str


def media_type(path: Path) -> str:
    """Return the media type of a film: a video's or that of plain bytes, never a page's."""
    known = _MEDIA_TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or ""
    return known if known.startswith("video/") else "application/octet-stream"


def playback(path: Path) -> Playback:
    """Return how a film plays.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    return _playback(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _playback(path: Path, changed: int, size: int) -> Playback:
    try:
        with av.open(str(path), metadata_errors="replace") as film:
            stream = film.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                return Playback("", False, "it has no pictures")
            sound = film.streams.best("audio")
            video = stream.codec_context
            heard = sound.codec_context.name if sound else None
            return _judge(film.format.name, video.name, video.pix_fmt, heard)
    except av.FFmpegError as error:
        return Playback("", False, f"it cannot be read ({error.strerror})")


def _judge(container: str, codec: str, pixels: str | None, sound: str | None) -> Playback:
    codec = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}.get(codec, codec)
    kind = _CONTAINERS.get(container, "")
    what = f"{codec} in {kind or container.partition(',')[0]}"
    if codec not in _EVERYWHERE.get(kind, set()) | _SOMEWHERE.get(kind, set()):
        return Playback(codec, False, f"browsers cannot play {what}; {_FIX}")
    if codec in _EVERYWHERE.get(kind, ()):
        what = ""
        if codec == "h264" and pixels not in _PIXELS:
            what = f"{codec} as {pixels}"
        elif sound is not None and sound not in _SOUND and not sound.startswith("pcm_"):
            what = f"its sound ({sound})"
    return Playback(codec, True, f"not every browser plays {what}; {_FIX}" if what else "")
