"""Databases: published ones read unchanged, damaged ones refused, written ones whole or absent."""

import io
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from data.prepare.work import map_in_chunks
from data.stores import lmdb_environment, records
from data.stores.build_folder import build_folder
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter
from data.stores.records import QueryRecord
from tests.support import REPOSITORY
from tests.support.databases import feature_db, plain, write_values
from utils.errors import UserError
from utils.processes import loader_death


@pytest.fixture
def text_db(tmp_path: Path) -> Path:
    """A text database with the records a and ü, and one side file."""
    path = tmp_path / "some.db"
    with TextDbWriter(path) as db:
        db.put("a", {"input_ids": [1, 2]})
        db.put("ü", {"input_ids": [], "ts": [0.5, 1e-9], "none": None})
        db.write_side("id2len.json", {"a": 2, "ü": 0})
        db.write_side("meta.json", {"CLS": 0})
    return path


def zipped(**entries: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **entries)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------
# Published databases
# --------------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_published_records_decode_as_plain_lmdb_does(world, tmp_path):
    for data in sorted((world / "txt_db").rglob("data.mdb")):
        db = TextDb(data.parent)
        # py-lmdb opens a file once per process, and another reader may hold the original.
        copy = shutil.copy(data, tmp_path / "data.mdb")
        ids = list(db.keys())
        assert len(db) == len(ids) > 0
        records = [db[id_] for id_ in ids]
        environment = lmdb.open(str(Path(copy).parent), readonly=True, lock=False)
        with environment, environment.begin() as transaction:
            for id_, record in zip(ids, records, strict=True):
                raw = lz4.frame.decompress(transaction.get(id_.encode()))
                assert record == msgpack.unpackb(raw, raw=False)


@pytest.mark.golden
def test_published_queries_keep_their_annotation(world):
    for path in sorted((world / "txt_db").glob("tvr_*.db")):
        db = TextDb(path)
        lines = (path / "query_data.jsonl").read_text().splitlines()
        for qid, line in zip(db.side("id2len.json"), lines, strict=True):
            raw = json.loads(line)
            assert db[qid].items() >= raw.items()
            assert db[qid]["qid"] == qid == str(raw["desc_id"])


@pytest.mark.golden
@pytest.mark.parametrize("compressed", [False, True])
def test_published_features_are_those_of_the_extractors(world, compressed):
    db = FeatureDb(world / "video_db" / "tv", compressed=compressed)
    files = {kind: world / "feat" / f"{kind}_features" / "tv" for kind in ("resnet", "slowfast")}
    assert sorted(db.keys()) == sorted(db.id2nframe)
    for vid, num_frames in db.id2nframe.items():
        parts = [np.load(folder / f"{vid}.npz")["features"] for folder in files.values()]
        joined = np.concatenate([part[:num_frames] for part in parts], axis=1)
        features = db[vid]
        assert features.dtype == np.float32 and features.flags.writeable
        assert features.shape == (num_frames, db.width)
        np.testing.assert_array_equal(features, joined.astype(np.float32))


@pytest.mark.golden
def test_parts_of_a_caption_database_have_their_meta_above(world):
    path = sorted((world / "txt_db").glob("tvc_*.db"))[0]
    assert TextDb(path / "cap.db").meta == TextDb(path / "clip.db").meta
    assert "v_range" in TextDb(path / "cap.db").meta


def test_a_special_token_that_is_null_is_lacking(text_db):
    (text_db / "meta.json").write_text('{"SEP": null, "CLS": 0}')
    meta = TextDb(text_db).meta
    assert meta["CLS"] == 0 and "SEP" not in meta
    with pytest.raises(UserError, match="lacks SEP"):
        meta["SEP"]


# --------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------


def test_records_and_side_files(text_db):
    db = TextDb(text_db)
    assert db["ü"] == {"input_ids": [], "ts": [0.5, 1e-9], "none": None}
    assert list(db.keys()) == ["a", "ü"] and len(db) == 2
    assert "a" in db and "b" not in db and "" not in db and "x" * 600 not in db
    assert db.has_side("id2len.json") and db.side("id2len.json") == {"a": 2, "ü": 0}
    assert not db.has_side("query2video.json")
    with pytest.raises(UserError, match=r"some\.db has no query2video\.json"):
        db.side("query2video.json")
    for missing in ("b", "", "x" * 600):
        with pytest.raises(KeyError):
            db[missing]


