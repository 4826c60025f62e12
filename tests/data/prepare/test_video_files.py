"""What is wrong with a file that is no film, or no whole one: a line that says what to do."""

import re
import zipfile

import av
import numpy as np
import pytest

from data.prepare.video_frames import Problem, VideoError
from tests.support.videos import (
    assert_close,
    centres,
    ffmpeg_count,
    make_numbered,
    make_sound,
    read_film,
)

PAGE = b"<!DOCTYPE html>\n<html><head><title>403</title></head><body>Forbidden</body></html>\n" * 40


def refusal(path) -> str:
    """Why a video cannot be used."""
    with pytest.raises(VideoError) as refused:
        read_film(path)
    assert refused.value.seconds == 0
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- Other files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("v.mp4", b"", "it is empty; download or copy it again"),
        ("v.mp4", PAGE, r"it is a web page \(HTML\), no video: .* download it again"),
        ("v.mkv", b"\xef\xbb\xbf  \r\n<!-- x --><HTML lang=de>", "it is a web page"),
        ("v.mp4", "<html><p>für</p>".encode("latin-1"), "it is a web page"),
        ("v.ts", b"import { a } from './a';\n" * 99, "it is a text file, no video"),
        ("v.mp4", "1\n00:00:01,000 --> 00:00:02,000\nÄ\n".encode(), "it is a text file"),
        ("v.mp4", b'{"error": "not found"}', "it is a text file"),
        ("v.ts", b"#EXTM3U\n#EXTINF:4,\nhttp://x.invalid/1.ts\n", "it is a playlist, no video"),
        ("v.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "it is a text file"),
        ("v.mp4", bytes(9999), "it begins with zeros, as a download that has not ended"),
        ("v.avi", b"%PDF-1.7\n\x80\x81\x82" * 99, "it is a PDF document, no video"),
        ("v.mp4", bytes(range(256)) * 40, r"it cannot be decoded \(Invalid data .*download"),
    ],
)
def test_no_video(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert re.match(reason, refusal(tmp_path / name))


def test_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.mp4", "w") as archive:
        archive.writestr("v.txt", "x")
    assert refusal(tmp_path / "v.mp4") == "it is a ZIP archive, no video; unpack or convert it"


def test_a_file_that_is_not_there(tmp_path):
    assert refusal(tmp_path / "v.mp4") == "it cannot be read (No such file or directory)"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_without_its_index(tmp_path, share):
    """An MP4 file whose index, at its end, was not written or not downloaded."""
    path = make_numbered(tmp_path / "v.mp4", 200)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert re.match(r"its index \(moov\) is missing, .*download or copy it again", refusal(path))


def test_a_name_that_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_numbered(tmp_path / "http:v.mp4", 60)
    assert read_film(path.relative_to(tmp_path)) == (centres(60, 10), None)


# --- No film within -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["braw", "drmi", "encv", "xxxx"])
def test_a_codec_without_a_decoder_is_named(tmp_path, codec):
    path = make_numbered(tmp_path / "v.mov", 10)
    content = path.read_bytes()
    at = content.find(b"stsd") + 16
    path.write_bytes(content[:at] + codec.encode() + content[at + 4 :])
    assert refusal(path).startswith(f"there is no decoder for its codec ({codec})")


@pytest.mark.parametrize("codec", [b"V_BRAW", b"V_XXXX"])
def test_a_codec_that_is_not_known_in_matroska(tmp_path, codec):
    path = make_numbered(tmp_path / "v.mkv", 10, codec="ffv1")
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", codec))
    assert refusal(path).startswith("there is no decoder for its codec (")


def test_sound_alone(tmp_path):
    path = make_sound(tmp_path / "v.mp4", 2)
    assert refusal(path) == "it has no video stream (only audio)"


@pytest.mark.parametrize("name", ["v.mp4", "v.mp3"])
def test_a_song_with_a_cover(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        codec = "libmp3lame" if name.endswith("mp3") else "aac"
        voice = container.add_stream(codec, rate=44100, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        for at in range(0, 44100, 1024):
            kind = voice.codec_context.format.name
            zeros = np.zeros((1, 1024), np.int32 if kind.startswith("s32") else np.float32)
            frame = av.AudioFrame.from_ndarray(zeros, kind, "mono")
            frame.sample_rate, frame.pts = 44100, at
            container.mux(voice.encode(frame))
        container.mux(voice.encode())
    assert refusal(tmp_path / name) == "it has only a cover picture, no film"


# --- Cut short ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [0, 20])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mkv", "libx264", {}),
        ("v.webm", "libvpx", {}),
        ("v.flv", "libx264", {}),
        ("v.avi", "mpeg4", {}),
        ("v.wmv", "wmv2", {}),
        ("v.mp4", "mpeg4", {"movflags": "faststart"}),
        ("v.mov", "mpeg4", {"movflags": "faststart"}),
    ],
)
def test_cut_short(tmp_path, name, codec, options, sound):
    """Used with a warning if half of it is there, else failed; both say how much there is."""
    path = make_numbered(
        tmp_path / name, 500, 25, codec, sound=sound, coding={"g": "25"}, **options
    )
    whole = path.read_bytes()
    assert read_film(path)[1] is None
    path.write_bytes(whole[: len(whole) * 3 // 4])
    numbers, problem = read_film(path)
    assert 7 < len(numbers) < 14
    assert_close(numbers[:-1], centres(500, 25)[: len(numbers) - 1])
    assert re.match(
        r"it is cut short: it ends at 1\d\.\d of (20|19)\.\d seconds; down", problem.reason
    )
    assert problem.used
    assert problem.amount == pytest.approx(len(numbers) * 1.5, abs=1.6)
    assert abs(ffmpeg_count(path, 25 * problem.amount) - 25 * problem.amount) <= 2
    path.write_bytes(whole[: len(whole) * 2 // 5])
    with pytest.raises(
        VideoError, match=r"cut short.*only \d\.\d of \d+\.\d seconds can"
    ) as refused:
        read_film(path)
    assert 0 < refused.value.seconds < 10


@pytest.mark.parametrize("movflags", ["frag_keyframe+empty_moov", "frag_keyframe", "dash"])
def test_fragments_that_break_off(tmp_path, movflags):
    """No header tells their length."""
    path = make_numbered(
        tmp_path / "v.mp4", 500, 25, "mpeg4", coding={"g": "25"}, movflags=movflags
    )
    assert read_film(path) == (centres(500, 25), None)
    content = path.read_bytes()
    last = content.rfind(b"mdat", 0, len(content) * 3 // 4)
    path.write_bytes(content[: last + 200])
    numbers, problem = read_film(path)
    assert 7 < len(numbers) < 14
    assert re.match(r"it is cut short: it breaks off at 1\d\.\d seconds", problem.reason)


def test_a_whole_film_whose_subtitles_last_longer(tmp_path):
    """Matroska's header tells the length of the longest track."""
    path = make_numbered(tmp_path / "v.mkv", 60)
    content = bytearray(path.read_bytes())
    at = content.find(b"\x44\x89\x88") + 3  # the length, a double, in milliseconds
    assert np.frombuffer(content, ">f8", 1, at) == 6000
    content[at : at + 8] = np.array([30_000], ">f8").tobytes()
    path.write_bytes(content)
    assert read_film(path) == (centres(60, 10), None)


# --- Damaged in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mp4", "libx264"), ("v.flv", "libx264"), ("v.mov", "libx264")],
)
def test_a_damaged_packet(tmp_path, name, codec, threads):
    path = make_numbered(tmp_path / name, 360, 30, codec, coding={"g": "30"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    victim = next(p for p in packets if p.is_keyframe and p.pts * p.time_base > 5)
    content[victim.pos + 40 : victim.pos + 104] = b"\xff" * 64
    path.write_bytes(content)
    numbers, problem = read_film(path, threads=threads)
    right = centres(360, 30)
    assert len(numbers) == len(right)
    assert sum(abs(a - b) > 1 for a, b in zip(numbers, right, strict=True)) <= 1
    assert re.match(
        r"it is damaged at [56]\.\d seconds \(.*\); .*re-encode it \(ffmpeg -i", problem.reason
    )
    assert problem == Problem(problem.reason, pytest.approx(11.5, abs=0.6), used=True)


def test_damage_of_most_packets(tmp_path):
    path = make_numbered(tmp_path / "v.mp4", 360, 30, coding={"g": "30"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    for packet in packets[100:]:
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    with pytest.raises(
        VideoError, match=r"damaged at 3\.\d seconds.*only 3\.\d of 12\.0"
    ) as refused:
        read_film(path)
    assert refused.value.seconds == pytest.approx(3.3, abs=0.3)
    for packet in packets:
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    assert re.match("none of its pictures can be decoded .*protected", refusal(path))


def test_pictures_with_errors(tmp_path):
    """The decoder repairs what it can; it is said all the same."""
    path = make_numbered(tmp_path / "v.avi", 300, 25, "mpeg4")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    victim = packets[150]
    content[victim.pos + victim.size // 2 : victim.pos + victim.size] = b"\xff" * (
        victim.size - victim.size // 2
    )
    path.write_bytes(content)
    numbers, problem = read_film(path)
    assert_close(numbers, centres(300, 25))
    assert re.match(r"it is damaged at (5\.9|6\.\d) seconds", problem.reason)
    assert problem.used
