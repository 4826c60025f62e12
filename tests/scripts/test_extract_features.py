"""extract_features.py with small networks: what it writes, what it keeps, what it refuses."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from data.prepare import video_windows
from data.prepare.extraction import extraction_of
from data.prepare.feature_files import load_features
from data.prepare.find_videos import TOP_FOLDER
from data.prepare.video_frames import Sampling, _windows, read_windows
from data.stores.lmdb_io import FeatureDb
from model.extractors.build import build_extractor
from scripts import collect_video_feature_paths, convert_videodb
from scripts.extract_features import main
from tests.support import REPOSITORY
from tests.support.small_extractors import SmallResNet, SmallSlowFast
from tests.support.videos import forget_source, make_video
from utils.errors import UserError

KINDS = ("resnet", "slowfast")


pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture(scope="module")
def recorded_videos(tmp_path_factory) -> Path:
    """a (4 s), s01/b (1 s), s01/part/c (2.5 s)."""
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "a.mp4", 4)
    make_video(folder / "s01" / "b.mkv", 1)
    make_video(folder / "s01" / "part" / "c.MP4", 2.5, rate=8)
    (folder / "s01" / "b.srt").write_text("no video")
    (folder / "s01" / "._b.mkv").write_text("of another system")
    return folder


@pytest.fixture
def videos(recorded_videos, tmp_path) -> Path:
    return Path(shutil.copytree(recorded_videos, tmp_path / "videos"))


def extract(videos: Path, *more: str, untrained: bool = True) -> Path:
    """Run the script in this process; the folder of the features."""
    output = videos.parent / "features"
    arguments = ["--video_dir", str(videos), "--output", str(output), "--workers", "1"]
    main([*arguments, *(["--random_weights"] if untrained else []), *more])
    return output


def feature_files(features: Path) -> dict[str, Path]:
    return {path.relative_to(features).as_posix(): path for path in sorted(features.rglob("*.npz"))}


def read_all(features: Path) -> dict[str, np.ndarray]:
    return {name: load_features(path) for name, path in feature_files(features).items()}


# --- What it writes -------------------------------------------------------------------------------


def test_files_are_those_that_the_collector_pairs(videos, tmp_path):
    features = extract(videos)
    found = read_all(features)
    places = (f"{TOP_FOLDER}/a", "s01/b", "s01_part/c")
    lengths = dict(zip(places, (3, 1, 2), strict=True))
    assert {name: values.shape for name, values in found.items()} == {
        f"{kind}_features/{place}.npz": (frames, width)
        for kind, width in (("resnet", SmallResNet.WIDTH), ("slowfast", SmallSlowFast.WIDTH))
        for place, frames in lengths.items()
    }
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    target = ["--output", str(tmp_path / "video_db"), "--dataset", "mine"]
    collect_video_feature_paths.main(["--feature_dir", str(features), *target])
    info = str(tmp_path / "video_db" / "mine" / "video_feat_info.pkl")
    convert_videodb.main(["--vfeat_info_file", info, *target])
    db = FeatureDb(tmp_path / "video_db" / "mine")
    assert db.id2nframe == {"a": 3, "b": 1, "c": 2}
    both = [found[f"{kind}_features/{places[0]}.npz"] for kind in KINDS]
    np.testing.assert_array_equal(db["a"], np.concatenate(both, axis=1))


def test_a_feature_is_the_network_of_its_window(videos):
    found = read_all(extract(videos, "--batch_size", "2"))
    for kind in KINDS:
        model = build_extractor(kind, None, torch.device("cpu"), half=False)
        windows = list(read_windows(videos / "a.mp4", Sampling(1.5, model.frame_times)))
        with torch.no_grad():
            expected = torch.cat([model(torch.from_numpy(window)[None]) for window in windows])
        values = found[f"{kind}_features/{TOP_FOLDER}/a.npz"]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
        assert np.abs(values[0] - values[2]).max() > 1e-3  # the video gets brighter


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_half_precision_is_close(kind):
    rng = np.random.default_rng(0)
    model = build_extractor(kind, None, torch.device("cpu"), half=False)
    shape = (2, len(model.frame_times), 224, 224, 3)
    frames = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    found = build_extractor(kind, None, torch.device("cpu"), half=True)(frames)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), model(frames), rtol=0.02, atol=0.02)


def test_several_processes_and_other_batches_make_the_same(videos, tmp_path):
    expected = read_all(extract(videos))
    (tmp_path / "features").rename(tmp_path / "alone")
    found = read_all(extract(videos, "--workers", "2", "--batch_size", "1"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_frames_are_read_as_windows_are_asked_for(tmp_path):
    """A video of any length takes the memory of a few windows."""
    with av.open(str(make_video(tmp_path / "v.mp4", 0.1))) as container:
        image = next(container.decode(video=0))
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield SimpleNamespace(image=image, start=number / 10, end=(number + 1) / 10)

    windows = _windows(endless(), Sampling(1.0, (0.0, 0.5)))
    for seconds in (1, 2, 3):
        next(windows)
        assert len(read) <= 10 * seconds + 1


# --- What made them -------------------------------------------------------------------------------


def small_weights(path: Path, seed: int = 3) -> Path:
    torch.manual_seed(seed)
    torch.save(SmallResNet().network.state_dict(), path)
    return path


def test_what_made_the_features_is_kept_up_to_the_database(videos, tmp_path):
    weights = small_weights(tmp_path / "resnet152-1.pth")
    features = extract(videos, "--interval", "2", "--resnet_weights", str(weights))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    expected = {
        "resnet": {
            "model": "resnet152",
            "weights": "resnet152-1.pth",
            "weights_sha256": digest,
            "interval": 2.0,
            "width": SmallResNet.WIDTH,
        },
        "slowfast": {
            "model": "slowfast_8x8_r50",
            "weights": None,
            "weights_sha256": None,
            "interval": 2.0,
            "width": SmallSlowFast.WIDTH,
        },
    }
    assert json.loads((features / "extraction.json").read_text()) == expected
    database = convert(features, "2")
    assert json.loads((database / "meta.json").read_text()) == {
        "extraction": expected,
        "interval": 2.0,
        "width": SmallResNet.WIDTH + SmallSlowFast.WIDTH,
        "dtype": "float32",
        "parts": {"resnet": SmallResNet.WIDTH, "slowfast": SmallSlowFast.WIDTH},
    }


def convert(features: Path, frame_length: str, *more: str) -> Path:
    """The feature database of a folder of features."""
    target = ["--output", str(features.parent / "video_db"), "--dataset", "mine"]
    collect_video_feature_paths.main(["--feature_dir", str(features), *target])
    folder = features.parent / "video_db" / "mine"
    info = ["--vfeat_info_file", str(folder / "video_feat_info.pkl")]
    convert_videodb.main([*info, *target, "--frame_length", frame_length, *more])
    return folder / f"resnet_slowfast_{frame_length}"


def test_a_database_of_another_interval_is_refused(videos):
    features = extract(videos, "--interval", "2")
    with pytest.raises(UserError, match="cover 2 seconds each; pass --frame_length 2"):
        convert(features, "1.5")


def test_a_database_made_from_other_weights_is_not_taken_for_finished(videos, tmp_path, capsys):
    features = extract(videos)
    database = convert(features, "1.5")
    convert(features, "1.5")
    assert "is made already" in capsys.readouterr().out
    extract(videos, "--force", "--resnet_weights", str(small_weights(tmp_path / "w.pth")))
    with pytest.raises(UserError, match="made from other feature"):
        convert(features, "1.5")
    convert(features, "1.5", "--force")
    (database / "meta.json").unlink()  # as older databases: they say nothing
    assert FeatureDb(database.parent)["a"].shape[0] == 3
    convert(features, "1.5")
    assert "is made already" in capsys.readouterr().out


def test_features_of_unlike_folders_are_not_mixed(videos, tmp_path):
    features = extract(videos)
    other = tmp_path / "other"
    shutil.copytree(features, other)
    for path in [*features.rglob("b.npz"), *other.rglob("a.npz")]:
        path.unlink()
    (other / "extraction.json").unlink()
    files = [str(path) for folder in (features, other) for path in folder.rglob("*.npz")]
    with pytest.raises(UserError, match="made by different networks or weights"):
        extraction_of(files, 1.5)


# --- Again ----------------------------------------------------------------------------------------


def times(features: Path) -> dict[str, int]:
    return {name: path.stat().st_mtime_ns for name, path in feature_files(features).items()}


def test_what_is_there_is_not_made_again(videos, capsys):
    before = times(extract(videos))
    capsys.readouterr()
    assert times(extract(videos)) == before
    assert "0 videos extracted" in capsys.readouterr().out
    (videos / "d.mp4").write_bytes((videos / "a.mp4").read_bytes())
    after = times(extract(videos))
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    assert "1 videos extracted" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "gone", "older", "foreign"])
def test_what_is_not_good_is_made_again(videos, damage):
    features = extract(videos)
    expected, before = read_all(features), times(features)
    name = "slowfast_features/s01/b.npz"
    path = features / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "gone":
        path.unlink()
    elif damage == "older":  # and it does not say which file it is of, as earlier ones
        forget_source(path)
        os.utime(path, (0, 0))
    else:
        np.savez(path, features=np.zeros((9, SmallSlowFast.WIDTH), np.float32))
    extract(videos)
    after = times(features)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {name, "resnet_features/s01/b.npz"}
    np.testing.assert_array_equal(load_features(path), expected[name])


def test_other_weights_or_another_interval_must_be_forced(videos, tmp_path):
    features = extract(videos)
    before = times(features)
    weights = str(small_weights(tmp_path / "w.pth"))
    with pytest.raises(UserError, match="resnet_features was made with weights_sha256 None, not"):
        extract(videos, "--resnet_weights", weights)
    with pytest.raises(UserError, match=r"made with interval 1.5, not 2.0; .* --force"):
        extract(videos, "--interval", "2")
    assert times(features) == before
    extract(videos, "--resnet_weights", weights, "--force")
    assert all(times(features)[name] != before[name] for name in before)
    # The same weights by another name are the same weights.
    shutil.copy(weights, tmp_path / "renamed.pth")
    before = times(features)
    extract(videos, "--resnet_weights", str(tmp_path / "renamed.pth"))
    assert times(features) == before


def test_a_forced_run_that_was_broken_off_goes_on(videos, tmp_path):
    """Files of the old weights are not taken for those of the new ones."""
    features = extract(videos)
    old = (features / "resnet_features" / "s01" / "b.npz").read_bytes()
    weights = ["--resnet_weights", str(small_weights(tmp_path / "w.pth"))]
    new = read_all(extract(videos, *weights, "--force"))
    (features / "resnet_features" / "s01" / "b.npz").write_bytes(old)
    extract(videos, *weights)
    name = "resnet_features/s01/b.npz"
    np.testing.assert_array_equal(read_all(features)[name], new[name])


def test_one_model_after_the_other(videos):
    features = extract(videos, "--models", "resnet")
    assert not (features / "slowfast_features").exists()
    with pytest.raises(UserError, match=r"the resnet features .* cover 1.5 seconds each, not 2"):
        extract(videos, "--models", "slowfast", "--interval", "2")
    before = times(features)
    extract(videos, "--models", "slowfast")
    after = times(features)
    assert {name: after[name] for name in before} == before
    lengths = {name: len(values) for name, values in read_all(features).items()}
    for name in before:
        assert lengths[name] == lengths[name.replace("resnet", "slowfast")]


def test_features_of_unknown_making_are_left_alone(videos):
    features = extract(videos)
    (features / "extraction.json").unlink()
    with pytest.raises(UserError, match="resnet_features holds features and nothing says what"):
        extract(videos)
    extract(videos, "--force")


def test_a_damaged_record_is_named(videos):
    features = extract(videos)
    (features / "extraction.json").write_text('{"resnet": 3}')
    with pytest.raises(UserError, match=r"extraction.json: 'resnet': expected an object"):
        extract(videos)


# --- Videos that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_video_is_listed_and_the_others_go_on(videos, capsys, workers):
    (videos / "bad.mp4").write_bytes(b"no video " * 100)
    features = extract(videos, "--workers", workers)
    assert len(feature_files(features)) == 6
    failed = json.loads((features / "failed.json").read_text())
    assert list(failed) == [str(videos / "bad.mp4")]
    assert failed[str(videos / "bad.mp4")].keys() == {"reason", "seconds", "used"}
    assert "text file" in failed[str(videos / "bad.mp4")]["reason"]
    assert failed[str(videos / "bad.mp4")]["used"] is False
    assert "3 videos extracted" in (printed := capsys.readouterr().out)
    assert "1 failed" in printed
    assert str(features / "failed.json") in printed
    shutil.copy(videos / "a.mp4", videos / "bad.mp4")
    extract(videos)
    assert len(feature_files(features)) == 8
    assert not (features / "failed.json").exists()


def test_a_video_that_breaks_off_leaves_nothing(videos):
    whole = make_video(videos / "long.mp4", 30, movflags="faststart")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 2 // 3])
    features = extract(videos, "--batch_size", "1")
    assert "cut short" in json.loads((features / "failed.json").read_text())[str(whole)]["reason"]
    assert not list(features.rglob("long.npz"))


def test_no_video_can_be_used(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"no video of .*videos can be used; see failed.json"):
        extract(tmp_path / "videos")


def test_features_that_are_not_finite_are_not_kept(videos, tmp_path):
    state = SmallResNet().network.state_dict()
    state["embedder.embedder.normalization.bias"].fill_(3e38)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no video"):
        extract(videos, "--resnet_weights", str(tmp_path / "w.pth"))
    failed = json.loads((tmp_path / "features" / "failed.json").read_text())
    assert all("not finite" in problem["reason"] for problem in failed.values())


# --- Mistakes -------------------------------------------------------------------------------------


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(UserError, match="is no folder; --video_dir must hold the videos"):
        extract(tmp_path / "videos")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.txt").touch()
    with pytest.raises(UserError, match=r"holds no videos \(.mp4, "):
        extract(tmp_path / "videos")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--resnet_weights is missing: download https://.*resnet152-394f9c45.pth .*--random_w"),
        (["--models", "slowfast"], "--slowfast_weights is missing: .*SLOWFAST_8x8_R50.pyth"),
        (["--random_weights", "--resnet_weights", "none.pth"], "weights none.pth do not exist"),
        (["--random_weights", "--half"], "--half needs a GPU"),
        (["--random_weights", "--device", "cuda:99"], "--device cuda:99 cannot be used"),
        (["--random_weights", "--device", "abacus"], "--device abacus cannot be used"),
        (["--random_weights", "--batch_size", "0"], "--batch_size must be at least 1"),
        (["--random_weights", "--interval", "0"], "interval: 0 is not positive"),
        (["--random_weights", "--models", "vgg"], "invalid choice: 'vgg'"),
    ],
)
def test_a_mistake_on_the_command_line(videos, more, message):
    with pytest.raises(UserError, match=message):
        extract(videos, *more, untrained=False)
    assert not (videos.parent / "features").exists()


def test_untrained_networks_are_pointed_out(videos, capsys):
    extract(videos, "--models", "resnet")
    assert "WARNING: resnet is untrained" in capsys.readouterr().out


# --- Kills ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_video_that_kills_its_decoder_is_listed_and_the_others_go_on(videos, monkeypatch):
    parent, read = os.getpid(), video_windows.read_windows

    def deadly(path, *arguments):
        if path.stem == "c":
            assert os.getpid() != parent
            os.kill(os.getpid(), signal.SIGSEGV)
        return (yield from read(path, *arguments))

    monkeypatch.setattr(video_windows, "read_windows", deadly)
    features = extract(videos, "--workers", "2")
    assert {path.stem for path in features.rglob("*.npz")} == {"a", "b"}
    ((path, problem),) = json.loads((features / "failed.json").read_text()).items()
    assert Path(path).stem == "c" and "that decoded it was killed" in problem["reason"]


def test_whatever_a_decoder_raises_is_about_one_video(videos, monkeypatch):
    read = video_windows.read_windows

    def failing(path, *arguments):
        if path.stem == "b":
            raise IndexError("list index out of range")
        return (yield from read(path, *arguments))

    monkeypatch.setattr(video_windows, "read_windows", failing)
    features = extract(videos)
    assert {path.stem for path in features.rglob("*.npz")} == {"a", "c"}
    ((path, problem),) = json.loads((features / "failed.json").read_text()).items()
    assert Path(path).stem == "b"
    assert problem["reason"] == "it cannot be decoded (IndexError: list index out of range)"


def running(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, _, of_session, *_ = path.read_text().rpartition(")")[2].split()
            if int(of_session) == session and state != "Z":
                found.append(path.parent.name)
    return found


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files_and_goes_on(videos):
    for number in range(12):
        shutil.copy(videos / "a.mp4", videos / f"copy{number}.mp4")
    arguments = ["--video_dir", str(videos), "--output", str(videos.parent / "features")]
    arguments.append("--random_weights")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.small_extractors", *arguments, "--workers", "2"],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    features = videos.parent / "features"
    deadline = time.monotonic() + 60
    while len(feature_files(features)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    while alive := running(process.pid):
        assert time.monotonic() < deadline, f"{alive} outlive the run"
        time.sleep(0.05)
    before = times(features)
    assert 3 <= len(before) < 30, "killed too early or too late"
    assert all(len(values) for values in read_all(features).values())
    extract(videos)
    after = times(features)
    assert len(after) == 30
    pairs = {name for name in before if name.replace("resnet", "slowfast") in before}
    assert sum(before[name] == after[name] for name in pairs) >= len(pairs) - 1