def test_several_readers_of_one_file(text_db, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(text_db)
    readers = [TextDb(text_db), TextDb(link), pickle.loads(pickle.dumps(TextDb(text_db)))]
    assert [db["a"] for db in readers] == [{"input_ids": [1, 2]}] * 3
    readers[0].close()
    assert readers[1]["a"] == readers[0]["a"]  # others go on, and a closed one opens again


def test_a_huge_map_and_a_read_only_folder(tmp_path):
    value = lz4.frame.compress(msgpack.packb({"a": 1}))
    write_values(tmp_path / "db", {"q": value}, map_size=1 << 40)  # as published ones have
    (tmp_path / "db" / "meta.json").write_text("{}")
    (tmp_path / "db").chmod(0o555)
    assert TextDb(tmp_path / "db")["q"] == {"a": 1}
    assert sorted(path.name for path in (tmp_path / "db").iterdir()) == ["data.mdb", "meta.json"]


def test_nothing_stays_open_before_the_first_read_and_after_close(text_db):
    db = TextDb(text_db)
    lmdb.open(str(text_db), readonly=True, lock=False).close()  # refused while it is open
    assert "a" in db
    with pytest.raises(lmdb.Error, match="already open"):
        lmdb.open(str(text_db), readonly=True, lock=False)
    db.close()
    lmdb.open(str(text_db), readonly=True, lock=False).close()


def test_only_features_are_read_ahead(text_db, tmp_path, monkeypatch):
    folder = feature_db(tmp_path, {"v": plain(np.zeros((2, 3), np.float32))})
    opened, open_ = {}, lmdb.open

    def noting(path, **options):
        opened[Path(path).name] = options["readahead"]
        return open_(path, **options)

    monkeypatch.setattr(lmdb, "open", noting)
    assert "a" in TextDb(text_db) and "v" in FeatureDb(folder)
    assert opened == {"some.db": False, "resnet_slowfast_1.5": True}


def test_a_database_replaced_before_the_first_read(text_db):
    early = TextDb(text_db)
    with TextDbWriter(text_db, force=True) as writer:
        writer.put("new", {})
        writer.write_side("meta.json", {})
    late = TextDb(text_db)
    assert list(early.keys()) == list(late.keys()) == ["new"]


def test_threads_open_a_file_together(text_db):
    db, found = TextDb(text_db), []
    start = threading.Barrier(8)

    def read():
        start.wait()
        found.append(db["a"])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"input_ids": [1, 2]}] * 8


def test_forked_child_reads_what_its_parent_had_open(text_db):
    db = TextDb(text_db)
    assert "a" in db  # opens it here, first

    def read(queue):
        found = (db["a"], TextDb(text_db)["a"])
        # Other tests may have left environments of other files open.
        opened = lmdb_environment._environments.values()
        queue.put((found, [env._pid for env in opened if env._folder == text_db]))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read, args=(queue,))
    child.start()
    found, opened_by = queue.get(timeout=30)
    child.join()
    assert child.exitcode == 0
    assert found == ({"input_ids": [1, 2]}, {"input_ids": [1, 2]})
    assert opened_by == [child.pid]  # not the environment that it inherited
    assert db["a"] == {"input_ids": [1, 2]}


@pytest.mark.parametrize("compressed", [False, True])
def test_features_are_cut_and_half_precision_stays(tmp_path, compressed):
    features = np.arange(12, dtype=np.float16).reshape(4, 3)
    with FeatureDbWriter(tmp_path / "tv", compressed=compressed) as writer:
        writer.put("v", features)
    whole = FeatureDb(tmp_path / "tv", compressed=compressed)
    assert whole.stored_dtype == whole["v"].dtype == np.float16
    np.testing.assert_array_equal(whole["v"], features)
    cut = FeatureDb(tmp_path / "tv", compressed=compressed, max_clip_len=3)
    np.testing.assert_array_equal(cut["v"], whole["v"][:3])
    assert cut.id2nframe == {"v": 4} and cut.width == 3
    assert pickle.loads(pickle.dumps(cut))["v"].shape == (3, 3)


def test_extra_entries_of_an_npz_are_left_alone(tmp_path):
    features = np.ones((2, 3), np.float32)
    value = zipped(features=features, extra=np.array([{"a": 1}], dtype=object))
    folder = feature_db(tmp_path / "tv", {"v": value}, "resnet_slowfast_1.5_compressed")
    np.testing.assert_array_equal(FeatureDb(folder, compressed=True)["v"], features)


