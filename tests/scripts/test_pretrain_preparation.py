"""Cutting long videos into clips, and choosing what to pre-train on."""

import json

import numpy as np
import pytest

from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDbWriter
from scripts import cut_clips, make_pretrain_splits
from scripts.cut_clips import cut_subtitles
from utils.errors import UserError
from utils.files import read_json, read_jsonl


def test_subtitles_are_cut_at_the_borders_and_count_from_the_clips_start():
    subtitles = [
        {"text": "first", "start": 1.5, "end": 4},
        {"text": "over a cut", "start": 58.2, "end": 61},
        {"text": "to the border", "start": 100, "end": 120},
        {"text": "over a whole clip", "start": 119.5, "end": 185},
        {"text": "after the end", "start": 241, "end": 250},
    ]
    clips = cut_subtitles(subtitles, num_clips=4, seconds=60)
    told = [[(sub["text"], sub["start"], sub["end"]) for sub in clip] for clip in clips]
    assert told == [
        [("first", 1.5, 4), ("over a cut", 58.2, 60)],
        [("over a cut", 0, 1), ("to the border", 40, 60), ("over a whole clip", 59.5, 60)],
        [("over a whole clip", 0, 60)],
        [("over a whole clip", 0, 5)],
    ]


def test_awkward_times_stay_in_the_clip_of_their_start():
    subtitles = [{"text": "", "start": 60, "end": 60}, {"text": "", "start": 70, "end": 50}]
    first, second = cut_subtitles(subtitles, num_clips=2, seconds=60)
    assert first == []
    assert [(sub["start"], sub["end"]) for sub in second] == [(0, 0), (10, -10)]


