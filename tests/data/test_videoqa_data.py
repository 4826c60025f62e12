"""Items and batches of questions and statements, worked out by hand; users' mistakes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.moments import parse_seconds
from data.stores.lmdb_io import TextDb, TextDbWriter
from data.video import Subtitle, VideoItem
from data.videoQA import NO_SPAN, QuestionDataset
from data.violin import StatementDataset
from utils.errors import UserError
from utils.names import partner_id

SEP = 2


class Videos:
    """Two made-up videos: frames of one feature, numbered, with few subtitles."""

    interval, only_available = 2.0, False
    lengths = {"a": 3, "b": 2}  # noqa: RUF012
    features = SimpleNamespace(id2nframe=lengths)

    def seconds(self, vid):
        return self.lengths[vid] * self.interval

    def __call__(self, vid):
        features = np.arange(self.lengths[vid], dtype=np.float32)[:, None] + ord(vid)
        subtitles = {
            "a": [Subtitle([SEP, 10, 11], [0, 1]), Subtitle([SEP, 12], []), Subtitle([SEP], [2])],
            "b": [Subtitle([SEP, 13], [1])],
        }
        return VideoItem(vid, features, subtitles[vid])

    def require(self, vids, wanted_by):
        missing = set(vids) - set(self.lengths)
        if missing:
            raise UserError(f"{wanted_by} wants {missing}")
        return list(vids)


def write_db(path, records):
    """A database of records; their lengths and videos follow from them."""

    def length(ids):
        return [len(part) for part in ids] if isinstance(ids[0], list) else len(ids)

    with TextDbWriter(path) as writer:
        for qid, record in records.items():
            writer.put(qid, {"qid": qid} | record)
        lengths = {qid: length(record["input_ids"]) for qid, record in records.items()}
        writer.write_side("id2len.json", lengths)
        videos = {qid: record["vid"] for qid, record in records.items() if "vid" in record}
        writer.write_side("query2video.json", videos)
        writer.write_side("meta.json", {"SEP": SEP})
    return TextDb(path)


def question(vid="a", ts="0-3.9", target=1, parts=((5, 6), (7,), (8, 9))):
    return {"vid": vid, "ts": ts, "target": target, "input_ids": [list(part) for part in parts]}


def statement(tokens, label, vid="a"):
    return {"vid": vid, "target": label, "input_ids": list(tokens)}


@pytest.mark.parametrize(
    ("ts", "seconds"),
    [
        ("24.25-26.21", (24.25, 26.21)),
        ("0-7", (0.0, 7.0)),
        ("NaN-NaN", None),
        ("3.5-nan", None),
        ("inf-4", None),
        ("12", None),
        ("1-2-3", None),
        ("", None),
        (None, None),
        ("-3.5-4", (-3.5, 4.0)),
        ("5-2", (5.0, 2.0)),
        ([1.5, 4], (1.5, 4)),
        ([1.5, float("nan")], None),
    ],
)
def test_seconds_of_a_question(ts, seconds):
    assert parse_seconds(ts) == seconds


def test_clamped_spans_are_named_once(tmp_path, caplog):
    questions = {"q1": question(ts="-8-3"), "q2": question(ts="0-2"), "q3": question(ts="5-2")}
    QuestionDataset(write_db(tmp_path / "q.db", questions), Videos())
    (record,) = caplog.records
    assert "2 moment(s)" in record.getMessage()
    assert "(q1 [-8, 3], q3 [5, 2])" in record.getMessage()


def test_a_question_with_its_answers(tmp_path):
    data = QuestionDataset(write_db(tmp_path / "q.db", {"q1": question()}), Videos())
    item = data[0]
    assert item.ids == ["q1"] and item.targets == [1]
    assert item.texts == [[SEP, 5, 6, SEP, 7], [SEP, 5, 6, SEP, 8, 9]]
    assert item.span == (0, 1)  # seconds 0 … 3.9 of frames of 2 s
    assert item.video.num_frames == 3


@pytest.mark.parametrize(
    ("ts", "span"),
    [
        ("4.1-4.2", (2, 2)),
        ("2-90", (1, 2)),
        ("90-95", (2, 2)),
        ("NaN-NaN", NO_SPAN),
        ("-8--3", (0, 1)),
        ("3-1", (1, 2)),
    ],
)
def test_spans_stay_within_the_video(tmp_path, ts, span):
    data = QuestionDataset(write_db(tmp_path / "q.db", {"q1": question(ts=ts)}), Videos())
    assert data[0].span == span


def test_a_batch_of_questions(tmp_path):
    records = {"q1": question(), "q2": question("b", "NaN-NaN", 0, ((5,), (7,), (8,)))}
    data = QuestionDataset(write_db(tmp_path / "q.db", records), Videos())
    batch = data.collate([data[0], data[1]])
    assert batch.ids == ["q1", "q2"]
    assert batch.targets.tolist() == [1, 0]
    assert batch.spans.tolist() == [[0, 1], [-1, -1]]
    assert batch.counts == {"qa": 2, "st_ed": 1}
    candidates = batch.candidates
    assert candidates.copies == 2
    assert candidates.video.features[:, 0].tolist() == [97, 98, 99, 98, 99]  # once
    assert candidates.video.layout.lengths.tolist() == [3, 2]
    # Subtitles with frames, once per answer: question, then answer, then subtitle.
    subtitles = candidates.video.subtitles
    assert subtitles.layout.lengths.tolist() == [2 + 8, 1 + 6, 2 + 9, 1 + 7, 1 + 6, 1 + 6]
    assert subtitles.slot_frames.tolist() == [0, 1, 2, 0, 1, 2, 4, 4]
    assert subtitles.slot_targets.tolist() == [0, 1, 2, 5, 6, 7, 4, 9]  # copy 1 begins at row 5
    texts = subtitles.token_ids.split([8, 6, 9, 7, 6, 6])
    assert texts[0].tolist() == [SEP, 10, 11, SEP, 5, 6, SEP, 7]
    assert texts[3].tolist() == [SEP, SEP, 5, 6, SEP, 8, 9]
    assert texts[4].tolist() == [SEP, 13, SEP, 5, SEP, 7]
    # In time: all frames of the copy, then question and answer.
    temporal = candidates.temporal
    assert temporal.layout.lengths.tolist() == [3 + 5, 3 + 6, 2 + 4, 2 + 4]
    assert temporal.slot_frames.tolist() == [0, 1, 2, 5, 6, 7, 3, 4, 8, 9]
    assert temporal.slot_positions.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1]
    assert temporal.token_positions.tolist()[:11] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]
    # What comes out: frames of q1 answer 0, q1 answer 1, q2 answer 0, q2 answer 1.
    assert candidates.runs.lengths.tolist() == [3, 3, 2, 2]
    assert batch.frame_runs.tolist() == [[0, 3], [1, 4], [2, 5], [6, 8], [7, 9]]


def test_long_questions_are_left_out_of_training_only(tmp_path):
    records = {"short": question(), "long": question(parts=((5, 6), (7,), (8, 9, 10)))}
    db = write_db(tmp_path / "q.db", records)
    assert QuestionDataset(db, Videos(), max_txt_len=4, training=True).ids == ["short"]
    assert QuestionDataset(db, Videos()).ids == ["short", "long"]


def test_a_question_nobody_answered(tmp_path):
    db = write_db(tmp_path / "q.db", {"q1": question(target=None)})
    data = QuestionDataset(db, Videos())
    batch = data.collate([data[0]])
    assert batch.targets.tolist() == [-1] and batch.counts["qa"] == 0
    with pytest.raises(UserError, match=r"question q1 of .*q\.db needs a right answer's index"):
        QuestionDataset(db, Videos(), training=True)[0]


@pytest.mark.parametrize("target", [2, -1, "1", [1], 0.5])
def test_a_right_answer_that_does_not_exist(tmp_path, target):
    db = write_db(tmp_path / "q.db", {"q7": question(target=target)})
    with pytest.raises(UserError, match=r"q7.*q\.db.* 0 to 1, it has|q\.db: target.*'q7'"):
        QuestionDataset(db, Videos())[0]


def test_questions_with_different_numbers_of_answers(tmp_path):
    records = {"q1": question(), "q2": question(parts=((5,), (7,)))}
    with pytest.raises(UserError, match=r"question q2 .* has 1 answers, question q1 has 2"):
        QuestionDataset(write_db(tmp_path / "q.db", records), Videos())


def test_statements_are_no_questions(tmp_path):
    db = write_db(tmp_path / "v.db", {"x-0": statement([5], 0)})
    with pytest.raises(UserError, match=r"id2len\.json: 'x-0' has 1, no length of a question"):
        QuestionDataset(db, Videos())


def test_a_question_without_video(tmp_path):
    lost = question()
    del lost["vid"]
    with pytest.raises(UserError, match=r"question q2 of .*q\.db has no video \(1 such\)"):
        QuestionDataset(write_db(tmp_path / "q.db", {"q1": question(), "q2": lost}), Videos())
    with pytest.raises(UserError, match=r"other\.db wants"):
        QuestionDataset(write_db(tmp_path / "other.db", {"q1": question("z")}), Videos())


def test_partners():
    assert partner_id("s01e01-3-0") == "s01e01-3-1"
    assert partner_id("s01e01-3-1") == "s01e01-3-0"
    assert partner_id("s01e01") is None


def test_a_statement_brings_its_partner_in_training(tmp_path):
    records = {
        "x-0-0": statement([5, 6], 0),
        "x-0-1": statement([7], 1),
        "x-1-0": statement([8], 1, "b"),
        "x-1-1": statement([9, 9, 9], 0, "b"),
    }
    db = write_db(tmp_path / "v.db", records)
    alone = StatementDataset(db, Videos())
    assert [alone[number].ids for number in range(2)] == [["x-0-0"], ["x-0-1"]]
    pairs = StatementDataset(db, Videos(), max_txt_len=2, training=True)
    # x-1-1 is too long to be an item of its own, and comes as a partner all the same.
    ids = [["x-0-0", "x-0-1"], ["x-0-1", "x-0-0"], ["x-1-0", "x-1-1"]]
    assert [item.ids for item in map(pairs.__getitem__, range(len(pairs)))] == ids
    assert pairs[1].texts == [[SEP, 7], [SEP, 5, 6]]
    assert pairs[2].texts == [[SEP, 8], [SEP, 9, 9, 9]]


def test_a_statement_without_partner_is_packed_with_a_pair(tmp_path):
    records = {"x-0-0": statement([5, 6], 0), "x-0-1": statement([7], 1)}
    records |= {"x-1-0": statement([8], 1, "b"), "y": statement([9], 0, "b")}
    pairs = StatementDataset(write_db(tmp_path / "v.db", records), Videos(), training=True)
    assert pairs[3].ids == ["y"]
    batch = pairs.collate([pairs[0], pairs[2]])  # one of two copies of video b goes unused
    assert batch.ids == ["x-0-0", "x-0-1", "x-1-0"]
    assert batch.targets.tolist() == [0, 1, 1]
    assert batch.counts == {"violin": 3}
    assert batch.candidates.copies == 2
    assert batch.candidates.temporal.slot_frames.tolist() == [0, 1, 2, 5, 6, 7, 3, 4]
    assert batch.candidates.runs.lengths.tolist() == [3, 3, 2]


@pytest.mark.parametrize("label", [2, -1, "1"])
def test_a_label_that_is_neither_0_nor_1(tmp_path, label):
    db = write_db(tmp_path / "v.db", {"x-0-0": statement([5], label)})
    with pytest.raises(UserError, match=r"x-0-0 .*v\.db .*label.* 0 to 1|v\.db: target.*x-0-0"):
        StatementDataset(db, Videos())[0]


def test_a_statement_without_label(tmp_path):
    db = write_db(tmp_path / "v.db", {"x-0-0": statement([5], None)})
    data = StatementDataset(db, Videos())
    batch = data.collate([data[0]])
    assert torch.equal(batch.targets, torch.tensor([-1])) and batch.counts == {"violin": 0}
    with pytest.raises(UserError, match="it has none"):
        StatementDataset(db, Videos(), training=True)[0]


def test_a_partner_about_another_video_stays_out(tmp_path):
    records = {"x-0-0": statement([5], 0), "x-0-1": statement([6], 1, "b")}
    data = StatementDataset(write_db(tmp_path / "v.db", records), Videos(), training=True)
    assert [data[n].ids for n in range(2)] == [["x-0-0"], ["x-0-1"]]