def test_safetensors_are_read_where_there_is_no_lmdb(tmp_path, monkeypatch):
    """Several files, in the precision that was given, cut, pickled, and read by a child."""
    monkeypatch.setattr("data.stores.safetensors_io._FILE_BYTES", 40)
    rng = np.random.default_rng(0)
    given = {f"v{n}": rng.random((n + 2, 3)).astype(np.float16) for n in range(5)}
    with FeatureDbWriter(tmp_path / "tv", format_="safetensors") as writer:
        for vid, features in given.items():
            writer.put(vid, features)
    assert len(list(writer.path.glob("*.safetensors"))) == 2
    db = FeatureDb(tmp_path / "tv", max_clip_len=4)
    assert (list(db.keys()), len(db), db.width) == (sorted(given), 5, 3)
    assert db.stored_dtype == db["v4"].dtype == np.float16
    assert db.id2nframe == {vid: len(features) for vid, features in given.items()}
    again = pickle.loads(pickle.dumps(db))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        by_child = pool.map(db.__getitem__, given)
    for (vid, features), childs in zip(given.items(), by_child, strict=True):
        for found in (db[vid], again[vid], childs):
            np.testing.assert_array_equal(found, features[:4].astype(np.float32))
    assert "v9" not in db
    with pytest.raises(UserError, match="no features of video 'v9'"):
        db["v9"]
    with FeatureDbWriter(tmp_path / "tv") as writer:
        writer.put("v0", given["v0"] + 1)
    np.testing.assert_array_equal(FeatureDb(tmp_path / "tv")["v0"], given["v0"] + 1)


def test_damaged_safetensors_are_refused(tmp_path):
    with FeatureDbWriter(tmp_path / "tv", format_="safetensors") as writer:
        writer.put("v", np.ones((3, 2), np.float32))
        with pytest.raises(UserError, match="the id 'v' occurs twice"):
            writer.put("v", np.ones((3, 2), np.float32))
    (file,) = writer.path.glob("*.safetensors")
    whole = file.read_bytes()
    for size in (0, 4, 20, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"00000\.safetensors is damaged or cut short"):
            FeatureDb(tmp_path / "tv")
    file.unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        FeatureDb(tmp_path / "tv")
    with pytest.raises(UserError, match="only LMDB has a compressed variant"):
        FeatureDbWriter(tmp_path / "tv", compressed=True, format_="safetensors")


@pytest.mark.parametrize("interval", [2, 2.0])
def test_interval_is_printed_short(tmp_path, interval):
    feature_db(tmp_path / "how2", {"v": plain(np.ones((1, 2), np.float32))}, "resnet_slowfast_2")
    assert FeatureDb(tmp_path / "how2", interval=interval).path.name == "resnet_slowfast_2"


class CutWhileRead(Dataset):
    """Cuts its database short once it is open, so that the next read kills the process."""

    def __init__(self, db):
        self.db = db

    def __len__(self):
        return 1

    def __getitem__(self, index):
        assert "a" in self.db
        os.truncate(self.db.path / "data.mdb", 8192)
        return [self.db[id_] for id_ in "abc"]


def big_db(path):
    with TextDbWriter(path) as db:
        for id_ in "abc":
            db.put(id_, {"x": random.Random(id_).randbytes(50_000).hex()})
        db.write_side("meta.json", {})
    return TextDb(path)


def test_a_worker_that_a_damaged_database_kills_is_reported_with_its_record(tmp_path):
    dataset = CutWhileRead(big_db(tmp_path / "x.db"))
    with pytest.raises(RuntimeError, match="DataLoader worker") as death:
        list(DataLoader(dataset, num_workers=1, collate_fn=list))
    said = loader_death(death.value)
    assert re.search(r"died \(.+\) while it read '[abc]' of .*x\.db: the file is damaged", said)
    big_db(tmp_path / "y.db").close()
    with pytest.raises(UserError, match=r"killed \(while it read '[abc]' of .*y\.db: damaged"):
        list(map_in_chunks(cut_all, [TextDb(tmp_path / "y.db"), None], 2, total=2, chunk=1))


def cut_all(databases):
    return [CutWhileRead(db)[0] for db in databases if db is not None]