@pytest.fixture
def long_videos(tmp_path):
    features = {"x": np.random.default_rng(0).random((70, 3)).astype(np.float16)}
    features["y.0"] = features["x"][:30]  # exactly one clip
    with FeatureDbWriter(tmp_path / "whole", interval=2) as db:
        for vid, value in features.items():
            db.put(vid, value)
    lines = [
        {"vid_name": "x", "sub": [{"text": "a", "start": 59, "end": 63}]},
        {"vid_name": "y.0", "sub": []},
    ]
    (tmp_path / "subs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return features


def cut(tmp_path, *more):
    files = ("--annotation", tmp_path / "subs.jsonl", "--output", tmp_path / "clips.jsonl")
    cut_clips.main([str(word) for word in (*files, *more)])


def test_features_and_subtitles_of_the_clips(tmp_path, long_videos):
    cut(tmp_path, "--vfeat_db", tmp_path / "whole", "--clip_vfeat_db", tmp_path / "clips")
    clips = FeatureDb(tmp_path / "clips", interval=2)
    assert clips.id2nframe == {"x.0": 30, "x.1": 30, "x.2": 10, "y.0.0": 30}
    assert clips.stored_dtype == np.float16
    joined = np.concatenate([clips[f"x.{number}"] for number in range(3)])
    np.testing.assert_array_equal(joined, long_videos["x"].astype(np.float32))
    lines = [line for _, line in read_jsonl(tmp_path / "clips.jsonl")]
    assert [(line["vid_name"], len(line["sub"])) for line in lines] == [
        ("x.0", 1),
        ("x.1", 1),
        ("x.2", 0),
        ("y.0.0", 0),
    ]


def test_subtitles_alone(tmp_path, long_videos):
    (tmp_path / "frames.json").write_text('{"x": 31, "y.0": 1}')
    cut(tmp_path, "--vid2nframe", tmp_path / "frames.json")
    assert [line["vid_name"] for _, line in read_jsonl(tmp_path / "clips.jsonl")] == [
        "x.0",
        "x.1",
        "y.0.0",
    ]
    (tmp_path / "frames.json").write_text('{"x": 31}')
    with pytest.raises(UserError, match=r"subs\.jsonl:2: no frames of video 'y\.0'"):
        cut(tmp_path, "--vid2nframe", tmp_path / "frames.json")


def test_subtitles_by_the_clips_of_shards(tmp_path, long_videos):
    """Features were cut by convert_videodb.py: only the clips' frames are known, shard by shard."""
    (tmp_path / "shard0.json").write_text('{"x.0": 30, "x.1": 1}')
    (tmp_path / "shard1.json").write_text('{"y.0.0": 30, "y.0.1": 30, "y.0.2": 2}')
    cut(tmp_path, "--vid2nframe", tmp_path / "shard0.json", tmp_path / "shard1.json")
    lines = [line for _, line in read_jsonl(tmp_path / "clips.jsonl")]
    assert [line["vid_name"] for line in lines] == ["x.0", "x.1", "y.0.0", "y.0.1", "y.0.2"]
    assert [len(line["sub"]) for line in lines] == [1, 1, 0, 0, 0]
    (tmp_path / "shard1.json").write_text('{"x.1": 2}')
    with pytest.raises(UserError, match=r"shard1\.json says 2 frames of video 'x\.1'"):
        cut(tmp_path, "--vid2nframe", tmp_path / "shard0.json", tmp_path / "shard1.json")


LECTURE = {"lecture.0": 40, "lecture.1": 40, "lecture.2": 20}  # clips of lecture
PARTS = {"lecture.0.0": 30, "lecture.1.0": 40, "lecture.1.1": 30}  # of lecture.0 and lecture.1


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (LECTURE, LECTURE | {"lecture": 100}),
        (LECTURE | PARTS, LECTURE | PARTS | {"lecture": 100, "lecture.0": 30, "lecture.1": 70}),
        # Whole videos, one of which is called as another's clips are.
        ({"lecture": 90, "lecture.0": 30, "lecture.1": 70}, None),
        ({"lecture": 90, "lecture.0": 40, "lecture.1": 30}, None),
        # Numbers that are no clips': years, parts from 1, of other lengths, written otherwise.
        ({"talk.2019": 40, "talk.2020": 40}, None),
        ({"part.1": 40, "part.2": 40}, None),
        ({"short.0": 20, "short.1": 40}, None),
        ({"film.00": 40, "film.01": 20}, None),
        ({"film.\N{ARABIC-INDIC DIGIT ZERO}": 40}, None),
        ({"long.0": 41}, None),
        # Whole videos beside clips: a name that is there counts.
        ({"other": 7} | LECTURE, {"other": 7, "lecture": 100} | LECTURE),
    ],
)
def test_names_of_clips_and_of_videos_are_told_apart(table, expected):
    assert cut_clips.whole_videos(table, clip_frames=40) == (expected or table)


def test_a_video_that_is_called_as_a_clip_has_its_own_subtitles(tmp_path):
    line = {"vid_name": "lecture.1", "sub": [{"text": " said at 61 s", "start": 61.0, "end": 63.0}]}
    (tmp_path / "subs.jsonl").write_text(json.dumps(line))
    (tmp_path / "frames.json").write_text(json.dumps(LECTURE | PARTS))
    cut(tmp_path, "--vid2nframe", tmp_path / "frames.json", "--frame_length", "1.5")
    assert [line for _, line in read_jsonl(tmp_path / "clips.jsonl")] == [
        {"vid_name": "lecture.1.0", "sub": []},
        {"vid_name": "lecture.1.1", "sub": [{"text": " said at 61 s", "start": 1.0, "end": 3.0}]},
    ]
    (tmp_path / "subs.jsonl").write_text(json.dumps({"vid_name": "lecture", "sub": []}))
    with pytest.raises(UserError, match=r"no frames of video 'lecture' .* of 20 frames"):
        cut(tmp_path, "--vid2nframe", tmp_path / "frames.json", "--frame_length", "3")


