"""One pass over the pictures of a film, with the times at which a player shows them.

Time stamps are interpreted as by FFmpeg's own program: where those of packets restart, as in joined
recordings, they are continued; packets that cannot be decoded are left out, and noted.
"""

import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from data.prepare.problems import Problem
from data.prepare.video_files import (
    FETCH_AGAIN,
    VideoError,
    codec_name,
    message,
    promised_length,
    re_encode,
    refuse_text,
    why_unreadable,
)

DEFAULT_RATE = Fraction(25)  # frames per second, where the file has no rate
BACK_SECONDS = 0.1  # that broadcasts' decoding times may go back; more is a joint of recordings
BACK_FRAMES = 16  # the same in other files, whose decoding times FFmpeg may have to guess
BACK_SOUND = 1.0  # the same in seconds of sound
GAP_SECONDS = 10.0  # without a picture in broadcasts (MPEG-TS and the like); more is a joint
LONGEST_GAP = 3600.0  # in other files; more is a broken time stamp
SOUND_PACKET_SECONDS = 10.0  # the longest packet of sound
# Tolerance of a film's length in its header.
SLACK_SECONDS, SLACK_SHARE = 1.0, 0.02
MOST_PIXELS = 1 << 27  # of a picture; 12K films have 75 million
_RESTARTS = 0x0200  # AVFMT_TS_DISCONT: the format's time stamps may restart
_MAKE_STAMPS = 0x0001  # AVFMT_FLAG_GENPTS, which PyAV sets: it puts AVI's out of order
_LATE_STREAMS = ("mpegts", "mpeg", "flv")  # formats whose streams may begin anywhere
_PROTECTED = "it is protected (DRM)"
_NO_DECODER = {
    "encv": _PROTECTED,
    "drmi": _PROTECTED,
    "unknown": f"its header is damaged; {FETCH_AGAIN}",
}
_AHEAD = 32  # packets whose order of display is considered
# Decoding begins this long, and at least this long, before the first frame needed: pictures after
# the first key frame may refer to earlier ones, those after later key frames hardly do.
ENTRY_SECONDS, LEAST_ENTRY_SECONDS = 60.0, 1.0


