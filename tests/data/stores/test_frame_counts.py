"""Feature databases from other hands: longer records, no id2nframe.json, other spellings."""

import json
import pickle
import shutil

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from data.stores import frame_counts
from data.stores.feature_codecs import CompressedCodec, PlainCodec
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from tests.support.databases import feature_db, plain, write_values
from tests.support.rankings import assert_same_ranking, evaluate
from tests.support.recorded import recorded_run
from tests.support.tvr_runs import train
from utils.errors import UserError
from utils.files import read_json, write_json

COUNTS = {"a": 3, "b": 1, "c": 5}
VARIANTS = [{}, {"compressed": True}, {"format_": "safetensors"}]


def write(folder, **variant):
    with FeatureDbWriter(folder, **variant) as writer:
        for vid, count in COUNTS.items():
            writer.put(vid, np.arange(4 * count, dtype=np.float32).reshape(count, 4))
    (folder / "id2nframe.json").unlink()
    return folder


@pytest.fixture
def published_without_counts(world, tmp_path):
    """The recorded features, a database without id2nframe.json."""
    folder = tmp_path / "video_db" / "tv"
    database = "resnet_slowfast_1.5"
    shutil.copytree(world / "video_db" / "tv" / database, folder / database)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("told", "cut", "wanted"), [(4, -1, 4), (4, 2, 2), (9, -1, 5), (9, 7, 5)])
def test_frames_are_the_first_of_the_least_number(tmp_path, variant, told, cut, wanted):
    folder = write(tmp_path / "tv", **variant)
    write_json(folder / "id2nframe.json", COUNTS | {"c": told})
    db = FeatureDb(folder, max_clip_len=cut, **variant)
    assert db["c"].tolist() == np.arange(20.0).reshape(5, 4)[:wanted].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_are_counted_once_and_kept(tmp_path, monkeypatch, caplog, variant):
    folder = write(tmp_path / "tv", **variant)
    assert FeatureDb(folder, **variant).id2nframe == COUNTS
    assert read_json(folder / "id2nframe.json") == COUNTS
    assert "counted the frames of 3 videos, kept in" in caplog.text
    monkeypatch.setattr(frame_counts, "_count", None)
    assert FeatureDb(folder, **variant)["c"].shape == (5, 4)


def test_counts_of_a_folder_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    folder = write(tmp_path / "tv")
    allowed = tmp_path / "run"

    def write_there(path, value):
        if allowed not in path.parents:
            raise PermissionError(13, "Read-only file system", str(path))
        write_json(path, value)

    monkeypatch.setattr(frame_counts, "write_json", write_there)
    assert FeatureDb(folder).id2nframe == COUNTS
    assert "kept nowhere" in caplog.text
    log = allowed / "log"
    db = FeatureDb(folder, counts_folder=log)
    assert db.id2nframe == COUNTS and len(list(log.iterdir())) == 1
    assert list(folder.iterdir()) == [db.path]

    counted = []
    count = frame_counts._count
    monkeypatch.setattr(frame_counts, "_count", lambda *args: counted.append(1) or count(*args))
    assert FeatureDb(folder, counts_folder=log).id2nframe == COUNTS
    assert pickle.loads(pickle.dumps(db)).id2nframe == COUNTS
    assert not counted
    with FeatureDbWriter(folder, force=True) as writer:
        writer.put("d", np.ones((2, 4), np.float32))
    (folder / "id2nframe.json").unlink()
    assert FeatureDb(folder, counts_folder=log).id2nframe == {"d": 2}  # another database now
    assert counted


def test_counts_of_one_interval_are_not_those_of_another(tmp_path):
    folder = write(tmp_path / "tv")
    with FeatureDbWriter(folder, interval=2) as writer:
        writer.put("a", np.ones((2, 4), np.float32))
    (folder / "id2nframe.json").unlink()
    run = tmp_path / "run"
    assert FeatureDb(folder, interval=2, counts_folder=run).id2nframe == {"a": 2}
    assert FeatureDb(folder, counts_folder=run).id2nframe == COUNTS
    assert not (folder / "id2nframe.json").exists()


