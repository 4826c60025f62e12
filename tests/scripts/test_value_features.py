"""Features as VALUE has them: pairs and single kinds, folders, frame counts of several versions."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import eval_vr
import train_retrieval
from data.prepare.feature_files import read_paths
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from scripts import collect_video_feature_paths, convert_video_db_single_feature, convert_videodb
from scripts.preparation.process import run_script
from tests.support.small_world import OF_WIDTH
from tests.support.value_lists import recorded_lists
from utils.errors import UserError
from utils.files import read_json, write_json

WIDTHS = {"resnet": 2048, "slowfast": 2304, "mil-nce": 1024, "clip-vit": 512}
PAIRS = ["resnet_slowfast", "resnet_mil-nce", "clip-vit_slowfast", "clip-vit_mil-nce"]


def collect(feature_dir, output, *more):
    words = ["--feature_dir", feature_dir, "--output", output, "--dataset", "yc2", "--workers", "1"]
    collect_video_feature_paths.main([*map(str, words), *more])


def convert(output, info, *more):
    words = ["--vfeat_info_file", output / "yc2" / info, "--output", output, "--dataset", "yc2"]
    convert_videodb.main([*map(str, words), "--workers", "1", *more])


def single(feature_dir, output, *more):
    words = ["--feature_dir", feature_dir, "--output", output, "--dataset", "yc2", *more]
    convert_video_db_single_feature.main(list(map(str, words)))


def save(folder, frames, width=3, vid="a_1"):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([frames, width])
    features = rng.random((frames, width)).astype(np.float16)
    np.savez(folder / f"{vid}.npz", features=features)
    return features


def assert_same(made, recorded):
    assert set(made.keys()) == set(recorded.keys())
    assert made.width == recorded.width
    for vid in recorded.keys():  # noqa: SIM118
        rows = [db.read_stored(vid, as_float32) for db in (made, recorded)]
        np.testing.assert_array_equal(*rows)
        np.testing.assert_array_equal(made[vid], recorded[vid])


def as_float32(stored):
    return stored.astype(np.float32)


@pytest.mark.golden_value
@pytest.mark.parametrize("first", ["resnet_slowfast", "clip-vit_slowfast"])
def test_recorded_databases_are_made_of_the_recorded_files(golden_value, tmp_path, first):
    """In either order, the numbers of frames are the least of both versions."""
    world = golden_value / "world"
    for version in sorted(["resnet_slowfast", "clip-vit_slowfast"], key=first.__ne__):
        collect(world / "feat" / "yc2", tmp_path, "--feat_version", version)
        convert(tmp_path, f"{version}_info.pkl", "--feat_version", version)
    for version in ("resnet_slowfast", "clip-vit_slowfast"):
        recorded = FeatureDb(world / "video_db" / "yc2", version)
        made = FeatureDb(tmp_path / "yc2", version)
        assert made.id2nframe == recorded.id2nframe
        assert_same(made, recorded)
    assert not (tmp_path / "yc2" / "id2nframe.json").exists()


@pytest.mark.golden_value
def test_frame_counts_decide_for_a_version_with_a_frame_more(golden_value):
    folder = golden_value / "world" / "video_db" / "yc2"
    counts = read_json(folder / "id2nframe_1.5.json")
    one, other = (FeatureDb(folder, version) for version in PAIRS[::2])
    assert {vid: len(other[vid]) for vid in counts} == counts
    assert {vid: len(one[vid]) for vid in counts} == counts
    assert any(other.read_stored(vid, len) > counts[vid] for vid in counts)


@pytest.mark.golden_value
def test_without_a_version_the_folders_decide(golden_value, tmp_path):
    feat = golden_value / "world" / "feat" / "yc2"
    collect(feat, tmp_path)
    convert(tmp_path, "video_feat_info.pkl")
    recorded = FeatureDb(golden_value / "world" / "video_db" / "yc2")
    assert_same(FeatureDb(tmp_path / "yc2"), recorded)
    assert read_paths(tmp_path / "yc2" / "video_feat_info.pkl") == read_paths(
        tmp_path / "yc2" / "resnet_slowfast_info.pkl"
    )
    single(feat / "clip-vit", tmp_path)
    alone = FeatureDb(tmp_path / "yc2", "clip-vit")
    pair = FeatureDb(golden_value / "world" / "video_db" / "yc2", "clip-vit_slowfast")
    assert alone.width == WIDTHS["clip-vit"]
    assert alone.id2nframe == recorded.id2nframe
    for vid in recorded.id2nframe:
        np.testing.assert_array_equal(alone[vid], pair[vid][:, : alone.width])


@pytest.mark.parametrize("version", PAIRS)
def test_pairs_are_picture_then_clip_features_cut_to_the_shorter(tmp_path, version):
    parts = {
        part: save(tmp_path / "feat" / folder_name(part), 5 + n, WIDTHS[part])
        for n, part in enumerate(WIDTHS)
    }
    collect(tmp_path / "feat", tmp_path, "--feat_version", version)
    info = convert_videodb.read_pickle(tmp_path / "yc2" / f"{version}_info.pkl")
    ((frames, *files, _),) = info.values()
    names = version.split("_")
    assert [Path(file).parent.name for file in files] == [*map(folder_name, reversed(names))]
    convert(tmp_path, f"{version}_info.pkl")
    db = FeatureDb(tmp_path / "yc2", version)
    joined = np.concatenate([parts[part][:frames] for part in names], axis=1)
    assert db.width == sum(WIDTHS[part] for part in names) and db.id2nframe == {"a_1": frames}
    np.testing.assert_array_equal(db["a_1"], joined.astype(np.float32))
    meta = read_json(db.path / "meta.json")
    assert list(meta["parts"].items()) == [(part, WIDTHS[part]) for part in names]


def folder_name(part):
    return "mil-nce-s3d" if part == "mil-nce" else part


@pytest.mark.parametrize(
    ("folders", "made"),
    [
        (("clip-vit", "slowfast"), "clip-vit_slowfast"),
        (("resnet", "mil-nce-s3d"), "resnet_mil-nce"),
        (("resnet", "slowfast", "clip-vit", "mil-nce-s3d"), "resnet_slowfast"),
        (("resnet_features/x", "slowfast_features/x"), "resnet_slowfast"),
    ],
)
def test_the_pair_that_is_there_is_taken(tmp_path, folders, made):
    for folder in folders:
        save(tmp_path / "feat" / folder, 4)
    collect(tmp_path / "feat", tmp_path)
    convert(tmp_path, "video_feat_info.pkl")
    assert (tmp_path / "yc2" / f"{made}_1.5" / "data.mdb").is_file()
    of_value = "/" not in folders[0]
    assert (tmp_path / "yc2" / "id2nframe_1.5.json").exists() is of_value
    assert (tmp_path / "yc2" / "id2nframe.json").exists() is not of_value


def test_several_pairs_without_heros_are_a_choice(tmp_path):
    for folder in ("resnet", "clip-vit", "mil-nce-s3d"):
        save(tmp_path / "feat" / folder, 4)
    with pytest.raises(UserError, match="resnet_mil-nce, clip-vit_mil-nce: choose by --feat_ver"):
        collect(tmp_path / "feat", tmp_path)
    with pytest.raises(UserError, match="slowfast_features does not exist"):
        collect(tmp_path / "feat", tmp_path, "--feat_version", "resnet_slowfast")


def test_what_extract_features_writes_of_clip_is_clip_vit(tmp_path):
    clip = save(tmp_path / "feat" / "clip_features" / "videos", 4, 512)
    slowfast = save(tmp_path / "feat" / "slowfast_features" / "videos", 4)
    collect(tmp_path / "feat", tmp_path, "--feat_version", "clip-vit_slowfast")
    assert not (tmp_path / "yc2" / "video_feat_info.pkl").exists()  # of other features
    convert(tmp_path, "clip-vit_slowfast_info.pkl", "--feat_version", "clip-vit_slowfast")
    joined = FeatureDb(tmp_path / "yc2", "clip-vit_slowfast")["a_1"]
    np.testing.assert_array_equal(joined, np.concatenate([clip, slowfast], axis=1))
    single(tmp_path / "feat", tmp_path, "--feat_version", "clip-vit", "--half")
    assert FeatureDb(tmp_path / "yc2", "clip-vit").stored_dtype == np.float16


def test_a_single_kind(tmp_path):
    s3d = save(tmp_path / "feat" / "mil-nce-s3d", 7, 1024)
    single(tmp_path / "feat" / "mil-nce-s3d", tmp_path, "--frame_length", "2")
    db = FeatureDb(tmp_path / "yc2", "mil-nce", 2)
    np.testing.assert_array_equal(db["a_1"], s3d.astype(np.float32))
    assert read_json(tmp_path / "yc2" / "id2nframe_2.json") == {"a_1": 7}
    single(tmp_path / "feat", tmp_path, "--feat_version", "mil-nce", "--compress")
    assert FeatureDb(tmp_path / "yc2", "mil-nce", compressed=True).width == 1024
    with pytest.raises(UserError, match="holds no files of one kind"):
        single(tmp_path / "feat", tmp_path)
    with pytest.raises(UserError, match="holds no files of one kind"):
        single(tmp_path / "feat", tmp_path, "--feat_version", "clip-vit")


@pytest.mark.parametrize("counts_file", ["id2nframe.json", "id2nframe_1.5.json"])
@pytest.mark.parametrize(("frames", "least"), [((5, 4), 4), ((4, 5), 4), ((5, 5), 5)])
def test_the_least_of_two_versions_counts(tmp_path, caplog, counts_file, frames, least):
    own = counts_file != "id2nframe.json"
    writer = partial(FeatureDbWriter, tmp_path / "yc2", own_counts=own)
    for version, count in zip(PAIRS[::2], frames, strict=True):
        with writer(version) as db:
            db.put("v", np.ones((count, 2), np.float32))
            db.put(version, np.ones((2, 2), np.float32))
    counts = {"v": least, **dict.fromkeys(PAIRS[::2], 2)}
    assert [path.name for path in tmp_path.glob("yc2/id2nframe*")] == [counts_file]
    assert read_json(tmp_path / "yc2" / counts_file) == counts
    for version in PAIRS[::2]:
        db = FeatureDb(tmp_path / "yc2", version)
        assert db.id2nframe == counts and len(db["v"]) == least
    assert ("the lesser is kept" in caplog.text) == (frames[0] != frames[1])


def test_the_intervals_own_counts_decide(tmp_path):
    with FeatureDbWriter(tmp_path / "yc2") as db:
        db.put("v", np.ones((5, 2), np.float32))
    write_json(tmp_path / "yc2" / "id2nframe_1.5.json", {"v": 3})
    write_json(tmp_path / "yc2" / "id2nframe_2.json", {"v": 1})
    assert len(FeatureDb(tmp_path / "yc2")["v"]) == 3
    with FeatureDbWriter(tmp_path / "yc2", "mil-nce") as db:
        db.put("v", np.ones((4, 2), np.float32))
    assert read_json(tmp_path / "yc2" / "id2nframe_1.5.json") == {"v": 3}
    assert read_json(tmp_path / "yc2" / "id2nframe.json") == {"v": 5}


def test_a_script_of_its_own(tmp_path):
    save(tmp_path / "feat" / "clip-vit", 3, 512)
    words = ("--feature_dir", tmp_path / "feat" / "clip-vit", "--output", tmp_path)
    run_script("convert_video_db_single_feature", *words, "--dataset", "yc2")
    assert FeatureDb(tmp_path / "yc2", "clip-vit").id2nframe == {"a_1": 3}


@pytest.mark.golden_value
def test_weights_of_another_width_are_those_that_start_afresh(golden_value):
    """``--reinit_feature_layers`` names what has another shape with features of another width."""
    other = torch.load(golden_value / "expected" / "pretrained_2816.pt", weights_only=True)
    assert other.keys() == OF_WIDTH.keys()
    assert {other[name].shape[axis] for name, axis in OF_WIDTH.items()} == {512 + 2304}


@pytest.mark.golden_value
def test_a_run_on_another_version_is_named_by_an_option(golden_value, tmp_path):
    """Features are as wide as the database says; HERO's weights are of another width."""
    options = recorded_lists(
        golden_value,
        {"yc2r": 2},
        **{"checkpoint": str(golden_value / "expected" / "pretrained.pt")},
        **{"output_dir": str(tmp_path / "run"), "vfeat_version": "clip-vit_slowfast"},
        **{"gradient_accumulation_steps": 1, "num_train_steps": 2, "valid_steps": 2},
        hard_pool_size=[2],
    )
    write_json(tmp_path / "mine.json", options)
    words = ["--config", str(tmp_path / "mine.json")]
    with pytest.raises(UserError, match=r"4352 .* these are 2816 wide: .*--reinit_feature_layers"):
        train_retrieval.main(words)
    metrics = train_retrieval.main([*words, "--reinit_feature_layers"])
    trained = torch.load(tmp_path / "run" / "ckpt" / "model_step_2.pt", weights_only=True)
    assert {trained[name].shape[axis] for name, axis in OF_WIDTH.items()} == {2816}
    run = ["--output_dir", str(tmp_path / "run"), "--checkpoint", "2", "--n_workers", "0"]
    found = eval_vr.main([*run, "--task", "yc2r", "--split", "val"])
    assert found["VR/AveR"] == metrics["yc2r/VR/AveR"]
    with pytest.raises(UserError, match="2816 values wide, these are 4352"):
        eval_vr.main([*run, "--task", "yc2r", "--vfeat_version", "resnet_slowfast"])