def test_other_deaths_are_no_databases_fault():
    said = loader_death(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. "))
    assert said.startswith("a worker of the loader died (Killed): is there too little memory")
    assert loader_death(RuntimeError("pid 1")) is loader_death(ValueError("x")) is None


def test_a_damaged_tree_is_one_line(tmp_path):
    big_db(tmp_path / "x.db").close()
    with (tmp_path / "x.db" / "data.mdb").open("r+b") as file:
        file.seek(8192)
        file.write(bytes((tmp_path / "x.db" / "data.mdb").stat().st_size - 8192))
    db = TextDb(tmp_path / "x.db")
    for read in (lambda: list(db.keys()), db.first_id):
        with pytest.raises(UserError, match=r"the ids of .*x\.db are damaged \(.*MDB_CORRUPTED"):
            read()


# --------------------------------------------------------------------------------------------------
# Missing and damaged
# --------------------------------------------------------------------------------------------------


def test_missing_files_are_named(text_db, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.db is no database"):
        TextDb(tmp_path / "nowhere.db")
    (text_db / "meta.json").unlink()
    with pytest.raises(UserError, match=r"some\.db has no meta\.json"):
        TextDb(text_db)


def test_truncation_is_seen_before_a_page_is_touched(tmp_path):
    path = tmp_path / "long.db"
    with TextDbWriter(path) as db:
        for i in range(50):
            db.put(f"{i}", {"noise": np.random.default_rng(i).bytes(3000)})
        db.write_side("meta.json", {})
    whole = (path / "data.mdb").read_bytes()
    for size in (0, 100, 4096, 8192, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        (path / "data.mdb").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"long\.db/data\.mdb .*again"):
            TextDb(path)
    (path / "data.mdb").write_bytes(whole)
    assert len(TextDb(path)) == 50


def test_truncated_features_are_refused(tmp_path):
    folder = feature_db(tmp_path / "tv", {"v": plain(np.ones((50, 100), np.float32))})
    data = folder / "resnet_slowfast_1.5" / "data.mdb"
    data.write_bytes(data.read_bytes()[:-8192])
    with pytest.raises(UserError, match="is cut short"):
        FeatureDb(folder)


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        lz4.frame.compress(b"\xc1"),
        lz4.frame.compress(msgpack.packb([1])),
        lz4.frame.compress(msgpack.packb({"a": [1, 2, 3]}))[:-3],
        lz4.frame.compress(msgpack.packb({"a": 1}) + b"more"),
    ],
)
def test_garbage_record_names_database_and_id(tmp_path, value):
    write_values(tmp_path / "bad.db", {"q17": value})
    (tmp_path / "bad.db" / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.db: .*the record of 'q17'"):
        TextDb(tmp_path / "bad.db")["q17"]


HARMFUL = np.array([{"would": "be unpickled"}], dtype=object)


class Touch:
    """Pickles as the order to make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_features_that_are_a_pickle_are_not_executed(tmp_path):
    value = plain(np.array([Touch(tmp_path / "harm")], dtype=object))
    with pytest.raises(UserError, match=r"numbers of type .*O"):
        FeatureDb(feature_db(tmp_path / "tv", {"v": value}))["v"]
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        plain(np.ones((2, 3), np.float32))[:-1],
        plain(np.ones(3, np.float32)),
        plain(np.ones((2, 3), np.int64)),
        plain(HARMFUL),
        msgpack.packb({"other": 1}),
    ],
)
def test_garbage_features_name_database_and_video(tmp_path, value):
    db = FeatureDb(feature_db(tmp_path / "tv", {"vid7": value}))
    with pytest.raises(UserError, match=r"resnet_slowfast_1\.5: the features of 'vid7' are damag"):
        db["vid7"]


def shaped(**parts) -> bytes:
    """A feature record whose array is described by hand."""
    array = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2, 3], b"data": bytes(24)}
    changes = {name.encode(): value for name, value in parts.items()}
    return msgpack.packb({"features": {**array, **changes}}, use_bin_type=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (shaped(type="|O8", data=bytes(range(48))), r"numbers of type '\|O8'"),
        (shaped(shape=[2, 0], data=b""), "damaged"),
        (shaped(shape=[10**9, 3]), "damaged"),
        (shaped(shape=[2, -3]), "damaged"),
        (shaped(data=b"\x00\x00\xc0\x7f" * 6), "hold values that are not finite"),
        (
            msgpack.packb(
                {"features": np.ones((99, 999), np.float32)},
                default=msgpack_numpy.encode,
                use_bin_type=False,
            ),
            "use_bin_type=False",
        ),
    ],
)
def test_features_that_lie_of_themselves(tmp_path, value, said):
    db = FeatureDb(feature_db(tmp_path / "tv", {"vid7": value}))
    with pytest.raises(UserError, match=rf"the features of 'vid7'.*{said}") as refused:
        db["vid7"]
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "it lacks the .* input_ids"),
        ({"input_ids": "text"}, "input_ids: expected a list, got a text"),
        ({"input_ids": [1, -1]}, r"input_ids\[1\]: expected a whole number >= 0"),
        ({"input_ids": [2**63]}, r"input_ids\[0\]: expected a whole number <="),
        ({"input_ids": [1, 100]}, "hold 100, the model's vocabulary has 100 tokens"),
        ({"input_ids": [1], "target": [float("nan"), 2.0]}, "expected a finite number"),
        ({"input_ids": [1], "target": [[1, 2], [3]]}, "expected a list of length"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path, record, said):
    write_values(tmp_path / "q.db", {"q17": lz4.frame.compress(msgpack.packb(record))})
    (tmp_path / "q.db" / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=rf"q\.db: .*{said}") as refused:
        TextDb(tmp_path / "q.db", 100).read("q17", QueryRecord)
    assert "q17" in str(refused.value)


def test_a_record_may_not_unpack_to_more_than_memory_holds(tmp_path):
    bomb = lz4.frame.compress(bytes(records.MAX_RECORD_BYTES + 1))
    write_values(tmp_path / "q.db", {"q17": bomb})
    (tmp_path / "q.db" / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=r"'q17' is damaged .it unpacks to more than 64 MiB"):
        TextDb(tmp_path / "q.db")["q17"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("id2len.json", "[" * 200_000, "expected an object|nested too deeply"),
        ("id2len.json", '{"a": ' + "9" * 5000 + "}", "out of range"),
        ("id2len.json", '{"a": NaN}', "not valid JSON .*NaN"),
        ("id2len.json", '{"a": 2, "ü": "x"}', "'ü': expected"),
        ("vid2len.json", '{"a": 1000000000}', "'a': expected a whole number <= 100000"),
        ("query2video.json", '["a"]', "expected an object, got a list"),
    ],
)
def test_side_files_of_another_kind(text_db, name, text, said):
    (text_db / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}.*({said})") as refused:
        TextDb(text_db).side(name)
    assert len(str(refused.value)) < 600


NPZ = zipped(features=np.random.default_rng(0).normal(size=(20, 30)))


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        NPZ[: len(NPZ) // 2],
        NPZ[:1000] + bytes(100) + NPZ[1100:],
        zipped(other=np.ones((2, 3))),
        zipped(features=HARMFUL),
    ],
)
def test_garbage_npz_names_database_and_video(tmp_path, value):
    folder = feature_db(tmp_path / "tv", {"vid7": value}, "resnet_slowfast_1.5_compressed")
    with pytest.raises(UserError, match="_compressed: the features of 'vid7' are damaged"):
        FeatureDb(folder, compressed=True)["vid7"]


def test_features_of_another_width_are_refused(tmp_path):
    values = {vid: plain(np.ones((2, width), np.float32)) for vid, width in (("a", 3), ("b", 4))}
    db = FeatureDb(feature_db(tmp_path / "tv", values))
    with pytest.raises(UserError, match="'b' have 4 values a frame, those of the first video 3"):
        db["b"]


def test_missing_video_and_version(tmp_path):
    folder = feature_db(tmp_path / "tv", {"v": plain(np.ones((1, 2), np.float32))})
    with pytest.raises(UserError, match=r"resnet_slowfast_1\.5 has no features of video 'w'"):
        FeatureDb(folder)["w"]
    with pytest.raises(UserError, match=r"resnet_slowfast_2 .*holds resnet_slowfast_1\.5\)"):
        FeatureDb(folder, interval=2)
    with pytest.raises(UserError, match="holds no database"):
        FeatureDb(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------


def test_the_map_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_environment, "_FIRST_MAP_BYTES", 1 << 15)
    monkeypatch.setattr(lmdb_environment, "_BATCH_BYTES", 1 << 14)
    noise = {f"{i:03}": {"noise": np.random.default_rng(i).bytes(2000)} for i in range(300)}
    with TextDbWriter(tmp_path / "big.db") as db:
        for id_, record in noise.items():
            db.put(id_, record)
        db.write_side("meta.json", {})
    read = TextDb(tmp_path / "big.db")
    assert {id_: read[id_] for id_ in read.keys()} == noise  # noqa: SIM118 – no mapping
    assert sorted(path.name for path in read.path.iterdir()) == ["data.mdb", "meta.json"]


def test_an_error_leaves_nothing_new_and_what_was_there(text_db):
    before = sorted(text_db.parent.rglob("*"))
    with pytest.raises(ZeroDivisionError), TextDbWriter(text_db, force=True) as db:
        db.put("b", {})
        raise ZeroDivisionError
    with pytest.raises(UserError, match="'b' occurs twice"), TextDbWriter(text_db, True) as db:
        db.put("b", {})
        db.put("b", {})
    with pytest.raises(UserError, match="cannot be an id"), TextDbWriter(text_db, True) as db:
        db.put("", {})
    assert sorted(text_db.parent.rglob("*")) == before
    assert TextDb(text_db)["a"] == {"input_ids": [1, 2]}


def test_a_database_is_replaced_only_with_force(text_db):
    with pytest.raises(UserError, match="exists already; pass --force"), TextDbWriter(text_db):
        pass
    old = TextDb(text_db)
    assert "a" in old
    with TextDbWriter(text_db, force=True) as db:
        db.put("new", {})
        db.write_side("meta.json", {})
    assert list(TextDb(text_db).keys()) == ["new"]
    assert old["a"] == {"input_ids": [1, 2]}  # a reader that had it open goes on with the old one
    assert [path.name for path in text_db.parent.iterdir()] == ["some.db"]


def test_force_never_wipes_another_folder(text_db):
    (text_db.parent / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is no database"), build_folder(text_db.parent, True):
        pass
    assert (text_db.parent / "precious.txt").exists() and text_db.exists()


WRITE_AND_DIE = """
import os, signal, sys
from data.stores.lmdb_io import TextDbWriter
with TextDbWriter(sys.argv[1], force=True) as db:
    for i in range(5000):
        db.put(str(i), {"text": "x" * 1000})
    db.write_side("meta.json", {})
    db.finish()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("there_before", [False, True])
def test_a_killed_writer_leaves_no_database(text_db, there_before):
    if not there_before:
        shutil.rmtree(text_db)
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(text_db)], cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    if there_before:
        assert TextDb(text_db)["a"] == {"input_ids": [1, 2]}
    else:
        assert not text_db.exists()
    with TextDbWriter(text_db, force=True) as db:  # the next one sweeps and succeeds
        db.put("again", {})
        db.write_side("meta.json", {})
    assert list(TextDb(text_db).keys()) == ["again"]
    assert [path.name for path in text_db.parent.iterdir()] == ["some.db"]