def test_a_damaged_record_is_not_counted(tmp_path, caplog):
    folder = tmp_path / "tv"
    values = {"a": plain(np.ones((3, 2), np.float32)), "b": b"\x81\xa8features"}
    write_values(folder / "resnet_slowfast_1.5", values)
    assert FeatureDb(folder).id2nframe == {"a": 3}
    assert "1 videos are left out" in caplog.text and "'b'" in caplog.text
    (folder / "id2nframe.json").write_text("[]")
    with pytest.raises(UserError, match=r"id2nframe\.json: expected an object, got a list"):
        FeatureDb(folder)


def test_rows_of_a_record_that_is_packed_otherwise():
    features = np.ones((7, 300), np.float16)
    codec = PlainCodec()
    as_published = codec.encode(features)
    assert codec.rows(memoryview(as_published)) == 7
    late = {"other": np.zeros(5000), "features": features}
    packed = msgpack.packb(late, default=msgpack_numpy.encode, use_bin_type=True)
    assert codec.rows(memoryview(packed)) == 7
    assert CompressedCodec().rows(memoryview(CompressedCodec().encode(features))) == 7
    with pytest.raises(KeyError, match="features"):
        codec.rows(memoryview(msgpack.packb({"other": 3})))


@pytest.mark.parametrize("suffix", ["", "_compressed", "_safetensors"])
def test_both_spellings_of_a_whole_interval_are_found(tmp_path, suffix):
    variant = {"_compressed": {"compressed": True}, "_safetensors": {"format_": "safetensors"}}
    with FeatureDbWriter(tmp_path / "tv", interval=2.0, **variant.get(suffix, {})) as writer:
        writer.put("v", np.ones((2, 3), np.float32))
    assert writer.path.name == f"resnet_slowfast_2{suffix}"
    writer.path.rename(writer.path.with_name(f"resnet_slowfast_2.0{suffix}"))
    db = FeatureDb(tmp_path / "tv", interval=2, compressed=suffix == "_compressed")
    assert db.path.name == f"resnet_slowfast_2.0{suffix}" and db["v"].shape == (2, 3)


def test_of_two_spellings_the_published_one_is_read(tmp_path):
    values = {"v": plain(np.ones((2, 3), np.float32))}
    folder = feature_db(tmp_path / "tv", values, "resnet_slowfast_2.0")
    write_values(folder / "resnet_slowfast_2", {"v": plain(np.zeros((1, 3), np.float32))})
    assert FeatureDb(folder, interval=2.0).path.name == "resnet_slowfast_2"
    for other in (2.5, 1.0):
        with pytest.raises(UserError, match=r"holds resnet_slowfast_2, resnet_slowfast_2\.0\)"):
            FeatureDb(folder, interval=other)


@pytest.mark.golden
def test_a_run_without_frame_counts_is_evaluated(
    expected, world, tmp_path, published_without_counts
):
    run = recorded_run(expected, "exp_tvr_raw", tmp_path)
    evaluate(run, world, "val", "--vfeat_db", str(published_without_counts))
    assert_recorded_results(run, expected)
    counts = read_json(published_without_counts / "id2nframe.json")
    assert counts == read_json(world / "video_db" / "tv" / "id2nframe.json")


@pytest.mark.golden
def test_a_run_without_frame_counts_trains(tvr_options, tmp_path, published_without_counts, caplog):
    videos = {"vfeat_db": str(published_without_counts)}
    assert np.isfinite(train(tvr_options | videos, tmp_path, num_train_steps=1)["loss/total"])
    assert caplog.text.count("counted the frames of 10 videos") == 1


@pytest.mark.golden
def test_records_longer_than_told_are_cut_in_evaluation(expected, world, tmp_path):
    recorded = FeatureDb(world / "video_db" / "tv")
    folder = tmp_path / "long"
    with FeatureDbWriter(folder) as writer:
        for vid in recorded.id2nframe:
            writer.put(vid, np.concatenate([recorded[vid], recorded[vid]]))
    write_json(folder / "id2nframe.json", recorded.id2nframe)
    run = recorded_run(expected, "exp_tvr_raw", tmp_path)
    metrics = evaluate(run, world, "val", "--vfeat_db", str(folder))
    assert_recorded_results(run, expected)
    for name, value in read_json(expected / "metrics.json")["tvr_vcmr"].items():
        assert metrics[f"VCMR/{name}"] == pytest.approx(value, abs=0.01), name


def assert_recorded_results(run, expected):
    name = "results_val/results_1_all.json"
    recorded = json.loads((expected / "exp_tvr_raw" / name).read_text())
    assert_same_ranking(json.loads((run / name).read_text()), recorded)
