"""Which files below a folder are videos, and what is said of the others."""

import os
from pathlib import Path

import pytest

from data.prepare.find_videos import TOP_FOLDER, find_videos, shown
from tests.support.videos import private_refused
from utils.errors import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found_names(top: Path) -> dict[str, str]:
    """{path below the folder: folder of its features}."""
    return {
        video.path.relative_to(top).as_posix(): video.folder for video in find_videos(top).videos
    }


def test_folders_and_links_to_folders_are_searched_each_once(tmp_path):
    top, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    touch(
        top / "a.mp4", top / "s" / "t" / "b.MKV", elsewhere / "c.mp4", elsewhere / "deep" / "d.ts"
    )
    (top / "linked").symlink_to(elsewhere)
    (top / "again").symlink_to(top / "s")
    (top / "s" / "up").symlink_to(top)  # a circle
    (elsewhere / "back").symlink_to(top)
    (top / "self").symlink_to(top / "self")
    expected = {
        "a.mp4": TOP_FOLDER,
        "s/t/b.MKV": "s_t",
        "linked/c.mp4": "linked",
        "linked/deep/d.ts": "linked_deep",
    }
    assert found_names(top) == expected
    found = find_videos(top)
    assert not found.unusable and found.other == [top / "self"]


def test_hidden_folders_are_left_out_as_hidden_files_are(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "._a.mp4", tmp_path / ".Trash-1000" / "files" / "x.mp4")
    touch(tmp_path / "$RECYCLE.BIN" / "y.mp4", tmp_path / "@eaDir" / "a.mp4" / "thumb.mp4")
    found = find_videos(tmp_path)
    assert [video.vid for video in found.videos] == ["a"]
    assert list(found.notes()) == ["passed over: 4 hidden files and folders, such as $RECYCLE.BIN"]


@pytest.mark.parametrize("top", [".hidden", "a.b"])
def test_the_folder_itself_may_be_called_as_it_likes(tmp_path, top):
    touch(tmp_path / top / "a.mp4")
    assert found_names(tmp_path / top) == {"a.mp4": TOP_FOLDER}


def test_endings_of_videos_and_others(tmp_path):
    endings = [".gif", ".3g2", ".asf", ".f4v", ".mxf", ".h264", ".m2v", ".y4m", ".rmvb", ".GIF"]
    touch(*(tmp_path / f"v{number}{ending}" for number, ending in enumerate(endings)))
    touch(*(tmp_path / f"v{number}.srt" for number in range(7)))
    touch(tmp_path / "s" / "talk.xyz", tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "README")
    (tmp_path / "folder.mp4").mkdir()
    found = find_videos(tmp_path)
    assert [video.vid for video in found.videos] == [f"v{n}" for n in range(len(endings))]
    assert list(found.notes()) == [
        "passed over: 11 files whose ending is no video's (7 .srt, 2 .jpg, 1 without an ending, "
        "1 .xyz), such as README"
    ]


NAMES = [
    "lecture.0",
    "v1.2 (final) [x]",
    "two  spaces ",
    "line\nbreak",
    "Ünïcode",
    "映画　二",
    "👩‍👩‍👧 family",
    "a'b\"c",
    "-x",
    "x" * 251,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept_as_they_are(tmp_path, name):
    touch(tmp_path / f"{name}.ts")
    (video,) = find_videos(tmp_path).videos
    assert video.vid == name and video.path == tmp_path / f"{name}.ts"
    assert "\n" not in shown(video.path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [(b"caf\xe9.mp4", "its name is no text"), (b"x" * 252 + b".ts", "251 bytes")],
)
def test_names_that_no_database_can_have_are_listed(tmp_path, name, reason):
    touch(tmp_path / "good.mp4", tmp_path / os.fsdecode(name))
    found = find_videos(tmp_path)
    assert [video.vid for video in found.videos] == ["good"]
    ((path, why),) = found.unusable.items()
    assert os.fsencode(path.name) == name and reason in why


def test_a_long_way_of_folders(tmp_path):
    deep = tmp_path.joinpath(*(letter * 80 for letter in "abcde"))
    touch(deep / "v.mp4", deep.parent / "f" / "w.mp4")
    one, other = (video.folder for video in find_videos(tmp_path).videos)
    assert one != other and max(len(one), len(other)) < 250
    assert one.startswith("a" * 80 + "_b")


@pytest.mark.parametrize("names", [("a/x.mp4", "b/x.mp4"), ("x.mp4", "x.mkv")])
def test_two_videos_of_one_name_are_both_listed(tmp_path, names):
    touch(tmp_path / "y.mp4", *(tmp_path / name for name in names))
    found = find_videos(tmp_path)
    assert [video.vid for video in found.videos] == ["y"]
    assert found.unusable.keys() == {tmp_path / name for name in names}
    for reason in found.unusable.values():
        assert "would all be video 'x'; rename all but one" in reason
        assert all(str(tmp_path / name) in reason for name in names)
    assert found.names() == {"x", "y"}


def test_previews_and_second_links_are_not_videos_of_their_own(tmp_path):
    touch(tmp_path / "film.mp4", tmp_path / "film.gif", tmp_path / "cat.gif")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "film.mp4").symlink_to(tmp_path / "film.mp4")
    found = find_videos(tmp_path)
    assert [video.path for video in found.videos] == [tmp_path / "cat.gif", tmp_path / "film.mp4"]
    assert not found.unusable
    assert next(found.notes()).startswith("passed over: 2 previews of videos and second links")


def test_a_link_to_a_video_that_is_not_mounted_is_a_video(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "not mounted" / "a.mp4")
    assert found_names(tmp_path) == {"a.mp4": TOP_FOLDER}


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    touch(tmp_path / "a.mp4", tmp_path / "private" / "b.mp4")
    monkeypatch.setattr(Path, "iterdir", private_refused)
    found = find_videos(tmp_path)
    assert [video.vid for video in found.videos] == ["a"]
    assert found.unread == [tmp_path / "private"]
    assert "cannot be read (Permission denied)" in found.unusable[tmp_path / "private"]


def test_what_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="is no folder; --video_dir must hold the videos"):
        find_videos(tmp_path / "none")
