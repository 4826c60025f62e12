"""Feature databases made from feature databases: other formats, half precision, clips."""

import json

import numpy as np
import pytest

from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from scripts import convert_videodb
from tests.support.databases import feature_db, plain
from utils.errors import UserError
from utils.files import read_json


@pytest.fixture
def published(tmp_path):
    """A database as published, and what it holds."""
    rng = np.random.default_rng(1)
    given = {f"v{n}": rng.random((n + 3, 4)).astype(np.float32) for n in range(6)}
    with FeatureDbWriter(tmp_path / "published" / "tv") as writer:
        for vid, features in given.items():
            writer.put(vid, features)
    return tmp_path / "published" / "tv", given


def convert(source, output, *more):
    words = ("--vfeat_db", source, "--output", output, "--dataset", "tv", *more)
    convert_videodb.main([str(word) for word in words])


def test_to_safetensors_in_half_precision(tmp_path, published, capsys):
    source, given = published
    options = ("--format", "safetensors", "--half", "--workers", "2")
    convert(source, tmp_path, *options)
    db = FeatureDb(tmp_path / "tv")
    assert db.path.name == "resnet_slowfast_1.5_safetensors" and db.stored_dtype == np.float16
    assert db.id2nframe == {vid: len(features) for vid, features in given.items()}
    for vid, features in given.items():
        np.testing.assert_array_equal(db[vid], features.astype(np.float16).astype(np.float32))
    assert read_json(db.path / "meta.json") == {"interval": 1.5, "width": 4, "dtype": "float16"}
    capsys.readouterr()
    convert(source, tmp_path, *options)
    assert "is made already (6 records)" in capsys.readouterr().out
    with pytest.raises(UserError, match="made from other features or with other options"):
        convert(source, tmp_path, "--format", "safetensors")


def test_there_and_back_and_cut_into_clips(tmp_path, published):
    source, given = published
    convert(source, tmp_path / "a", "--format", "safetensors")
    convert(tmp_path / "a" / "tv", tmp_path / "b", "--compress", "--clip_interval", "6")
    db = FeatureDb(tmp_path / "b" / "tv", compressed=True)
    assert db.id2nframe["v5.0"] == 4 and db.id2nframe["v5.1"] == 4
    np.testing.assert_array_equal(np.concatenate([db["v5.0"], db["v5.1"]]), given["v5"])


def test_damaged_features_and_other_widths_are_listed(tmp_path):
    ones = np.ones((3, 4), np.float32)
    values = {"a": plain(ones[:, :2]), "b": plain(ones), "c": plain(ones), "d": b"no map"}
    source = feature_db(tmp_path / "published" / "tv", values)
    counts = {"a": 3, "b": 2, "c": 99, "d": 3}  # of b fewer than rows, of c more
    (source / "id2nframe.json").write_text(json.dumps(counts))
    convert(source, tmp_path, "--half", "--workers", "1")
    failed = convert_videodb.read_pickle(tmp_path / "tv" / "failed_resnet_slowfast_1.5.pkl")
    assert failed["a"] == "2 values a frame, most videos have 4"
    assert list(failed) == ["a", "d"] and "the features of 'd' are damaged" in failed["d"]
    db = FeatureDb(tmp_path / "tv")
    assert {vid: db[vid].shape for vid in db.keys()} == {"b": (2, 4), "c": (3, 4)}  # noqa: SIM118
    assert db.id2nframe == {"b": 2, "c": 3} and db.width == 4
    convert(source, tmp_path, "--half", "--workers", "1")  # is made already


def test_wrong_words(tmp_path, published):
    source, _ = published
    with pytest.raises(UserError, match="would replace itself"):
        convert(source, source.parent)
    with pytest.raises(UserError, match="only LMDB has a compressed variant"):
        convert(source, tmp_path, "--format", "safetensors", "--compress")
    with pytest.raises(UserError, match="either --vfeat_info_file or --vfeat_db"):
        convert(source, tmp_path, "--vfeat_info_file", "some.pkl")
    with pytest.raises(UserError, match="does not exist"):
        convert(source, tmp_path, "--frame_length", "2")