class NoEntryError(Exception):
    """A film cannot be decoded from a key frame on, only from its beginning."""


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame, on display from ``start`` to ``end`` (seconds from the file's start)."""

    image: av.VideoFrame
    start: float
    end: float


@contextmanager
def open_film(path: Path, threads: int = 0) -> Iterator["Film"]:
    """Open a video.

    Args:
        path: any file that FFmpeg reads.
        threads: of the decoder; 0: its choice.

    Raises:
        VideoError: it holds no film, or one without a decoder.
    """
    refuse_text(path)
    container = _open(path)
    try:
        if not container.streams.video and container.format.name in _LATE_STREAMS:
            container.close()
            size = str(path.stat().st_size + 32)  # the whole file
            container = _open(path, probesize=size, analyzeduration="1" + "0" * 12)
        stream = _film_stream(container)
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        yield Film(path, container, stream)
    finally:
        container.close()


def _open(path: Path, **options: str) -> av.container.InputContainer:
    try:
        container = av.open(
            f"file:{path}",  # names may hold colons
            # As FFmpeg's own program: a broadcast's streams may be listed again later.
            options={"max_pixels": str(MOST_PIXELS), "scan_all_pmts": "1", **options},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        raise why_unreadable(path, error) from error
    container.flags &= ~_MAKE_STAMPS
    return container


def _film_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the stream of the film."""
    covers = av.stream.Disposition.attached_pic
    films = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not films and container.streams.video:
        raise VideoError("it has only a cover picture, no film")
    if not films:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"it has no video stream (only {kinds})")
    stream = container.streams.best("video")
    if stream not in films:  # only the cover picture has a decoder
        stream = films[0]
    if stream.codec_context is None:
        name = codec_name(container, stream)
        fix = _NO_DECODER.get(name, "export it as H.264 with the software that made it")
        raise VideoError(f"there is no decoder for its codec ({name}): {fix}")
    return stream


class _Clock:
    """Continues the time stamps of packets over joints of recordings.

    Args:
        restarts: the container's time stamps may restart (broadcasts, DVDs).
        usual: seconds that a frame is shown.
    """

    def __init__(self, restarts: bool, usual: float) -> None:
        self._restarts = restarts
        self._back = BACK_SECONDS if restarts else max(1.0, BACK_FRAMES * usual)
        self.offset = 0.0  # seconds to add
        self._last: float | None = None  # time stamp of the film's packets
        self._next = 0.0  # when the next one is due
        self._sound: float | None = None  # when the next packet of sound is due
        self._sound_breaks = False  # since the last joint
        # (before, after) in seconds of the first broken time stamp, where they may not restart.
        self.jumped: tuple[float, float] | None = None
        self.left_out = 0.0  # seconds of such jumps

    def hear(self, stamp: float, lasts: float) -> None:
        """Follow a packet of sound, which distinguishes a joint from a still picture."""
        step = 0.0 if self._sound is None else stamp - self._sound
        self._sound_breaks |= not -BACK_SOUND <= step <= GAP_SECONDS
        self._sound = stamp + lasts

    def shift(self, stamp: float, lasts: float) -> float:
        """Return the seconds to add to the time stamps of a film's packet.

        Args:
            stamp: its decoding time, in seconds.
            lasts: seconds until the next one.
        """
        shifted = stamp + self.offset
        if self._last is not None:
            jump = shifted - self._next
            goes_back = shifted < self._last - self._back
            leaps = jump > (GAP_SECONDS if self._restarts else LONGEST_GAP)
            if goes_back or (leaps and not self._is_heard(stamp)):
                if leaps and not self._restarts:
                    self.jumped = self.jumped or (self._last, shifted)
                    self.left_out += jump
                self.offset -= jump
                shifted -= jump
                self._sound_breaks = False
        self._last = shifted
        self._next = shifted + lasts
        return self.offset

    def _is_heard(self, stamp: float) -> bool:
        """Return whether the sound continued without a break up to a time."""
        if self._sound is None or self._sound_breaks:
            return False
        return abs(stamp - self._sound) < GAP_SECONDS


class _Stamps:
    """Guesses a frame's time stamp as FFmpeg's own program does, from its packet's two."""

    def __init__(self) -> None:
        self._last_pts = self._last_dts = -(1 << 63)
        self._faulty_pts = self._faulty_dts = 0
        self.lag: int | None = None  # of the decoder

    def of(self, frame: av.VideoFrame, first_dts: int | None) -> int | None:
        """Return when a frame is shown; None: unknown.

        Args:
            frame: the next one in the order of display.
            first_dts: of the stream. Where the first frame has only a decoding time, all times are
                of decoding, as in AVI; it is shown when the first packet is due, regardless of the
                decoder's delay.
        """
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if self.lag is None:
            self.lag = 0
            if pts is None and dts is not None and first_dts is not None:
                self.lag = max(0, dts - first_dts)
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return pts - self.lag
        return None if dts is None else dts - self.lag


class _Entry:
    """The key frame at which decoding begins, after the packets before it were skipped.

    Args:
        time: seconds of the first frame that is needed.
    """

    def __init__(self, time: float) -> None:
        self.time = time
        self.entered = False  # the key frame was decoded
        self._begun = False  # the film's first frame was decoded
        self._key: av.Packet | None = None

    def skips(self, packet: av.Packet, time: float | None) -> bool:
        """Return whether a packet is not decoded; the first frame of a film always is.

        Args:
            packet: the next one.
            time: seconds at which it is shown or decoded; None: unknown.

        Raises:
            NoEntryError: there is no key frame before the first frame that is needed.
        """
        if not self._begun:
            return False
        if self._key is None:
            if time is None or time >= self.time - LEAST_ENTRY_SECONDS:
                raise NoEntryError
            if not packet.is_keyframe or time < self.time - ENTRY_SECONDS:
                return True
            self._key = packet
        # Pictures that are shown before the key frame may refer to others before it.
        own, key = packet.pts, self._key.pts
        return packet is not self._key and own is not None and key is not None and own < key

    def is_at(self, packet: av.Packet) -> bool:
        """Return whether a packet is the key frame's."""
        return packet is self._key

    def drops(self, image: av.VideoFrame) -> bool:
        """Return whether a decoded frame must not be used, as it may be incomplete.

        Raises:
            NoEntryError: the supposed key frame refers to others.
        """
        if self._key is None or self.entered:
            skipping, self._begun = self._begun and self._key is None, True
            return skipping
        if not image.key_frame:
            return True
        same = None in (image.pts, self._key.pts) or image.pts == self._key.pts
        if image.pict_type != PictureType.I or not same:
            raise NoEntryError
        self.entered = True
        return False


class Film:
    """The pictures of an open video, once from its beginning to its end."""

    def __init__(
        self, path: Path, container: av.container.InputContainer, stream: av.VideoStream
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._base = stream.time_base or Fraction(1, av.time_base)
        self._usual = 1 / _rate(stream)
        self._promise = promised_length(path, container, stream)
        self._origin = _start(container, stream)
        self._clock = _Clock(bool(container.format.flags & _RESTARTS), float(self._usual))
        self._sound = container.streams.best("audio") if container.streams.audio else None
        self._heard = 0.0  # seconds of sound so far
        self._packets = 0
        self._first_dts: int | None = None
        self._read_until = [0.0, 0.0]  # end of the film's packets and of those of sound
        self._end = Fraction(0)
        self._errors: list[tuple[float, str]] = []
        self._pending: list[float] = []  # times of errors after the last frame
        self._may_skip = False  # frames that no other refers to
        self._stamps: list[int] = []  # of the packets before, ascending
        self._lost = 0.0  # seconds without a picture, because of damage
        self._overlong = 0.0  # duration of the last packet, if it is implausible
        self._entry: _Entry | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether any part could not be decoded so far."""
        return bool(self._errors)

    def frames(
        self, wanted: Callable[[float, float], bool], entry: float = 0.0
    ) -> Iterator[TimedFrame]:
        """Yield frames in the order of display; the last one again if sound extends its display.

        A frame without a time stamp follows the one before it; one that is not later than the one
        before it is left out.

        Args:
            wanted: whether a frame on display from one time to another is needed; others may be
                missing.
            entry: seconds before which none is needed. Of a film that is intact until then, what is
                :data:`ENTRY_SECONDS` before may be read without decoding; its first frame is
                yielded nevertheless, and the frames from ``entry`` on are identical.

        Raises:
            NoEntryError: decoding cannot begin before ``entry``; nothing from there on was yielded.
            VideoError: there are none, or too few are left of the film.
        """
        self._entry = _Entry(entry) if entry > 2 * ENTRY_SECONDS else None
        last: TimedFrame | None = None
        before = Fraction(0)
        stamps = _Stamps()
        for image in self._decoded(wanted):
            if self._entry and self._entry.drops(image):
                continue
            stamp = stamps.of(image, self._first_dts)
            if stamp is None and self._is_before_entry():
                raise NoEntryError
            if last is None:
                self._set_origin(stamp, lags=bool(stamps.lag))
            self._may_skip = not image.interlaced_frame
            start = self._end if stamp is None else self._time(stamp)
            if last is not None and start <= before:
                continue
            if image.is_corrupt:
                self._note(float(self._end), "a picture with errors")
            self._note_gap(float(start))
            self._end = start + self._lasting(image)
            before, last = start, TimedFrame(image, float(start), float(self._end))
            yield last
        if last is None:
            raise self._without_frames()
        if self._entry and not self._entry.entered:
            raise NoEntryError
        if (end := self._sounds_until(last.end)) > last.end:
            self._end = Fraction(end)
            yield TimedFrame(last.image, last.start, end)

    def problem(self) -> Problem | None:
        """Return the problem of a film that was read to its end; None: there is none.

        Raises:
            VideoError: less than half of it could be decoded.
        """
        end = float(self._end)
        shown, whole = max(0.0, end - self._lost), max(end, self._read_until[0])
        promised = self._promise.seconds - self._overlong - self._clock.left_out
        until = self._read_until[0] if self._promise.of_pictures else max(self._read_until)
        if promised - until > max(SLACK_SECONDS, SLACK_SHARE * promised):
            reason = f"it is cut short: it ends at {until:.1f} of {promised:.1f} seconds"
            fix, whole = FETCH_AGAIN, max(whole, promised)
        elif self._promise.breaks_off or (
            self._errors and end <= self._errors[0][0] and until - end <= SLACK_SECONDS
        ):
            reason, fix = f"it is cut short: it breaks off at {end:.1f} seconds", FETCH_AGAIN
        elif self._errors:
            first, error = self._errors[0]
            reason = f"it is damaged at {first:.1f} seconds ({error})"
            fix = f"{FETCH_AGAIN}, or {re_encode(self._path)}"
        elif self._overlong or self._clock.jumped:
            reason, fix = self._broken_times(), re_encode(self._path)
        else:
            return None
        if 2 * shown < whole:
            raise VideoError(
                f"{reason}; only {shown:.1f} of {whole:.1f} seconds can be used: {fix}", shown
            )
        return Problem(f"{reason}; {fix}", shown, used=True)

    def _broken_times(self) -> str:
        if self._clock.jumped:
            before, after = self._clock.jumped
            return f"its time stamps jump from {before:.1f} to {after:.1f} seconds (left out)"
        return f"its last picture has a duration of {self._overlong / 3600:.1f} hours (left out)"

    def _without_frames(self) -> VideoError:
        if self._promise.of_pictures and self._promise.seconds and not self._packets:
            length = self._promise.seconds
            return VideoError(f"it is cut short: 0.0 of {length:.1f} seconds; {FETCH_AGAIN}")
        if self._errors:
            return VideoError(
                f"none of its pictures can be decoded ({self._errors[0][1]}): it is damaged, or "
                f"protected (DRM); {FETCH_AGAIN}"
            )
        return VideoError(f"it has no frames; {FETCH_AGAIN}")

    def _set_origin(self, stamp: int | None, lags: bool) -> None:
        """Choose time 0 by the first frame, where the header has none."""
        first = (stamp or 0) * self._base
        if self._origin is None:
            self._origin = first
        elif lags:  # the header's counts the decoder's delay
            self._origin = min(self._origin, first)

    def _lasting(self, image: av.VideoFrame) -> Fraction:
        """Return how long a frame is shown."""
        lasts = image.duration * self._base
        return lasts if 0 < lasts <= LONGEST_GAP else self._usual

    def _sounds_until(self, end: float) -> float:
        """Return the end of the last frame: of a film of stills, the end of the sound."""
        if self._packets >= self._heard:
            return end
        return max(end, min(self._read_until[1], self._heard + GAP_SECONDS))

    def _note_gap(self, start: float) -> None:
        """Add up the time without a picture where packets could not be decoded."""
        passed = [time for time in self._pending if time < start]
        if passed:
            self._pending = [time for time in self._pending if time >= start]
            self._lost += max(0.0, start - float(self._end))

    def _decoded(self, wanted: Callable[[float, float], bool]) -> Iterator[av.VideoFrame]:
        for packet in self._read():
            if packet.stream_index != self._stream.index:
                self._listen(packet)
            elif packet.size:  # an empty one would end the decoder
                self._correct_times(packet)
                if self._entry and self._skips(packet, self._entry):
                    continue
                self._stream.codec_context.skip_frame = (
                    "DEFAULT" if self._is_needed(packet.pts, wanted) else "NONREF"
                )
                yield from self._decode(packet)
        yield from self._decode(None)

    def _is_before_entry(self) -> bool:
        """Return whether the first frame that is needed is still to come."""
        return self._entry is not None and self._end < self._entry.time

    def _skips(self, packet: av.Packet, entry: _Entry) -> bool:
        stamp = packet.dts if packet.pts is None else packet.pts
        if entry.skips(packet, None if stamp is None else self._seconds(stamp)):
            return True
        if entry.is_at(packet):
            self._stream.codec_context.flush_buffers()
            self._stamps.clear()
        return False

    def _read(self) -> Iterator[av.Packet]:
        streams = [self._stream, self._sound] if self._sound else [self._stream]
        try:
            yield from self._container.demux(streams)
        except IndexError:
            pass  # at the end, of PyAV, which flushes a stream that appeared later
        except av.FFmpegError as error:
            self._note(self._read_until[0], message(error))

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except EOFError:
            return []
        except (av.FFmpegError, ValueError) as error:
            stamp = None if packet is None else packet.pts if packet.pts is not None else packet.dts
            end = self._read_until[0]
            self._note(end if stamp is None else self._seconds(stamp), message(error))
            return []

    def _note(self, time: float, error: str) -> None:
        if self._is_before_entry():
            raise NoEntryError  # decode all of it, to find the damage
        self._errors.append((max(0.0, time), error))
        self._pending.append(time)

    def _seconds(self, stamp: int) -> float:
        return float(self._time(stamp))

    def _time(self, stamp: int) -> Fraction:
        return stamp * self._base - (self._origin or 0)

    def _listen(self, packet: av.Packet) -> None:
        """Note the end of a packet of sound."""
        base = float(packet.stream.time_base or 0)
        lasts = min(SOUND_PACKET_SECONDS, (packet.duration or 0) * base)
        self._heard += lasts
        if packet.pts is not None:
            self._clock.hear(packet.pts * base, lasts)
            end = packet.pts * base + self._clock.offset - float(self._origin or 0) + lasts
            self._read_until[1] = max(self._read_until[1], end)

    def _correct_times(self, packet: av.Packet) -> None:
        """Continue the time stamps of the packets before."""
        self._packets += 1
        lasts = (packet.duration or 0) * self._base
        self._overlong = float(lasts) if lasts > LONGEST_GAP else 0.0
        lasts = lasts if 0 < lasts <= LONGEST_GAP else self._usual
        if packet.dts is not None:
            offset = self._clock.shift(float(packet.dts * self._base), float(lasts))
            ticks = round(offset / self._base)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
                if abs(packet.pts - packet.dts) * self._base > LONGEST_GAP:
                    packet.pts = None
            if self._first_dts is None:
                self._first_dts = packet.dts
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            end = self._seconds(stamp) + float(lasts)
            self._read_until[0] = max(self._read_until[0], end)

    def _is_needed(self, stamp: int | None, wanted: Callable[[float, float], bool]) -> bool:
        """Return whether a frame must be decoded even if no other refers to it.

        A later picture bounds the display of this one. All frames of interlaced films are decoded,
        as a packet may be half a frame, and so are all after an error.
        """
        if stamp is None or self._origin is None or not self._may_skip or self._errors:
            self._stamps.clear()
            return True
        index = bisect.bisect_right(self._stamps, stamp)
        later = self._stamps[index] if index < len(self._stamps) else None
        self._stamps.insert(index, stamp)
        del self._stamps[:-_AHEAD]
        return later is None or wanted(self._seconds(stamp), self._seconds(later))


def _rate(stream: av.VideoStream) -> Fraction:
    """Return the usual frames per second; one broken time stamp spoils the average rate."""
    rates = (rate for rate in (stream.average_rate, stream.guessed_rate) if rate and rate >= 1)
    return Fraction(next(rates, DEFAULT_RATE))


def _start(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Return the time stamp of the file's start in seconds; None: unknown."""
    if container.start_time is None:
        return None
    start = Fraction(container.start_time, av.time_base)  # rounded to microseconds
    if stream.start_time is not None and stream.time_base:
        exact = stream.start_time * stream.time_base
        if abs(exact - start) * av.time_base <= 1:
            return exact
    return start
