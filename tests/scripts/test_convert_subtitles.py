"""Folders of subtitle files to JSON lines, and their mistakes."""

import json
import re
from pathlib import Path

import pytest

from scripts.convert_subtitles import main
from utils.errors import UserError

SRT = """\
1
00:00:01,000 --> 00:00:02,000
Ada

2
00:00:02,500 --> 00:00:04,000
<i>Hello</i>
"""
CUES = [(" Ada", 1.0, 2.0), (" Hello", 2.5, 4.0)]


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


def report(tmp_path) -> dict:
    """{file: (reason, subtitles)} of the report."""
    rows = json.loads((tmp_path / "out.failed.json").read_text())
    assert all(row["used"] or not row["subtitles"] for row in rows.values())
    return {Path(file).name: (row["reason"], row["subtitles"]) for file, row in rows.items()}


def test_files_in_folders_belong_to_videos_of_their_names(tmp_path):
    write(tmp_path, "s01/one.srt")
    write(tmp_path, "s02/two.VTT", "WEBVTT\n\n00:01.000 --> 00:02.000\nAda\n")
    write(tmp_path, "s02/._two.vtt", "of another system")
    write(tmp_path, "s02/two.mp4", "no subtitles")
    assert convert(tmp_path) == {"one": CUES, "two": CUES[:1]}
    assert not (tmp_path / "out.failed.json").exists()


def test_a_single_file(tmp_path):
    path = write(tmp_path, "one.srt")
    write(tmp_path, "two.srt")
    main(["--input", str(path), "--output", str(tmp_path / "out.jsonl")])
    assert json.loads((tmp_path / "out.jsonl").read_text())["vid_name"] == "one"


def test_one_bad_file_does_not_stop_the_others(tmp_path, capsys):
    write(tmp_path, "a.srt")
    bad = write(tmp_path, "b.srt", "Good morning!\n")
    write(tmp_path, "c.srt", "")
    write(tmp_path, "d.srt", SRT + "\n3\n00:00:09 -->\nlost\n")
    assert convert(tmp_path) == {"a": CUES, "c": [], "d": CUES}
    printed = capsys.readouterr().out
    assert re.search(f"{bad} +failed +0 +it holds no subtitles of a known format", printed)
    assert f"3 files, 1 of them not used: {tmp_path / 'out.failed.json'}" in printed
    said = report(tmp_path)
    assert said["b.srt"][0].startswith("it holds no subtitles of a known format")
    assert {name: used for name, (_, used) in said.items()} == {"b.srt": 0, "c.srt": 0, "d.srt": 2}
    assert "line 10: '00:00:09 -->' cannot be read" in said["d.srt"][0]
    for name in "bcd":
        write(tmp_path, f"{name}.srt")
    convert(tmp_path)
    assert not (tmp_path / "out.failed.json").exists()


def test_nothing_can_be_used(tmp_path, capsys):
    write(tmp_path, "a.srt", "<html>")
    write(tmp_path, "b.srt", "Good morning!\n")
    write(tmp_path, "x/c.srt")
    write(tmp_path, "y/c.srt", SRT.upper())
    with pytest.raises(
        UserError,
        match=r"subtitles of video .c.; .*; none of 4 can be used: see .*out.failed.json",
    ):
        convert(tmp_path)
    assert not (tmp_path / "out.jsonl").exists()
    assert set(report(tmp_path)) == {"a.srt", "b.srt", "c.srt"}
    assert "are both subtitles of video 'c'" in capsys.readouterr().out


def test_an_encoding_for_one_file_spoils_no_other(tmp_path):
    text = SRT.replace("Ada", "Äda mag Käse")
    cues = [(" Äda mag Käse", 1.0, 2.0), CUES[1]]
    write(tmp_path, "a.srt", text, "utf-8-sig")
    write(tmp_path, "b.srt", text, "cp1252")
    write(tmp_path, "c.srt", text, "utf-16")
    write(tmp_path, "d.srt", text)
    expected = {"a": cues, "b": cues, "c": cues, "d": cues}
    assert convert(tmp_path) == expected
    assert report(tmp_path)["b.srt"] == ("read as cp1252, which is a guess", 2)
    assert convert(tmp_path, "--encoding", "cp1252") == expected
    assert report(tmp_path) == {"b.srt": ("read as cp1252", 2), "c.srt": ("read as utf-16", 2)}
    with pytest.raises(UserError, match="--encoding klingon is not known"):
        convert(tmp_path, "--encoding", "klingon")


def test_languages(tmp_path, capsys):
    for name in ("v.en.srt", "v.de.srt", "w.en-GB.sdh.srt", "x.srt"):
        write(tmp_path, name)
    assert set(convert(tmp_path, "--language", "en")) == {"v", "w", "x"}
    printed = capsys.readouterr().out
    assert f"passed over, not of language en: {tmp_path / 'in' / 'v.de.srt'}" in printed
    assert set(convert(tmp_path)) == {"v.en", "v.de", "w.en-GB.sdh", "x"}


def test_videos_without_subtitles_get_a_line_and_files_without_a_video_none(tmp_path, capsys):
    write(tmp_path, "a.srt")
    extra = write(tmp_path, "b.srt")
    write(tmp_path, "d.srt", "Good morning!\n")
    (tmp_path / "frames.json").write_text('{"c": 4, "a": 3, "d": 2}')
    found = convert(tmp_path, "--vid2nframe", str(tmp_path / "frames.json"))
    assert found == {"a": CUES, "c": [], "d": []}
    printed = capsys.readouterr().out
    assert f"there is no such video: {extra}" in printed
    assert "1 videos have no subtitle file, such as c" in printed
    assert set(report(tmp_path)) == {"d.srt"}


def test_no_file_of_any_video(tmp_path):
    write(tmp_path, "a.en.srt")
    (tmp_path / "frames.json").write_text('{"a": 3}')
    with pytest.raises(UserError, match=r"not selected \(--language\): .*a.en.srt; .* pass"):
        convert(tmp_path, "--vid2nframe", str(tmp_path / "frames.json"))


def test_nothing_to_convert(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        convert(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"holds no subtitle files \(.srt, .vtt, .ass"):
        convert(tmp_path)
