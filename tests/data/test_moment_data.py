"""Items of moment retrieval: targets in frames, draws of a video's queries, odd databases."""

from collections import Counter

import pytest

from data.loader import ItemKey
from data.stores.lmdb_io import TextDb, TextDbWriter
from data.vcmr import MomentDataset
from tests.support.small_world import CLS, make_source
from utils.errors import UserError

SOURCE = make_source({"a": (10, []), "b": (4, [])})  # frames of 1.5 seconds


def write_db(path, targets, vid="a"):
    """A query database with one query per target."""
    with TextDbWriter(path) as db:
        for number, target in enumerate(targets):
            record = {"qid": f"q{number}", "vid": vid, "input_ids": [10], "target": target}
            db.put(f"q{number}", record)
        ids = [f"q{number}" for number in range(len(targets))]
        db.write_side("id2len.json", dict.fromkeys(ids, 1))
        db.write_side("query2video.json", dict.fromkeys(ids, vid))
        db.write_side("meta.json", {"CLS": CLS})
    return TextDb(path)


@pytest.mark.parametrize(
    ("target", "frames"),
    [
        ([0.0, 3.0], (0, 1)),  # 3 / 1.5 = 2: frames 0 and 1
        ([3.0, 3.2], (2, 3)),  # two frames at least
        ((3.1, 6.1), (2, 4)),  # ceil(4.07) - 1
        ([40.0, 45.0], (9, 9)),
        ([-4.0, 3.0], (0, 1)),
        ([-6.0, -3.0], (0, 1)),
        ([20.0, 10.0], (9, 9)),  # 13 is beyond the last
        ([6.0, 3.0], (4, 5)),
        ([0, 1e9], (0, 9)),
        ([[3.0, 6.0], [0.0, 3.0], [0.0, 3.0]], (0, 1)),  # most annotators
        ([[3.0, 6.0]], (2, 3)),
        (None, (-1, -1)),
    ],
)
def test_targets_in_frames(tmp_path, target, frames):
    data = MomentDataset(write_db(tmp_path / "q.db", [target]), SOURCE)
    assert data[0].targets == [frames]


@pytest.mark.parametrize("target", [[float("nan"), 2.0], [1.0], "1-2", 3, [], [[1.0, 2.0], 3.0]])
def test_what_is_no_moment_is_refused_at_the_start(tmp_path, target):
    db = write_db(tmp_path / "q.db", [None, target])
    with pytest.raises(UserError, match=r"q\.db: target.*the record of 'q1'"):
        MomentDataset(db, SOURCE)


def test_clamped_moments_are_named_once(tmp_path, caplog):
    sound = [[1.0, 2.0]] * 3
    odd = [[-1.0, 2.0], [9.0, 3.0], *[[2.0, 1.0]] * 5]
    MomentDataset(write_db(tmp_path / "q.db", [*sound, *odd, None]), SOURCE)
    (record,) = caplog.records
    said = record.getMessage()
    assert "7 moment(s) have a negative time or end before they start" in said
    assert "(q3 [-1, 2], q4 [9, 3], q5 [2, 1], q6 [2, 1], q7 [2, 1], …)" in said


def test_five_queries_of_a_video(tmp_path):
    """Of seven, five different ones; of three, all and two again at random."""
    many = MomentDataset(write_db(tmp_path / "a.db", [[0, 3]] * 7), SOURCE, sampled_by_q=False)
    draws = [many[ItemKey(0, epoch)].ids for epoch in range(50)]
    assert {len(set(ids)) for ids in draws} == {len(ids) for ids in draws} == {5}
    assert set(Counter(id_ for ids in draws for id_ in ids)) == {f"q{n}" for n in range(7)}
    few = MomentDataset(write_db(tmp_path / "b.db", [[0, 3]] * 3, "b"), SOURCE, sampled_by_q=False)
    draws = [few[ItemKey(0, epoch)].ids for epoch in range(50)]
    assert {len(ids) for ids in draws} == {5}
    assert all(set(ids) == {"q0", "q1", "q2"} for ids in draws)
    assert len({tuple(sorted(ids)) for ids in draws}) == 6  # every choice of two again
