"""Which subtitle file belongs to which film: names, languages, folders."""

from pathlib import Path

import pytest

from data.prepare.folder_files import list_files
from data.prepare.languages import parse_language
from data.prepare.subtitle_matching import SubtitleMatches, match_subtitles
from utils.errors import UserError


def match(tmp_path: Path, *names: str, films=None, language=None) -> SubtitleMatches:
    """Matches of files of these names, each of another content."""
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    return match_subtitles(tmp_path, films, language)


def chosen(tmp_path: Path, *names: str, films=None, language=None) -> dict[str, str]:
    found = match(tmp_path, *names, films=films, language=language)
    return {film: str(path.relative_to(tmp_path)) for film, path in found.files.items()}


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en", ("en", "")),
        ("ENG", ("en", "")),
        ("en_US", ("en", "us")),
        ("pt-BR", ("pt", "br")),
        ("zh-Hans", ("zh", "hans")),
        ("ger", ("de", "")),
        ("deu", ("de", "")),
        ("fil", ("fil", "")),
        ("iw", ("he", "")),
        ("raw", None),
        ("x", None),
        ("english", None),
        ("", None),
    ],
)
def test_languages(tag, language):
    assert parse_language(tag) == language


@pytest.mark.parametrize(
    "name",
    [
        *(
            "v.srt",
            "v.en.srt",
            "v.EN.srt",
            "v.eng.srt",
            "v.en_US.srt",
            "v.en-GB.srt",
            "v.en-orig.vtt",
        ),
        *("v.en.sdh.srt", "v.en.forced.srt", "v.en.hi.srt", "v.en.cc.ass", "v.forced.en.srt"),
        *("v.mp4.srt", "v.mp4.en.srt", "v.en.2.srt", "v.sdh.srt", "v.und.srt"),
    ],
)
def test_names_of_english_files(tmp_path, name):
    assert chosen(tmp_path, name, films={"v"}, language="en") == {"v": name}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v.de.srt", "not of language en"),
        ("v.hi.srt", "not of language en"),  # Hindi
        ("v.fil.forced.srt", "not of language en"),
        ("w.en.srt", "there is no such video"),
        ("v.draft.srt", "there is no such video"),
        ("v.2.srt", "there is no such video"),
        ("v.en.de.srt", "there is no such video"),
        ("v.sub", "of a format that is not read (convert it to SRT)"),
    ],
)
def test_what_is_passed_over_is_named(tmp_path, name, reason):
    found = match(tmp_path, name, films={"v"}, language="en")
    assert found.files == {}
    assert found.passed_over == {reason: [tmp_path / name]}
    assert list(found.notes()) == [f"passed over, {reason}: {tmp_path / name}"]


def test_a_narrower_language(tmp_path):
    names = ("u.en.srt", "v.en-GB.srt", "w.en_gb.sdh.srt", "x.en-US.srt", "y.srt")
    films = {"u", "v", "w", "x", "y"}
    found = chosen(tmp_path, *names, films=films, language="en-GB")
    assert found == {"v": "v.en-GB.srt", "w": "w.en_gb.sdh.srt", "y": "y.srt"}
    with pytest.raises(UserError, match="--language 'english' is no language"):
        match(tmp_path, language="english")


@pytest.mark.parametrize(
    "names",
    [
        ("v.en.srt", "v.en.forced.srt"),
        ("v.en.srt", "v.en.sdh.srt"),
        ("v.en.sdh.srt", "v.en.forced.srt"),
        ("v.en.cc.srt", "v.en.auto.srt"),
        ("v.en.srt", "v.srt"),
        ("v.srt", "v.forced.srt"),
        ("v.en-US.srt", "v.en-forced.srt"),
        ("v.en.srt", "v.en-US.srt"),
        ("v.en.srt", "v.eng.srt"),
        ("v.en.srt", "v.en.vtt"),
        ("v.srt", "v.vtt"),
        ("a/v.en.srt", "b/v.en.forced.srt"),
    ],
)
def test_of_several_files_the_fullest_is_taken(tmp_path, names):
    best, other = names
    found = match(tmp_path, *reversed(names), films={"v"}, language="en")
    assert found.files == {"v": tmp_path / best}
    assert found.passed_over == {"another file of the same video is taken": [tmp_path / other]}


def test_two_files_that_are_as_good(tmp_path):
    found = match(tmp_path, "a/v.srt", "b/v.srt", "w.srt")
    assert found.files == {"w": tmp_path / "w.srt"}
    assert list(found.failed) == [tmp_path / "a/v.srt", tmp_path / "b/v.srt"]
    assert "are both subtitles of video 'v'; keep one" in found.failed[tmp_path / "a/v.srt"]
    (tmp_path / "b/v.srt").write_bytes((tmp_path / "a/v.srt").read_bytes())
    assert match_subtitles(tmp_path).files["v"] == tmp_path / "a/v.srt"


def test_names_with_dots(tmp_path):
    names = ("interview.raw.srt", "interview.en.srt", "a.b.en.srt", "is.no.srt")
    films = {"interview.raw", "interview", "a.b", "is.no"}
    found = chosen(tmp_path, *names, films=films, language="en")
    assert found == dict(zip(("interview.raw", "interview", "a.b", "is.no"), names, strict=True))


def test_names_tell_the_films_where_none_are_known(tmp_path):
    names = ("v.en.sdh.srt", "w.de.srt", "interview.raw.srt", "x.srt")
    found = chosen(tmp_path, *names)
    assert set(found) == {"v.en.sdh", "w.de", "interview.raw", "x"}
    assert set(chosen(tmp_path, language="en")) == {"v", "interview.raw", "x"}


def test_a_language_that_nobody_asked_for(tmp_path):
    found = match(tmp_path, "v.en.srt", "w.srt", films={"v", "w"})
    assert set(found.files) == {"w"}
    assert list(found.passed_over) == ["its language is not selected (--language)"]


def test_folders(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    match(elsewhere, "film.srt", ".hidden.srt")
    top = tmp_path / "top"
    match(top, "a/b/v.SRT", ".Trash-1000/files/t.srt", "$RECYCLE.BIN/r.srt", "._v.srt", "v.mp4")
    (top / "series").symlink_to(elsewhere)
    (top / "again").symlink_to(top / "a")
    (elsewhere / "back").symlink_to(top)
    (top / "gone.srt").symlink_to(tmp_path / "nothing")
    found = match_subtitles(top)
    assert found.files == {"v": top / "a/b/v.SRT", "film": top / "series/film.srt"}
    assert list(found.failed) == [top / "gone.srt"]
    names = {path.name for path in list_files(top).hidden}
    assert names == {".Trash-1000", "$RECYCLE.BIN", "._v.srt", ".hidden.srt"}


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    whole = Path.iterdir

    def iterdir(folder: Path):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return whole(folder)

    match(tmp_path, "v.srt", "closed/w.srt")
    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = match_subtitles(tmp_path)
    assert found.files == {"v": tmp_path / "v.srt"}
    assert "cannot be read (Permission denied)" in found.failed[tmp_path / "closed"]
