"""Subtitle files of all kinds to JSON lines, and their mistakes."""

import json

import pytest

from scripts.convert_subtitles import main
from utils.errors import UserError

SRT = """\
1
00:00:01,000 --> 00:00:02,500 X1:10 X2:20
<i>Good morning,</i>
{\\an8}dear <font color="#fff">Ada</font>!

2
00:01:00,5 --> 01:00:00.250
{laughs} 3 < 5 &amp; a

3
00:00:00,000 --> 00:00:00,900
<b></b>  &nbsp;

4
02:03,004 --> 02:04,000
\tIt's   12
4
"""
VTT = """\
WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE from 00:00:01.000 to
00:00:02.000 nothing is said

intro
00:05.000 --> 00:07.000 align:start position:0%
<v Bob>Hello<00:00:05.560><c> big</c><00:00:06.000><c.yellow> world</c>
12

00:00:01.000 --> 00:00:02,000
first
by time
"""
ASS = """\
[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:02.00,0:00:03.50,Default,,0,0,0,,{\\pos(1,2)}Good\\Nbye{a note}, Ada
Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,not said
Dialogue: 0,0:00:04.00,0:00:05.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}
"""


def convert(tmp_path, *more):
    """{video: [(text, start, end), …]} of the files in ``in``."""
    main(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out.jsonl"), *more])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["vid_name"] for row in rows] == sorted(row["vid_name"] for row in rows)
    return {
        row["vid_name"]: [(sub["text"], sub["start"], sub["end"]) for sub in row["sub"]]
        for row in rows
    }


def write(tmp_path, name, content=SRT, encoding="utf-8"):
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def test_srt(tmp_path):
    write(tmp_path, "a.srt")
    assert convert(tmp_path) == {
        "a": [
            (" Good morning, dear Ada!", 1.0, 2.5),
            (" {laughs} 3 < 5 &amp; a", 60.5, 3600.25),  # prepro_sub.py unescapes
            (" It's 12 4", 123.004, 124.0),
        ]
    }


def test_vtt(tmp_path):
    write(tmp_path, "a.vtt", VTT)
    assert convert(tmp_path) == {
        "a": [(" first by time", 1.0, 2.0), (" Hello big world 12", 5.0, 7.0)]
    }


def test_ass(tmp_path):
    write(tmp_path, "a.ass", ASS)
    assert convert(tmp_path) == {"a": [(" Good bye, Ada", 2.0, 3.5)]}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_endings_and_byte_order_marks(tmp_path, ending, encoding):
    content = "1\n00:00:01,000 --> 00:00:02,000\nÄda\n".replace("\n", ending)
    write(tmp_path, "a.srt", content, encoding)
    assert convert(tmp_path) == {"a": [(" Äda", 1.0, 2.0)]}


def test_other_encodings_are_named(tmp_path):
    path = write(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nÄda\n", "cp1252")
    with pytest.raises(UserError, match=r"not encoded as utf-8-sig .* --encoding") as caught:
        convert(tmp_path)
    assert str(path) in str(caught.value)
    assert convert(tmp_path, "--encoding", "cp1252") == {"a": [(" Äda", 1.0, 2.0)]}
    with pytest.raises(UserError, match="--encoding klingon is not known"):
        convert(tmp_path, "--encoding", "klingon")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:xx:02,000\nHi\n", r"a.srt:2: '00:00:01,000 --> 00:xx"),
        ("a.srt", SRT + "\n5\n00:00:09 --> 00:00:10\nHi\n", r"a.srt:20: '00:00:09 -->"),
        ("a.vtt", VTT + "\n00:09.000 -->\nHi\n", r"a.vtt:19: '00:09.000 -->' are no times"),
        ("a.srt", "1\n00:00:03,000 --> 00:00:02,000\nHi\n", "a.srt:2: it ends before it starts"),
        ("a.srt", "", "a.srt holds no subtitles"),
        ("a.srt", "Good morning!\n", "a.srt holds no subtitles"),
        ("a.vtt", "WEBVTT\n", "a.vtt holds no subtitles"),
        ("a.ass", "[Script Info]\n[Events]\n", "a.ass holds no subtitles"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, content, message):
    write(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        convert(tmp_path)


def test_files_in_folders_belong_to_videos_of_their_names(tmp_path):
    write(tmp_path, "s01/one.srt")
    write(tmp_path, "s02/two.VTT", VTT)
    write(tmp_path, "s02/._two.vtt", "of another system")
    write(tmp_path, "s02/two.mp4", "no subtitles")
    found = convert(tmp_path)
    assert {vid: len(subtitles) for vid, subtitles in found.items()} == {"one": 3, "two": 2}


def test_a_single_file(tmp_path):
    path = write(tmp_path, "one.srt")
    write(tmp_path, "two.srt")
    main(["--input", str(path), "--output", str(tmp_path / "out.jsonl")])
    assert json.loads((tmp_path / "out.jsonl").read_text())["vid_name"] == "one"


@pytest.mark.parametrize("names", [("a/v.srt", "b/v.srt"), ("v.srt", "v.vtt")])
def test_two_files_for_one_video_are_refused(tmp_path, names):
    for name in names:
        write(tmp_path, name)
    with pytest.raises(UserError, match="are both subtitles of video 'v'") as caught:
        convert(tmp_path)
    assert all(str(tmp_path / "in" / name) in str(caught.value) for name in names)


def test_languages(tmp_path):
    for name in ("v.en.srt", "v.de.srt", "w.en-GB.srt", "x.srt"):
        write(tmp_path, name)
    assert set(convert(tmp_path, "--language", "en")) == {"v", "w", "x"}
    assert set(convert(tmp_path, "--language", "en-GB")) == {"w", "x"}
    assert set(convert(tmp_path, "--language", "de")) == {"v", "x"}
    assert set(convert(tmp_path)) == {"v.en", "v.de", "w.en-GB", "x"}
    write(tmp_path, "v.eng.srt")
    write(tmp_path, "v.srt")
    with pytest.raises(UserError, match="both subtitles of video 'v'"):
        convert(tmp_path, "--language", "en")


def test_videos_without_subtitles_get_a_line_and_files_without_a_video_none(tmp_path, capsys):
    write(tmp_path, "a.srt")
    extra = write(tmp_path, "b.srt")
    (tmp_path / "frames.json").write_text('{"c": 4, "a": 3}')
    found = convert(tmp_path, "--vid2nframe", str(tmp_path / "frames.json"))
    assert {vid: len(subtitles) for vid, subtitles in found.items()} == {"a": 3, "c": 0}
    printed = capsys.readouterr().out
    assert f"there is no such video: {extra}" in printed
    assert "1 videos have no subtitles, such as c" in printed


def test_no_file_of_any_video(tmp_path):
    write(tmp_path, "a.en.srt")
    (tmp_path / "frames.json").write_text('{"a": 3}')
    with pytest.raises(UserError, match=r"a.en.srt would be that of 'a.en'; .* --language"):
        convert(tmp_path, "--vid2nframe", str(tmp_path / "frames.json"))


def test_nothing_to_convert(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        convert(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"holds no subtitle files \(.srt, .vtt, .ass"):
        convert(tmp_path)
