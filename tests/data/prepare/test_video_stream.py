"""Which picture a player shows when: films whose frames carry their number."""

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data.prepare import video_stream
from data.prepare.video_frames import Problem, Sampling, VideoError, read_windows
from data.prepare.video_stream import open_film
from tests.support.videos import (
    assert_close,
    centres,
    ffmpeg_count,
    joined,
    make_numbered,
    make_sound,
    number_of,
    numbered,
    read_film,
    remux,
    write_film,
)

B_FRAMES = {"bf": "2"}


# --- Containers and codecs ------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [0, 6])
@pytest.mark.parametrize(
    ("name", "codec", "rate", "coding"),
    [
        ("v.mp4", "libx264", 10, None),
        ("v.mov", "libx264", 30, {"bf": "0"}),
        ("v.m4v", "mpeg4", 25, B_FRAMES),
        ("v.mkv", "libx264", 30, None),
        ("old.mkv", "mpeg4", 25, B_FRAMES),
        ("v.webm", "libvpx", 10, None),
        ("v9.webm", "libvpx-vp9", 10, None),
        ("v.flv", "libx264", 10, None),
        ("v.ts", "libx264", 10, None),
        ("v2.ts", "mpeg2video", 25, B_FRAMES),
        ("v.m2ts", "libx264", 25, None),
        ("v.mpg", "mpeg1video", 25, B_FRAMES),
        ("v.vob", "mpeg2video", 25, B_FRAMES),
        ("v.avi", "mpeg4", 25, None),
        ("b.avi", "mpeg4", 25, B_FRAMES),
        ("b2.avi", "mpeg2video", 25, B_FRAMES),
        ("b264.avi", "libx264", 10, None),
        ("v.wmv", "wmv2", 10, None),
        ("b.asf", "mpeg4", 25, B_FRAMES),
    ],
)
def test_every_container(tmp_path, name, codec, rate, coding, sound):
    if sound and name.endswith(".m4v"):
        pytest.skip("written as MP4 already")
    path = make_numbered(tmp_path / name, 6 * rate, rate, codec, sound=sound, coding=coding)
    numbers, problem = read_film(path)
    assert_close(numbers, centres(6 * rate, rate))
    assert problem is None
    assert ffmpeg_count(path, 6 * rate) == 6 * rate


@pytest.mark.parametrize(
    ("name", "codec"), [("v.h264", "libx264"), ("v.m2v", "mpeg2video"), ("v.hevc", "libx265")]
)
def test_bare_pictures(tmp_path, name, codec):
    coding = {"x265-params": "log-level=none"} if codec == "libx265" else B_FRAMES
    path = make_numbered(tmp_path / name, 150, 25, codec, coding=coding)
    assert read_film(path) == (centres(150, 25), None)


def test_threads_change_nothing(tmp_path):
    path = make_numbered(tmp_path / "v.mp4", 300, 25)
    assert read_film(path, threads=1) == read_film(path, threads=3) == read_film(path, threads=0)