def test_two_writers_of_one_database(tmp_path):
    path = tmp_path / "one.db"
    with TextDbWriter(path) as first:
        with pytest.raises(UserError, match="another process builds the same"), TextDbWriter(path):
            pass
        first.put("a", {})
        first.write_side("meta.json", {})
    assert "a" in TextDb(path)


def test_frame_counts_of_versions_must_agree(tmp_path):
    folder = tmp_path / "tv"
    with FeatureDbWriter(folder) as db:
        db.put("v", np.ones((3, 2), np.float32))
    with FeatureDbWriter(folder, compressed=True) as db:
        db.put("v", np.ones((3, 2), np.float32))
        db.put("w", np.ones((4, 2), np.float32))
    assert FeatureDb(folder).id2nframe == {"v": 3, "w": 4}
    contradiction = pytest.raises(UserError, match="says 3 frames of 'v', the features have 2")
    with contradiction, FeatureDbWriter(folder, interval=2) as db:
        db.put("v", np.ones((2, 2), np.float32))
    assert not (folder / "resnet_slowfast_2").exists()
    with FeatureDbWriter(folder, interval=2, recount=True) as db:
        db.put("v", np.ones((2, 2), np.float32))
    assert FeatureDb(folder, interval=2).id2nframe == {"v": 2, "w": 4}