def test_clips_hold_whole_frames(tmp_path, long_videos):
    with pytest.raises(UserError, match="no multiple"):
        cut(tmp_path, "--vid2nframe", tmp_path / "none.json", "--clip_interval", "45")
    with pytest.raises(UserError, match="--clip_interval must be positive, not -1"):
        cut(tmp_path, "--vid2nframe", tmp_path / "none.json", "--clip_interval", "-1")
    with pytest.raises(UserError, match="go together"):
        cut(tmp_path, "--vfeat_db", tmp_path / "whole")


def make_corpus(tmp_path, vids, shards):
    with TextDbWriter(tmp_path / "subs.db") as db:
        for vid in vids:
            db.put(vid, {})
        db.write_side("meta.json", {})
    for number, shard in enumerate(shards):
        (tmp_path / f"shard{number}").mkdir()
        counts = dict.fromkeys(shard, 5)
        (tmp_path / f"shard{number}" / "id2nframe.json").write_text(json.dumps(counts))


def split(tmp_path, shards, *more):
    folders = [str(tmp_path / f"shard{number}") for number in range(shards)]
    fixed = ("--name", "x", "--output", str(tmp_path / "splits"), "--vfeat_db", *folders)
    make_pretrain_splits.main([*fixed, "--sub_txt_db", str(tmp_path / "subs.db"), *more])
    return {path.name: read_json(path) for path in sorted((tmp_path / "splits").iterdir())}


def test_splits_share_out_videos_with_subtitles_and_features(tmp_path):
    vids = [f"v{number}" for number in range(50)]
    make_corpus(tmp_path, vids[:45], [vids[5:]])
    (tmp_path / "test.json").write_text(json.dumps(vids[10:12]))
    lists = split(tmp_path, 1, "--val_share", "0.2", "--exclude", str(tmp_path / "test.json"))
    train, val = lists["x_train.json"], lists["x_val.json"]
    assert len(val) == round(0.2 * 38)
    assert sorted(train + val) == sorted(vids[5:10] + vids[12:45])
    again = split(tmp_path, 1, "--val_share", "0.2", "--exclude", str(tmp_path / "test.json"))
    assert again == lists
    other = split(tmp_path, 1, "--val_share", "0.2", "--seed", "1")
    assert other["x_val.json"] != val


def test_a_list_per_shard_and_clips_stay_together(tmp_path):
    clips = [f"v{number}.{clip}" for number in range(20) for clip in range(3)]
    make_corpus(tmp_path, clips, [clips[:30], clips[30:]])
    lists = split(tmp_path, 2, "--clips", "--val_share", "0.1")
    assert set(lists) == {"x_train_0.json", "x_train_1.json", "x_val.json"}
    assert set(lists["x_train_0.json"]) <= set(clips[:30])
    assert set(lists["x_train_1.json"]) <= set(clips[30:])
    assert len(lists["x_val.json"]) == 6
    assert len({clip.partition(".")[0] for clip in lists["x_val.json"]}) == 2
    assert sorted(vid for vids in lists.values() for vid in vids) == sorted(clips)


def test_shards_without_frame_counts(tmp_path):
    vids = [f"v{number}" for number in range(10)]
    make_corpus(tmp_path, vids, [])
    for number, format_ in enumerate(("lmdb", "safetensors")):
        with FeatureDbWriter(tmp_path / f"shard{number}", interval=2, format_=format_) as db:
            for vid in vids[number::2]:
                db.put(vid, np.ones((2, 3), np.float32))
        (tmp_path / f"shard{number}" / "id2nframe.json").unlink()
    lists = split(tmp_path, 2, "--val_share", "0.1")
    assert sorted(vid for some in lists.values() for vid in some) == vids
    (tmp_path / "shard2").mkdir()
    with pytest.raises(UserError, match=r"shard2 has neither id2nframe\.json nor"):
        split(tmp_path, 3)


def test_databases_that_do_not_belong_together(tmp_path):
    make_corpus(tmp_path, ["a", "b"], [["c", "d"]])
    with pytest.raises(UserError, match="belong together"):
        split(tmp_path, 1)
