"""Features and the video files that they are of: replaced, touched, moved, removed, damaged."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.prepare import extract_videos, video_windows
from data.prepare.extraction import read_making
from data.prepare.feature_files import load_features
from data.prepare.video_frames import Problem
from model.extractors.build import EXTRACTORS
from scripts import collect_video_feature_paths, convert_videodb
from scripts.extract_features import main
from tests.scripts.test_extract_features import forget_source
from tests.support.small_extractors import use_small_networks
from tests.support.videos import make_video
from utils.errors import UserError
from utils.fingerprints import END_BYTES, fingerprint

DAY = 86_400 * 10**9


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))


@pytest.fixture
def videos(tmp_path) -> Path:
    """a, b and c, of 1, 3 and 5 seconds."""
    for name, seconds in (("a", 1), ("b", 3), ("c", 5)):
        make_video(tmp_path / "videos" / f"{name}.mp4", seconds, rate=4)
    return tmp_path / "videos"


def extract(videos: Path, *more: str, models: str = "resnet") -> dict[str, int]:
    """Run the script; {feature file: features}."""
    features = videos.parent / "features"
    arguments = ["--video_dir", str(videos), "--output", str(features), "--workers", "1"]
    main([*arguments, "--random_weights", "--models", *models.split(), *more])
    return lengths(features)


def lengths(features: Path) -> dict[str, int]:
    """{feature file: how many}."""
    kept = sorted(features.glob("*/*/*.npz"))
    return {path.relative_to(features).as_posix(): len(load_features(path)) for path in kept}


def failed(videos: Path) -> dict[str, dict]:
    """failed.json, by names of files."""
    path = videos.parent / "features" / "failed.json"
    problems = json.loads(path.read_text()) if path.exists() else {}
    return {Path(file).name: problem for file, problem in problems.items()}


def set_date(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


# --- Fingerprints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, END_BYTES, 2 * END_BYTES - 1, 5 * END_BYTES])
def test_a_file_is_known_by_both_ends(tmp_path, size):
    content = np.random.default_rng(0).bytes(size)
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    known = fingerprint(path)
    assert known.size == size
    set_date(path, known.modified - DAY)
    assert known.fits(path)
    for place in {0, size - 1} if size else ():
        other = bytearray(content)
        other[place] ^= 1
        path.write_bytes(other)
        set_date(path, known.modified)
        assert not known.fits(path)
    path.write_bytes(content + b"x")
    assert not known.fits(path)


def test_a_file_that_nobody_touched_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"film")
    known = fingerprint(path)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it is read"))
    assert known.fits(path)


# --- Another film, the same film ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["older", "newer", "of the same date"])
def test_another_film_under_the_name_is_extracted_anew(videos, tmp_path, how):
    assert extract(videos)["resnet_features/videos/a.npz"] == 1
    date = (videos / "a.mp4").stat().st_mtime_ns
    other = make_video(tmp_path / "other.mp4", 10, rate=4)
    set_date(other, date + {"older": -DAY, "newer": DAY, "of the same date": 0}[how])
    other.replace(videos / "a.mp4")
    after = extract(videos)
    assert after == {
        "resnet_features/videos/a.npz": 7,
        "resnet_features/videos/b.npz": 2,
        "resnet_features/videos/c.npz": 4,
    }


def test_a_film_of_the_same_length_in_bytes_is_another(videos):
    """Uncompressed films of one length have one size."""
    for name, codec in (("x", 0), ("y", 255)):
        path = videos / f"{name}.y4m"
        header = b"YUV4MPEG2 W16 H16 F1:1 C420\n"
        frame = b"FRAME\n" + bytes([codec]) * 256 + b"\x80" * 128
        path.write_bytes(header + frame * 2)
        set_date(path, 10**18)
    extract(videos)
    features = videos.parent / "features" / "resnet_features" / "videos"
    before = {name: load_features(features / f"{name}.npz") for name in "xy"}
    assert np.abs(before["x"] - before["y"]).max() > 1e-3
    for source, target in (("x", "swap"), ("y", "x"), ("swap", "y")):
        (videos / f"{source}.y4m").rename(videos / f"{target}.y4m")
    extract(videos)
    np.testing.assert_array_equal(load_features(features / "x.npz"), before["y"])
    np.testing.assert_array_equal(load_features(features / "y.npz"), before["x"])


def test_a_film_that_was_only_touched_or_copied_is_not(videos, capsys):
    extract(videos)
    set_date(videos / "a.mp4", 2 * 10**18)
    shutil.copy(videos / "b.mp4", videos / "copy")
    (videos / "copy").replace(videos / "b.mp4")
    capsys.readouterr()
    extract(videos)
    assert "0 videos extracted (0.0 a minute), 3 existed already" in capsys.readouterr().out


def test_earlier_features_that_note_no_file_count_if_they_are_newer(videos, capsys):
    extract(videos)
    kept = videos.parent / "features" / "resnet_features" / "videos"
    for path in kept.iterdir():
        forget_source(path)
    set_date(kept / "b.npz", 10**18)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    capsys.readouterr()
    extract(videos)
    assert "1 videos extracted" in capsys.readouterr().out
    changed = {path.name for path in kept.iterdir() if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"b.npz"}
    for path in kept.iterdir():
        assert read_making(path)[1].file == fingerprint(videos / f"{path.stem}.mp4")


def test_a_film_that_changes_while_it_is_read_fails(videos, monkeypatch):
    decode = extract_videos.decode_videos

    def change(wanted, *arguments):
        for piece in decode(wanted, *arguments):
            if wanted[piece.video].vid == "b":
                set_date(wanted[piece.video].path, 10**18)
            yield piece

    monkeypatch.setattr(extract_videos, "decode_videos", change)
    assert extract(videos).keys() == {f"resnet_features/videos/{name}.npz" for name in "ac"}
    assert "changed while it was read" in failed(videos)["b.mp4"]["reason"]


def test_features_of_a_film_that_is_replaced_by_a_bad_file_go(videos):
    extract(videos)
    (videos / "a.mp4").write_bytes(b"<html>")
    assert "resnet_features/videos/a.npz" not in extract(videos)
    assert failed(videos).keys() == {"a.mp4"}


def test_features_of_a_film_that_cannot_be_read_now_stay(videos):
    before = extract(videos)
    (videos / "a.mp4").unlink()
    (videos / "a.mp4").symlink_to(videos / "not mounted" / "a.mp4")
    assert extract(videos, "--prune") == before
    assert "cannot be read (No such file" in failed(videos)["a.mp4"]["reason"]


# --- Damaged films --------------------------------------------------------------------------------


@pytest.fixture
def damaged(monkeypatch):
    """b is damaged after 2.5 seconds, and used all the same."""
    read = video_windows.read_windows

    def reading(path, *arguments):
        yield from read(path, *arguments)
        return Problem("damaged\nat 2.5 s", 2.5, used=True) if path.stem == "b" else None

    monkeypatch.setattr(video_windows, "read_windows", reading)


def test_a_damaged_film_is_used_and_listed_every_time(videos, damaged, capsys):
    for _ in range(2):
        assert len(extract(videos)) == 3
        assert failed(videos) == {
            "b.mp4": {"reason": "damaged\nat 2.5 s", "seconds": 2.5, "used": True}
        }
        said = capsys.readouterr().out
        assert "0 failed" in said
        assert any(
            line.split() == ["b.mp4", "used", "2.5", "damaged", "at", "2.5", "s"]
            for line in said.splitlines()
        )
    assert "0 videos extracted" in said


def test_a_damaged_film_that_was_mended_is_extracted_anew(videos, damaged, capsys):
    """Downloaded again, it may have the same size and the same ends."""
    extract(videos)
    set_date(videos / "b.mp4", 10**18)
    capsys.readouterr()
    extract(videos)
    assert "1 videos extracted" in capsys.readouterr().out


def test_the_table_shows_the_failed_first_and_not_too_many(videos, damaged, capsys):
    for number in range(30):
        (videos / f"empty\n{number:02}.mp4").touch()
    extract(videos)
    lines = capsys.readouterr().out.splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith("file "))
    rows = lines[start + 2 :]
    assert rows[0].startswith("'empty\\n00.mp4'") and "failed" in rows[0]
    assert rows[20] == "… and 11 more" and rows[21].endswith("failed.json")
    assert len(failed(videos)) == 31


@pytest.mark.parametrize("made_of", ["{}", "[1]", "no JSON", 7, "x" * 2**20])
def test_a_note_that_is_odd_is_none(tmp_path, made_of):
    path = tmp_path / "v.npz"
    np.savez(path, features=np.zeros((1, 1), np.float32), made_by='{"a": 1}', made_of=made_of)
    is_endless = len(str(made_of)) > 100
    assert read_making(path) == ({} if is_endless else {"a": 1}, None)
    assert read_making(tmp_path / "none.npz") == ({}, None)


# --- Moved and removed films ----------------------------------------------------------------------


def test_features_of_a_moved_film_move_along(videos, capsys):
    extract(videos, models="resnet slowfast")
    before = (videos.parent / "features/slowfast_features/videos/a.npz").stat().st_mtime_ns
    (videos / "season").mkdir()
    (videos / "a.mp4").rename(videos / "season" / "a.mp4")
    capsys.readouterr()
    after = extract(videos, models="resnet slowfast")
    assert "0 videos extracted" in capsys.readouterr().out
    assert [name for name in after if name.endswith("a.npz")] == [
        "resnet_features/season/a.npz",
        "slowfast_features/season/a.npz",
    ]
    moved = videos.parent / "features/slowfast_features/season/a.npz"
    assert moved.stat().st_mtime_ns == before


def test_a_film_that_is_gone_is_named_and_pruned(videos, capsys):
    extract(videos, models="resnet slowfast")
    (videos / "a.mp4").unlink()
    assert len(extract(videos)) == 6
    said = capsys.readouterr().out
    assert "WARNING: features of 1 videos that are gone, such as " in said and "--prune" in said
    assert "resnet_features/videos/a.npz" in said
    assert extract(videos, "--prune").keys() == {
        f"{kind}_features/videos/{name}.npz" for kind in ("resnet", "slowfast") for name in "bc"
    }
    assert "deleted features of 1 videos" in capsys.readouterr().out
    extract(videos)
    assert "videos that are gone" not in capsys.readouterr().out


@pytest.mark.parametrize("left", [("c",), ()])
def test_nothing_is_pruned_when_most_films_are_gone(videos, left):
    before = extract(videos)
    for name in {"a", "b", "c"} - set(left):
        (videos / f"{name}.mp4").unlink()
    with pytest.raises(UserError, match="2 of 3 videos .* are gone" if left else "holds no videos"):
        extract(videos, "--prune")
    assert lengths(videos.parent / "features") == before
    assert len(extract(videos, "--prune_most")) == len(left)


def test_nothing_is_pruned_without_the_folder(videos):
    before = extract(videos)
    videos.rename(videos.parent / "moved")
    for option in ("--prune", "--prune_most"):
        with pytest.raises(UserError, match="is no folder"):
            extract(videos, option)
    assert lengths(videos.parent / "features") == before


def test_nothing_is_pruned_where_a_folder_cannot_be_read(videos, monkeypatch, capsys):
    make_video(videos / "private" / "d.mp4", 1)
    before = extract(videos)
    list_folder = Path.iterdir

    def refuse(path: Path):
        if path.name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"private cannot be read, so it is unknown .* are gone"):
        extract(videos, "--prune")
    assert lengths(videos.parent / "features") == before
    assert failed(videos).keys() == {"private"}
    extract(videos)
    assert "that are gone" not in capsys.readouterr().out


def test_features_of_another_folder_of_videos_are_left_alone(videos, capsys):
    before = extract(videos)
    other = make_video(videos.parent / "more" / "d.mp4", 1).parent
    assert extract(other, "--prune") == before | {"resnet_features/videos/d.npz": 1}
    assert "that are gone" not in capsys.readouterr().out


# --- Up to the database ---------------------------------------------------------------------------


def gather(videos: Path, *more: str) -> Path:
    """The folder of the feature database."""
    target = ["--output", str(videos.parent / "db"), "--dataset", "mine"]
    features = str(videos.parent / "features")
    collect_video_feature_paths.main(["--feature_dir", features, *target, "--workers", "1"])
    info = videos.parent / "db" / "mine" / "video_feat_info.pkl"
    convert_videodb.main(["--vfeat_info_file", str(info), *target, "--workers", "1", *more])
    return info.parent


def test_a_database_of_films_that_were_replaced_or_removed_is_not_taken_for_current(videos, capsys):
    both = "resnet slowfast"
    extract(videos, models=both)
    gather(videos)
    gather(videos)
    assert "is made already" in capsys.readouterr().out
    make_video(videos / "b.mp4", 3, rate=5)  # as many features
    extract(videos, models=both)
    with pytest.raises(UserError, match="made from other features"):
        gather(videos)
    folder = gather(videos, "--force")
    (videos / "a.mp4").unlink()
    extract(videos, "--prune", models=both)
    with pytest.raises(UserError, match="made from other features"):
        gather(videos)
    gather(videos, "--force")
    assert json.loads((folder / "id2nframe.json").read_text()) == {"b": 2, "c": 4}


def test_files_may_lie_as_values_do(videos, capsys):
    """Without sub-folders: they stay where they are when a film is moved."""
    extract(videos, "--layout", "value", models="resnet slowfast")
    features = videos.parent / "features"
    kept = {path: path.stat().st_mtime_ns for path in features.rglob("*.npz")}
    names = {str(path.relative_to(features)) for path in kept}
    assert names == {f"{kind}/{vid}.npz" for kind in ("resnet", "slowfast") for vid in "abc"}
    (videos / "season").mkdir()
    (videos / "a.mp4").rename(videos / "season" / "a.mp4")
    capsys.readouterr()
    extract(videos, "--layout", "value", "--prune", models="resnet slowfast")
    assert "0 videos extracted" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in features.rglob("*.npz")} == kept
    folder = gather(videos)
    assert json.loads((folder / "id2nframe_1.5.json").read_text()) == {"a": 1, "b": 2, "c": 4}
    meta = json.loads((folder / "resnet_slowfast_1.5" / "meta.json").read_text())
    assert meta["extraction"].keys() == {"resnet", "slowfast"}
    (videos / "b.mp4").unlink()
    extract(videos, "--layout", "value", "--prune", models="resnet slowfast")
    assert {path.stem for path in features.rglob("*.npz")} == {"a", "c"}


def test_names_of_all_kinds_reach_the_database(videos):
    for name in ("line\nbreak", "映画　二", "👩‍👩‍👧 x", "lecture.0", "lecture"):
        shutil.copy(videos / "a.mp4", videos / f"{name}.mp4")
    extract(videos, models="resnet slowfast")
    table = json.loads((gather(videos) / "id2nframe.json").read_text())
    assert table.keys() == {path.stem for path in videos.iterdir()}


def test_names_that_are_no_text_are_said_and_stop_nothing(videos, capsys):
    folder = videos / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (videos / "a.mp4").rename(folder / "a.mp4")
    shutil.copy(videos / "b.mp4", folder / os.fsdecode(b"caf\xe9.mp4"))
    assert "resnet_features/caf\\xe9/a.npz" in extract(videos, models="resnet slowfast")
    said = capsys.readouterr().out
    said.encode()
    assert "caf\\udce9.mp4'  failed" in said and "its name is no text; rename it" in said
    table = json.loads((gather(videos) / "id2nframe.json").read_text())
    assert table.keys() == {"a", "b", "c"}


def test_features_of_a_film_that_moved_and_changed_are_named(videos):
    both = "resnet slowfast"
    extract(videos, models=both)
    (videos / "a.mp4").unlink()
    make_video(videos / "season" / "a.mp4", 2, rate=4)
    extract(videos, models=both)
    gather(videos)
    problem = json.loads((videos.parent / "db/mine/corrupted.json").read_text())["a"]
    older, newer = (
        ", ".join(
            f"{videos.parent}/features/{kind}_features/{folder}/a.npz"
            for kind in ("resnet", "slowfast")
        )
        for folder in ("videos", "season")
    )
    assert problem == (
        "several resnet and slowfast files: was the video moved, or has another its name? "
        f"Delete {older}, or else {newer}"
    )
    extract(videos, "--prune", models=both)
    gather(videos, "--force")
    assert json.loads((videos.parent / "db/mine/corrupted.json").read_text()) == {}


def test_kinds_that_are_of_different_films_are_not_paired(videos):
    extract(videos, models="resnet slowfast")
    make_video(videos / "a.mp4", 2, rate=4)
    extract(videos, models="resnet")
    gather(videos)
    problem = json.loads((videos.parent / "db/mine/corrupted.json").read_text())["a"]
    assert "are of different files" in problem and "extract all kinds again" in problem