@pytest.mark.parametrize("interval", [0.1, 1.5, 4.0])
@pytest.mark.parametrize(
    ("name", "codec", "flags"),
    [
        ("v.mp4", "libx264", "+bitexact"),
        ("v.mpg", "mpeg2video", "+bitexact"),
        ("interlaced.ts", "libx264", "+ildct+ilme"),
        ("interlaced.vob", "mpeg2video", "+ildct+ilme"),
    ],
)
def test_frames_that_no_other_needs_are_left_out_where_they_are_not_shown(
    tmp_path, interval, name, codec, flags
):
    """The decoder is told before it sees a packet; the frames on display stay the right ones."""
    path = make_numbered(tmp_path / name, 300, 25, codec, coding={"bf": "3", "flags": flags})
    sampling = Sampling(interval, (0.0, 0.313, 0.505, 0.973))
    found = [number_of(window[k:]) for window in read_windows(path, sampling) for k in range(4)]
    ticks = [(w + t) * interval for w in range(len(found) // 4) for t in sampling.times]
    right = [min(int(tick * 25 + 1e-6), 299) for tick in ticks]
    np.testing.assert_allclose(found, right, atol=0 if name == "v.mp4" else 1)


def test_how_many_frames_are_left_out(tmp_path):
    path = make_numbered(tmp_path / "v.mp4", 300, 25, coding={"bf": "3"})
    counts = []
    for wanted in (lambda start, end: True, lambda start, end: False):
        with open_film(path) as film:
            counts.append(len(list(film.frames(wanted))))
            assert film.problem() is None
    assert counts[0] == 300
    assert counts[1] < 200


# --- Going on in the middle -----------------------------------------------------------------------

OPEN = "open-gop=1:scenecut=0"  # pictures before a key frame refer to those before it, too
HEVC = f"log-level=none:keyint=25:bframes=3:{OPEN}"


def moving(count: int) -> Iterator[np.ndarray]:
    """Pictures that no codec keeps exactly: an error would grow until the next key frame."""
    noise = np.random.default_rng(0).integers(0, 128, (96, 128, 3), np.uint8)
    for number in range(count):
        yield np.roll(noise, (number, 2 * number), (0, 1))[:48, :64] + numbered(number) // 2


@pytest.mark.parametrize(
    ("name", "codec", "coding", "enters"),
    [
        ("v.mp4", "libx264", {"bf": "3", "g": "25"}, True),
        ("open.mp4", "libx264", {"bf": "3", "g": "25", "x264-params": OPEN}, True),
        ("open.ts", "libx264", {"bf": "3", "g": "25", "x264-params": OPEN}, True),
        ("open.avi", "libx264", {"bf": "3", "g": "25", "x264-params": OPEN}, False),
        ("interlaced.ts", "libx264", {"bf": "3", "g": "25", "flags": "+ildct+ilme"}, True),
        ("refresh.mkv", "libx264", {"g": "25", "x264-params": "intra-refresh=1:scenecut=0"}, False),
        ("no_key.mp4", "libx264", {"g": "1000", "x264-params": "scenecut=0"}, False),
        ("bare.h264", "libx264", {"bf": "3", "g": "25"}, False),
        ("open.mkv", "libx265", {"x265-params": HEVC}, True),
        ("b.avi", "mpeg4", {"bf": "2", "g": "25"}, True),
        ("b.asf", "mpeg4", {"bf": "2", "g": "25"}, True),
        ("v.vob", "mpeg2video", {"bf": "3", "g": "25"}, True),
        ("v9.webm", "libvpx-vp9", {"g": "25"}, True),
        ("v.wmv", "wmv2", {"g": "25"}, True),
    ],
)
def test_a_film_that_is_entered_gives_the_same_windows(
    tmp_path, monkeypatch, name, codec, coding, enters
):
    monkeypatch.setattr(video_stream, "ENTRY_SECONDS", 2.0)
    path = write_film(tmp_path / name, moving(400), 25, codec=codec, coding=coding)
    decoded = []
    decode = video_stream.Film._decode
    count = lambda film, packet: decoded.append(packet) or decode(film, packet)  # noqa: E731
    monkeypatch.setattr(video_stream.Film, "_decode", count)
    sampling = Sampling(0.5, (0.1, 0.5, 0.9))
    whole = list(read_windows(path, sampling))
    packets = len(decoded)
    rest = list(read_windows(path, replace(sampling, first=20, enter=True)))
    assert np.array_equal(rest, whole[20:]) and len(rest) in (12, 13)
    assert (len(decoded) - packets < 0.6 * packets) == enters


# --- Joined recordings ----------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [0, 6])
@pytest.mark.parametrize("later", ["0", "7200", "95441.5"])  # the last wraps in the middle
@pytest.mark.parametrize(
    ("name", "codec"), [("v.ts", "libx264"), ("v.m2ts", "libx264"), ("v.vob", "mpeg2video")]
)
def test_joined_recordings_go_on_after_the_joint(tmp_path, name, codec, later, sound):
    """Time stamps that start again, and that jump forwards, or back, by hours."""
    first = make_numbered(tmp_path / f"1{name}", 150, 25, codec, sound=sound)
    options = {"output_ts_offset": later} if later != "0" else {}
    second = make_numbered(tmp_path / f"2{name}", 150, 25, codec, first=500, sound=sound, **options)
    ahead, behind = centres(150, 25), centres(150, 25, first=500)
    path = joined(tmp_path / name, first, second)
    assert_close(read_film(path)[0], ahead + behind)
    assert ffmpeg_count(path, 300) == 300
    assert_close(read_film(joined(tmp_path / name, second, first))[0], behind + ahead)


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.avi", "mpeg4")])
def test_other_files_that_go_on_after_their_end(tmp_path, name, codec):
    first = make_numbered(tmp_path / f"1{name}", 150, 25, codec)
    second = make_numbered(tmp_path / f"2{name}", 150, 25, codec, first=500)
    numbers, problem = read_film(joined(tmp_path / name, first, second))
    np.testing.assert_allclose(numbers, centres(150, 25) + centres(150, 25, first=500), atol=3)
    assert problem is None


def test_a_pause_of_the_picture_is_no_joint_while_the_sound_goes_on(tmp_path):
    times = [Fraction(n, 10) for n in range(30)] + [20 + Fraction(n, 10) for n in range(30)]
    path = make_numbered(tmp_path / "v.ts", 60, times=times, sound=23)
    numbers, problem = read_film(path)
    assert_close(numbers, [7, 22] + [29] * 11 + [32, 47, 59])
    assert problem is None


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.flv"])
def test_a_jump_of_hours_is_a_broken_time_stamp(tmp_path, name):
    def edit(packets):
        for packet in packets[40:]:
            packet.pts += round(36000 / packet.time_base)
            packet.dts += round(36000 / packet.time_base)

    whole = make_numbered(tmp_path / f"1{name}", 60, coding={"bf": "0"})
    numbers, problem = read_film(remux(whole, tmp_path / name, edit))
    assert_close(numbers, centres(60, 10))
    assert re.match(r"its time stamps jump from 3\.\d to 3600\d\.\d seconds", problem.reason)
    assert problem.used
    assert problem.amount == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.mov"])
def test_a_last_frame_of_twenty_hours(tmp_path, name):
    def edit(packets):
        packets[-1].duration = round(72000 / packets[-1].time_base)

    whole = make_numbered(tmp_path / f"1{name}", 150, 25, "mpeg4")
    numbers, problem = read_film(remux(whole, tmp_path / name, edit))
    assert_close(numbers, centres(150, 25))
    assert problem == Problem(problem.reason, pytest.approx(6, abs=0.1), used=True)
    assert "last picture has a duration of 20.0 hours" in problem.reason


# --- Streams --------------------------------------------------------------------------------------


# What fills a file until FFmpeg, which looks for streams in the first 5 MB, has seen enough.
STUFFING = {
    ".ts": (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 30_000,
    ".vob": (b"\x00\x00\x01\xbe\x07\xfa" + b"\xff" * 2042) * 2_750,
}


@pytest.mark.parametrize(("name", "codec"), [("v.ts", "libx264"), ("v.vob", "mpeg2video")])
def test_sound_that_appears_later(tmp_path, name, codec):
    """A silent film, one with sound, and the first again."""
    silent = make_numbered(tmp_path / f"1{name}", 150, 25, codec)
    loud = make_numbered(tmp_path / f"2{name}", 150, 25, codec, first=500, sound=6)
    filled = tmp_path / f"3{name}"
    filled.write_bytes(STUFFING[filled.suffix])
    path = joined(tmp_path / name, silent, filled, loud, filled, silent)
    assert streams(path) == ["video"]
    numbers, problem = read_film(path)
    assert_close(numbers, centres(150, 25) + centres(150, 25, first=500) + centres(150, 25))
    assert problem is None
    assert ffmpeg_count(path, 450) == 450


def test_sound_that_appears_later_in_flash(tmp_path):
    path = make_numbered(tmp_path / "v.flv", 120, 1, "flv", sound=120, sound_starts=95)
    content = bytearray(path.read_bytes())
    content[4] = 1  # the header tells of pictures alone
    path.write_bytes(content)
    assert streams(path) == ["video"]
    numbers, problem = read_film(path, Sampling(4.0, (0.5,)))
    assert_close(numbers, centres(120, 1, 4.0))
    assert problem is None


def streams(path: Path) -> list[str]:
    """Which streams FFmpeg knows before it reads on."""
    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


def test_pictures_that_appear_later(tmp_path):
    """A recording that begins with sound alone: until there is a picture, the first one counts."""
    sound, after = (
        make_sound(tmp_path / f"{at}.ts", 8, mpegts_start_pid="257", output_ts_offset=at)
        for at in ("0", "14")
    )
    film = make_numbered(tmp_path / "2v.ts", 60, sound=6, output_ts_offset="8")
    filled = tmp_path / "3v.ts"
    filled.write_bytes(STUFFING[".ts"])
    path = joined(tmp_path / "v.ts", sound, filled, film, filled, after)
    assert streams(path) == ["audio"]
    numbers, problem = read_film(path)
    assert_close(numbers, [0] * 5 + [2, 17, 32, 47, 59])
    assert problem is None


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[(name, "libx264") for name in ("v.mp4", "v.mkv", "v.mov", "v.ts", "v.flv")],
        *[("v.avi", "mpeg4"), ("v.webm", "libvpx"), ("v.wmv", "wmv2")],
    ],
)
def test_a_picture_with_sound_lasts_as_the_sound(tmp_path, name, codec):
    path = make_numbered(tmp_path / name, 1, 1, codec, first=77, sound=20)
    assert read_film(path) == ([77] * 14, None)


def test_the_last_of_some_pictures_stays_while_the_sound_goes_on(tmp_path):
    times = [Fraction(0), Fraction(5), Fraction(12)]
    path = make_numbered(tmp_path / "v.mkv", 3, 1, first=77, sound=20, times=times)
    assert read_film(path) == ([77] * 3 + [78] * 5 + [79] * 6, None)


def test_a_film_ends_before_its_sound(tmp_path):
    path = make_numbered(tmp_path / "v.mkv", 60, sound=20)
    assert read_film(path) == (centres(60, 10), None)


# --- Turned and mirrored --------------------------------------------------------------------------


QUARTERS = np.array([[0, 1], [2, 3]])  # what is where: top left, top right, …
ONE = 1 << 16


def shown(path: Path) -> np.ndarray:
    """Which quarter of the picture is where."""
    (window,) = read_windows(path, Sampling(1.0, (0.5,)))
    return window[0, 56::112, 56::112, 0].astype(int) // 64


def film_of_quarters(path: Path, matrix: tuple[int, ...]) -> Path:
    """An MP4 file with a display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        grey = (QUARTERS * 64 + 32).repeat(32, 0).repeat(32, 1).astype(np.uint8)
        picture = np.stack([grey] * 3, axis=2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 44  # of the track, in its header
    a, b, c, d = matrix
    struct.pack_into(">9i", content, at, a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "right"),
    [
        ((1, 0, 0, 1), QUARTERS),
        ((-1, 0, 0, 1), np.fliplr(QUARTERS)),
        ((1, 0, 0, -1), np.flipud(QUARTERS)),
        ((-1, 0, 0, -1), np.rot90(QUARTERS, 2)),
        ((0, 1, -1, 0), np.rot90(QUARTERS, -1)),  # clockwise, as a phone held upright
        ((0, -1, 1, 0), np.rot90(QUARTERS)),
        ((0, 1, 1, 0), QUARTERS.T),
        ((0, -1, -1, 0), np.rot90(QUARTERS, 2).T),
    ],
)
def test_a_display_matrix_turns_and_mirrors(tmp_path, matrix, right):
    np.testing.assert_array_equal(shown(film_of_quarters(tmp_path / "v.mp4", matrix)), right)


# --- Bounds ---------------------------------------------------------------------------------------


def test_pictures_that_are_too_thin(tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 4000, 16, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(4000, 16, "yuv420p")))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="4000 × 16: too thin"):
        list(read_windows(path, Sampling(1.0, (0.5,))))
