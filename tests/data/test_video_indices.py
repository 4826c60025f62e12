"""``vid2dur_idx.json``: an index is the id of one video, when written, checked and read."""

import shutil

import pytest

import eval_vcmr
import eval_vr
import train_vcmr
from data.video_indices import (
    shared_between_splits,
    split_indices,
    table_faults,
)
from scripts import prepro_sub
from tests.evaluation.test_golden_eval import recorded_run
from utils.errors import UserError
from utils.files import read_json, write_json

FAULTS = {
    "two with one index": ({"a": [1.5, 7], "b": [2, 8], "c": [3, 7]}, "videos a and c share the"),
    "all with one index": (
        {"a": [1, 0], "b": [2, 0], "c": [3, 0], "d": [4, 0]},
        "videos a and b and 2 more share the index 0",
    ),
    "one index in two ways": ({"a": [1.5, 7], "b": [2, 7.0]}, "videos a and b share the index 7"),
    "no index": ({"a": [1.5]}, r"the entry of a must be \[seconds, index\], not \[1\.5\]"),
    "seconds only": ({"a": 1.5}, "the entry of a must be"),
    "more than two": ({"a": [1.5, 7, 8]}, "the entry of a must be"),
    "a text": ({"a": [1.5, "7"]}, "the entry of a must be"),
    "half an index": ({"a": [1.5, 7.5]}, "the entry of a must be"),
    "a truth value": ({"a": [1.5, True]}, "the entry of a must be"),
    "below zero": ({"a": [1.5, -1]}, "the entry of a must be"),
    "too large to keep": ({"a": [1.5, 10**400]}, "the entry of a must be"),
    "infinite": ({"a": [1.5, float("inf")]}, "the entry of a must be"),
    "seconds beyond all": ({"a": [10**400, 7]}, "the entry of a must be"),
    "no seconds": ({"a": [None, 7]}, "the entry of a must be"),
    "endless": ({"a": [float("nan"), 7]}, "the entry of a must be"),
    "null": ({"a": None}, "the entry of a must be"),
    "a list": (["a", "b"], r"it must hold \{video: \[seconds, index\]\}, not \['a', 'b'\]"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_index(name):
    entries, message = FAULTS[name]
    table = {"train": {"a": [1.5, 7]}, "val": entries}
    with pytest.raises(UserError, match=f"^d/idx.json: split val: {message}") as raised:
        split_indices(table, "val", "d/idx.json")
    assert len(str(raised.value)) < 250
    assert split_indices(table, "train", "d/idx.json") == {"a": 7}  # the others can be used
    assert split_indices(table, "test", "d/idx.json") == {}
    assert [fault.split for fault in table_faults(table, "d/idx.json")] == ["val"]


def test_an_index_may_be_written_as_a_float():
    assert split_indices({"val": {"a": [1, 7.0]}}, "val", "idx") == {"a": 7}


TVR = {
    "val": {"a": [1, 7]},
    "test_public": {"b": [1, 8]},
    "test_challenge": {"c": [1, 9], "d": [1, 10]},
}


def test_a_split_that_must_be_there():
    assert split_indices(TVR, "val", "idx", required=True) == {"a": 7}
    assert split_indices(TVR, "test", "idx", required=True) == {
        "b": 8,
        "c": 9,
        "d": 10,
    }
    own = TVR | {"test": {"e": [1, 11]}}
    assert split_indices(own, "test", "idx", required=True) == {"e": 11}
    named = "idx has no split '{}'; it has val, test_public, test_challenge"
    for split in ("dev", "a", ""):
        with pytest.raises(UserError, match=named.format(split)):
            split_indices(TVR, split, "idx", required=True)
    with pytest.raises(UserError, match=r"no split 'test'; it has val, test_public:"):
        split_indices(
            {name: TVR[name] for name in ("val", "test_public")}, "test", "idx", required=True
        )
    videos = {f"video_{number}": [1, number] for number in range(1000)}  # a table without splits
    with pytest.raises(UserError, match=r"no split 'val'; it has video_0, video_1, ") as raised:
        split_indices(videos, "val", "idx", required=True)
    assert len(str(raised.value)) < 400
    shared = TVR | {"test_challenge": {"c": [1, 8]}}
    with pytest.raises(UserError, match="split test: videos b and c share the index 8"):
        split_indices(shared, "test", "idx", required=True)
    with pytest.raises(UserError, match="split test_challenge: the entry of c"):
        split_indices(TVR | {"test_challenge": {"c": 8}}, "test", "idx", required=True)


def test_a_table_that_is_none():
    with pytest.raises(UserError, match=r"idx must hold \{split: \{video"):
        split_indices([], "val", "idx")


def test_splits_that_share_an_index():
    table = {"train": {"a": [1, 0], "b": [2, 1]}, "val": {"a": [1, 0], "c": [2, 1]}, "test": []}
    assert list(shared_between_splits(table)) == [(1, ["b", "c"])]  # a is one video


@pytest.fixture(params=["two with one index", "no index", "a list"])
def damaged(request, world, tmp_path):
    """The recorded subtitles with a useless ``val``, and what is said of it."""
    folder = tmp_path / "damaged.db"
    shutil.copytree(world / "txt_db" / "tv_subtitles.db", folder)
    table = read_json(folder / "vid2dur_idx.json")
    first, second = list(table["val"])[:2]
    spoiled = {
        "two with one index": table["val"] | {second: table["val"][first]},
        "no index": table["val"] | {first: [1.5]},
        "a list": list(table["val"]),
    }
    message = {
        "two with one index": f"videos {first} and {second} share the index",
        "no index": f"the entry of {first} must be",
        "a list": "it must hold",
    }
    write_json(folder / "vid2dur_idx.json", table | {"val": spoiled[request.param]})
    return folder, f"vid2dur_idx.json: split val: {message[request.param]}"


@pytest.mark.golden
def test_writing_refuses(world, tmp_path, damaged):
    words = ["--annotation", world / "ann" / "tv_subtitles.jsonl", "--output", tmp_path / "new.db"]
    words += ["--vid2nframe", world / "ann" / "tv_vid2nframe.json", "--toker", world / "toker"]
    words += ["--vid2dur_idx", damaged[0] / "vid2dur_idx.json"]
    with pytest.raises(UserError, match=damaged[1]):
        prepro_sub.main([str(word) for word in words])
    assert not (tmp_path / "new.db").exists()


@pytest.mark.golden
def test_evaluation_refuses_what_it_reads(expected, world, tmp_path, damaged):
    words = ["--split", "val", "--vfeat_db", world / "video_db" / "tv", "--n_workers", 0]
    words += ["--sub_txt_db", damaged[0], "--checkpoint", 1, "--vfeat_interval", 1.5]
    run = recorded_run(expected, world, "exp_tvr", tmp_path)
    own = ["--query_txt_db", world / "txt_db" / "tvr_val.db", "--output_dir", run]
    with pytest.raises(UserError, match=damaged[1]):
        eval_vcmr.main([str(word) for word in (*words, *own)])
    run = recorded_run(expected, world, "exp_msrvtt_video_sub", tmp_path)
    own = ["--query_txt_db", world / "txt_db" / "msrvtt_val.db", "--output_dir", run]
    metrics = eval_vr.main([str(word) for word in (*words, *own)])  # numbers videos by their names
    assert list(metrics.values())[:4] == [25.0, 100.0, 100.0, 100.0]


@pytest.mark.golden
@pytest.mark.parametrize("checked", [True, False])
def test_training_refuses_at_its_start(tvr_options, tmp_path, damaged, checked):
    options = tvr_options | {"sub_txt_db": str(damaged[0]), "skip_data_check": not checked}
    write_json(tmp_path / "config.json", options)
    message = damaged[1].partition("split val: ")[2]
    with pytest.raises(UserError, match=message):
        train_vcmr.main(["--config", str(tmp_path / "config.json")])
