"""Diagnose files that cannot be decoded, and read the length that a video's header promises.

FFmpeg reports "invalid data" for an empty file and for a web page alike; these messages say what a
file is and how to fix it.
"""

import re
import shlex
from codecs import getincrementaldecoder
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging

HEAD_BYTES = 4096
FETCH_AGAIN = "download or copy it again"
_WEB_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)
_OTHER_KINDS = (  # signatures of files that have a video's name by mistake
    (b"PK\x03\x04", "a ZIP archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"%PDF-", "a PDF document"),
)
_MOST_BOXES = 10_000  # of an MP4 file, at its top level
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEADER_BYTES = 1 << 16


class VideoError(ValueError):
    """Why a video cannot be used; such videos are listed and left out."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds  # that could be decoded


@dataclass(frozen=True, slots=True)
class Promise:
    """The length of a film according to its header."""

    seconds: float  # 0: unknown
    of_pictures: bool  # of the pictures alone; False: the longer of pictures and sound
    breaks_off: bool = False  # the file is shorter than its structure says


def re_encode(path: Path) -> str:
    """Return the advice to re-encode a video."""
    name = " ".join(path.name.split())
    return f"re-encode it (ffmpeg -i {shlex.quote(name)} new.mp4)"


def refuse_text(path: Path) -> None:
    """Refuse text files, before FFmpeg takes them for a playlist or for subtitles.

    Raises:
        VideoError: the file is empty, a web page or another text, or cannot be read.
    """
    head = _head(path)
    if not head:
        raise VideoError(f"it is empty; {FETCH_AGAIN}")
    if _WEB_PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        raise VideoError(
            "it is a web page (HTML), no video: its address requires a login or is gone; "
            "download it again"
        )
    if head.startswith(b"#EXTM3U"):
        raise VideoError("it is a playlist, no video; download what it lists (ffmpeg -i ADDRESS …)")
    if _is_text(head):
        raise VideoError("it is a text file, no video; rename it, or download it again")


def why_unreadable(path: Path, error: Exception) -> VideoError:
    """Return what is wrong with a file that FFmpeg does not open."""
    head = _head(path)
    for begin, kind in _OTHER_KINDS:
        if head.startswith(begin):
            return VideoError(f"it is {kind}, no video; unpack or convert it")
    if not any(head):
        return VideoError(f"it begins with zeros, as a download that has not ended; {FETCH_AGAIN}")
    boxes, breaks_off = _boxes(path)
    if boxes & {b"ftyp", b"mdat"} and b"moov" not in boxes:
        return VideoError(
            "its index (moov) is missing, as when a recording or a download breaks off; "
            f"{FETCH_AGAIN}"
        )
    if breaks_off:
        return VideoError(f"it is cut short; {FETCH_AGAIN}")
    return VideoError(
        f"it cannot be decoded ({message(error)}): no video, or its beginning is damaged; "
        f"{FETCH_AGAIN}"
    )


def message(error: Exception) -> str:
    """Return FFmpeg's message of an error."""
    return str(getattr(error, "strerror", None) or error)


def codec_name(container: av.container.InputContainer, stream: av.VideoStream) -> str:
    """Return a file's name for the codec of a stream that has no decoder."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # required for FFmpeg's summary
    try:
        summary = container.dumps_format()  # type: ignore[attr-defined]  # the stubs lack it
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*?: Video: (.*)", summary)
    parts = re.match(r"(\w*)(?:.*?\((\w+) / 0x)?", found[1] if found else "")
    name, tag = parts.groups() if parts else ("", "")
    return (tag if name in ("none", "") else name) or "unknown"


def promised_length(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream
) -> Promise:
    """Return the length of a film according to its header.

    FFmpeg estimates the length of formats without one from the file; such estimates do not count.
    """
    kind = container.format.name
    own = float((stream.duration or 0) * (stream.time_base or 0))
    if kind == "avi":  # FFmpeg recounts a broken file's duration, but not its header's frames
        rate = stream.average_rate or stream.guessed_rate
        return Promise(max(own, float(stream.frames / Fraction(rate)) if rate else 0.0), True)
    if kind == "asf":  # FFmpeg discards the length if the file's size differs from the header's
        return Promise(max(own, _asf_length(path)), False)
    if kind == "flv":
        return Promise((container.duration or 0) / av.time_base, False)
    if kind == "matroska,webm":
        end, size = _segment_end(path), path.stat().st_size
        is_whole = end is not None and end <= size  # then its subtitles may last longer
        length = 0.0 if is_whole else (container.duration or 0) / av.time_base
        return Promise(length, False, end is not None and not is_whole)
    if kind.startswith("mov,"):
        return Promise(own, True, _boxes(path)[1])
    return Promise(own if kind in ("mxf", "rm") else 0.0, True)


def _head(path: Path, size: int = HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise VideoError(f"it cannot be read ({error.strerror})") from error


def _is_text(head: bytes) -> bool:
    try:
        text = getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character >= " " or character in "\t\n\r\f" for character in text)


def _boxes(path: Path) -> tuple[set[bytes], bool]:
    """Return the kinds of an MP4 file's whole boxes, and whether one ends after the file."""
    kinds: set[bytes] = set()
    end = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_MOST_BOXES):
            start = file.tell()
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if not re.fullmatch(rb"[a-z]{4}", kind):
                break
            if size == 1:  # the size follows
                size = int.from_bytes(header[8:], "big")
            if start + size > end:
                return kinds | {b"ftyp"}, True
            kinds.add(kind)
            if size < 8:  # 0: up to the end of the file
                break
            file.seek(start + size)
    return kinds, False


def _segment_end(path: Path) -> int | None:
    """Return the end of a Matroska file according to its header; None: unknown."""
    head = _head(path)
    end = 0
    for _ in range(2):  # two elements, the header and the rest: identity (4 bytes), size, content
        start = end + 4
        if len(head) <= start or not head[start]:
            return None
        width = 9 - head[start].bit_length()  # bytes of the size: its leading zeros, plus one
        largest = (1 << 7 * width) - 1
        size = int.from_bytes(head[start : start + width], "big") & largest
        if size == largest:  # unknown when it was written
            return None
        end = start + width + size
    return end


def _asf_length(path: Path) -> float:
    """Return the seconds of a Windows Media file's header."""
    head = _head(path, _ASF_HEADER_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return 0.0
    ticks = int.from_bytes(head[at + 64 : at + 72], "little")  # of 100 ns, with the preroll (ms)
    preroll = int.from_bytes(head[at + 80 : at + 88], "little")
    is_live = head[at + 88] & 1  # its length was unknown when it was written
    return 0.0 if is_live else max(0.0, ticks / 1e7 - preroll / 1e3)
