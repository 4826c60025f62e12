"""Clips and captions: frames by hand, draws, what a batch holds, and users' mistakes."""

import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import inf_tvc
import train_tvc
from data.loader import ItemKey
from data.stores.lmdb_io import TextDb, TextDbWriter
from data.tvc import (
    CaptionDataset,
    TargetClips,
    caption_texts,
    clip_frames,
    read_clip_lines,
    starts_beyond,
)
from data.video import VideoItem
from data.vocabulary import Vocabulary
from tests.support.recorded import recorded_source
from tests.support.recorded_captions import install_fake_java, tvc_options
from utils.errors import UserError
from utils.files import read_jsonl, write_json, write_jsonl


@pytest.mark.parametrize(
    ("span", "num_frames", "wanted"),
    [
        ((3.0, 9.0), 20, (2, 6)),  # 3 / 1.5 = 2; 9 / 1.5 = 6
        ((4.4, 8.9), 20, (2, 6)),  # floor(2.93); round(5.93)
        ((0.0, 3.75), 20, (0, 2)),  # 2.5 goes to the even 2
        ((0.0, 5.25), 20, (0, 4)),  # 3.5 goes to the even 4
        ((6.1, 6.2), 20, (4, 5)),  # round(4.13) = 4: at least one frame
        ((6.0, 60.0), 20, (4, 20)),  # the end is the video's
        ((29.9, 31.0), 20, (19, 20)),  # the last frame
        ((30.0, 31.0), 20, (19, 20)),  # beyond it: collapses onto it
        ((99.0, 120.0), 20, (19, 20)),
        ((-4.0, 3.0), 20, (0, 2)),
        ((-4.0, -1.0), 20, (0, 1)),
        ((9.0, 3.0), 20, (6, 7)),
    ],
)
def test_clip_frames_by_hand(span, num_frames, wanted):
    assert clip_frames(span, 1.5, num_frames) == wanted
    assert starts_beyond(span[0], 1.5, num_frames) == (span[0] >= 30.0)


@pytest.fixture
def train_db(world):
    return caption_texts(world / "txt_db" / "tvc_train.db")


@pytest.mark.golden
class TestDataset:
    def test_an_item_is_a_video_with_all_its_captions(self, world, train_db):
        data = CaptionDataset(train_db, recorded_source(world))
        of_video = train_db.side("vid2caps.json")
        assert data.vids == list(of_video)
        for number, (vid, ids) in enumerate(of_video.items()):
            item = data[number]
            assert (item.video.vid, item.ids) == (vid, ids)
            assert sum(map(len, item.captions)) == len(ids)
            assert len(item.clips) == len({train_db[i]["clip_id"] for i in ids})

    def test_draws_depend_on_seed_epoch_and_item_alone(self, world, train_db):
        source = recorded_source(world)
        data = CaptionDataset(train_db, source, max_cap_per_vid=2, seed=5)
        captions = train_db.side("vid2caps.json")
        most = data.vids.index(max(captions, key=lambda vid: len(captions[vid])))
        draws = [data[ItemKey(most, epoch)].ids for epoch in range(8)]
        assert all(len(set(ids)) == 2 for ids in draws)
        assert len({tuple(ids) for ids in draws}) > 1
        again = CaptionDataset(train_db, source, max_cap_per_vid=2, seed=5)
        assert [again[ItemKey(most, epoch)].ids for epoch in reversed(range(8))] == draws[::-1]
        whole = captions[data.vids[most]]
        assert all(ids == [i for i in whole if i in ids] for ids in draws)

    def test_a_batch_by_hand(self, world, train_db):
        data = CaptionDataset(train_db, recorded_source(world))
        items = [data[0], data[1]]
        batch = data.collate(items)
        begin, end = train_db.meta["BOS"], train_db.meta["EOS"]
        captions = [c for item in items for clip in item.captions for c in clip]
        inputs = [token for caption in captions for token in (begin, *caption)]
        targets = [token for caption in captions for token in (*caption, end)]
        assert batch.text.token_ids.tolist() == inputs
        assert batch.targets.tolist() == targets
        offsets = [0, items[0].video.num_frames]
        spans = [
            (offset + first, offset + last)
            for offset, item in zip(offsets, items)
            for first, last in item.clips
        ]
        rows, mask = batch.clips.grid()
        assert [(row[m][0], row[m][-1] + 1) for row, m in zip(rows, mask)] == spans
        sizes = [sum(len(c) + 1 for c in clip) for item in items for clip in item.captions]
        assert batch.by_clip.lengths.tolist() == sizes

    def test_long_captions_are_cut(self, world, train_db):
        whole = CaptionDataset(train_db, recorded_source(world))
        cut = CaptionDataset(train_db, recorded_source(world), max_txt_len=6)
        begin, end = train_db.meta["BOS"], train_db.meta["EOS"]
        captions = [c for n in range(len(whole)) for clip in whole[n].captions for c in clip]
        assert {len(caption) > 6 for caption in captions} == {True}
        batch = cut.collate([cut[n] for n in range(len(cut))])
        wanted = [[begin, *caption][:6] for caption in captions]
        assert batch.text.token_ids.tolist() == [token for text in wanted for token in text]
        wanted = [[*caption, end][:6] for caption in captions]
        assert batch.targets.tolist() == [token for text in wanted for token in text]
        clips = [len(clip) for n in range(len(whole)) for clip in whole[n].captions]
        assert batch.by_clip.max_length == 6 * max(clips)

    def test_a_caption_of_just_the_length_loses_its_end(self, world, train_db):
        data = CaptionDataset(train_db, recorded_source(world), max_txt_len=3)
        item = replace(data[0], clips=[(0, 1), (1, 2)], captions=[[[11, 12, 13]], [[21], []]])
        batch = data.collate([item])
        begin, end = train_db.meta["BOS"], train_db.meta["EOS"]
        assert batch.text.token_ids.tolist() == [begin, 11, 12, begin, 21, begin]
        assert batch.targets.tolist() == [11, 12, 13, 21, end, end]
        assert batch.by_clip.lengths.tolist() == [3, 3]

    def test_clips_beyond_the_last_kept_frame(self, world, train_db, caplog):
        clips = TextDb(train_db.path.parent / "clip.db")
        ids = list(clips.keys())
        starts = {clip_id: clips[clip_id]["ts"][0] for clip_id in ids}
        cut = 1 + int(sorted(starts.values())[len(starts) // 2] / 1.5)
        source = recorded_source(world, max_clip_len=cut)
        beyond = {clip_id for clip_id, start in starts.items() if start >= cut * 1.5}
        assert beyond and len(beyond) < len(starts)
        with caplog.at_level(logging.WARNING):
            data = CaptionDataset(train_db, source)
        assert f"{len(beyond)} clip(s) start after the last kept frame" in caplog.text
        used = {train_db[i]["clip_id"] for number in range(len(data)) for i in data[number].ids}
        assert used == set(starts) - beyond

        target = TargetClips(world / "ann" / "tvc_train.jsonl", source)
        answered = [place for number in range(len(target)) for place in target[number].indices]
        assert sorted(answered) == list(range(len(starts)))
        assert "captioned from that frame" in caplog.text
        batch = target.collate([target[number] for number in range(len(target))])
        assert (batch.clips.lengths >= 1).all()


class ShortVideos:
    """Videos of whose frames id2nframe.json promises more than there are; 2 seconds each."""

    interval, only_available = 2.0, False

    def __init__(self, promised, there):
        self.promised, self.there = promised, there
        self.features = SimpleNamespace(id2nframe=promised)

    def __call__(self, vid):
        return VideoItem(vid, np.zeros((self.there[vid], 4), np.float32))

    def num_frames(self, vid):
        return self.promised[vid]

    def require(self, vids, wanted_by):
        return list(vids)


def write_captions(folder, clips):
    """A caption database: one caption a clip, {clip: (video, ts)}."""
    of_video = {}
    with TextDbWriter(folder / "cap.db") as db:
        for number, (clip_id, (vid, ts)) in enumerate(clips.items()):
            record = {"vid_name": vid, "clip_id": clip_id, "ts": ts, "input_ids": [10 + number]}
            db.put(str(number), record)
            of_video.setdefault(vid, []).append(str(number))
        db.write_side("vid2caps.json", of_video)
    write_json(folder / "meta.json", {"BOS": 0, "EOS": 2})
    return caption_texts(folder)


def test_clips_beyond_shorter_features_are_skipped_in_training(tmp_path, caplog):
    clips = {"p": ("a", [0, 4]), "q": ("a", [10, 12]), "r": ("b", [6, 9]), "s": ("a", [40, 50])}
    db = write_captions(tmp_path / "c.db", clips)
    data = CaptionDataset(db, ShortVideos({"a": 9, "b": 9}, {"a": 3, "b": 2}))
    assert "1 clip(s) start after the last kept frame (s)" in caplog.text
    assert data.vids == ["a", "b"] and data[0].clips == [(0, 2)]
    assert data[1].video.vid == "a"  # b has nothing to learn from: the next one in its place
    assert data[1].clips == [(0, 2)]
    for clip in ("q", "r"):
        assert f"1 clip(s) start after the last kept frame ({clip}) and are skipped" in caplog.text
    assert caplog.text.count("are skipped: the features of a are shorter") == 1
    nothing = CaptionDataset(db, ShortVideos({"a": 9, "b": 9}, {"a": 3, "b": 2}))
    nothing.vids = ["b"]
    with pytest.raises(UserError, match="no video has anything to learn from"):
        nothing[0]


def test_odd_clips_are_clamped_and_named(tmp_path, caplog):
    clips = {"p": ("a", [-4.0, 3.9]), "q": ("a", [4.0, 2.0]), "r": ("a", [0.0, 2.0])}
    data = CaptionDataset(write_captions(tmp_path / "c.db", clips), ShortVideos({"a": 9}, {"a": 9}))
    assert data[0].clips == [(0, 2), (2, 3), (0, 1)]
    (record,) = caplog.records
    assert "2 moment(s)" in record.getMessage()
    assert "(p [-4, 3.9], q [4, 2])" in record.getMessage()
    broken = write_captions(tmp_path / "d.db", {"p": ("a", [float("nan"), 3.0])})
    with pytest.raises(UserError, match=r"cap\.db: ts\[0\]: expected a finite number"):
        CaptionDataset(broken, ShortVideos({"a": 9}, {"a": 9}))


@pytest.mark.golden
def test_the_tokenizer_of_a_database(world):
    db = TextDb(world / "txt_db" / "tv_subtitles.db")
    vocabulary = Vocabulary.of(db, str(world / "toker"))
    assert vocabulary.known_ids == tuple(range(len(vocabulary.tokenizer)))
    text = " Isn't it?"
    assert vocabulary.text(*vocabulary.tokenizer.encode([text])) == text
    with pytest.raises(UserError, match="no-such-tokenizer"):
        Vocabulary.of(db, str(world / "no-such-tokenizer"))
    db.meta["EOS"] = 7
    with pytest.raises(UserError, match="not the one that made"):
        Vocabulary.of(db, str(world / "toker"))


LINE = {"vid_name": "v", "clip_id": 1, "ts": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE | {"vid_name": 1.5}], r"clips\.jsonl:1: vid_name: expected"),
        ([LINE, {"vid_name": "v", "ts": [0, 1]}], r"clips\.jsonl:2: it lacks the .* clip_id"),
        ([{**LINE, "ts": [1.0]}], r":1: ts: expected a list of length"),
        (
            [LINE | {"descs": [{"desc": "a"}, {"text": "b"}]}],
            r":1: descs\[1\]: it lacks the .* desc",
        ),
        ([{**LINE, "ts": [0.0, float("nan")]}], r":1: .*NaN"),
        ([LINE, LINE], ":2: the id '1' was used in line 1 already"),
        ([], "holds no annotations"),
    ],
)
def test_malformed_clips(tmp_path, lines, message):
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, lines)
    with pytest.raises(UserError, match=message):
        read_clip_lines(path)


@pytest.fixture
def options(world, expected, tmp_path):
    return tvc_options(world, expected) | {
        "output_dir": str(tmp_path / "run"),
        "num_train_steps": 1,
        "valid_steps": 1,
        "n_workers": 0,
    }


def train(options, tmp_path):
    config = tmp_path / "options.json"
    config.write_text(json.dumps(options))
    return train_tvc.main(["--config", str(config)])


@pytest.mark.golden
class TestScripts:
    def test_java_is_missed_before_training(self, options, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match="need Java"):
            train(options, tmp_path)

    def test_failing_scorers_are_found_before_training(self, options, tmp_path, monkeypatch):
        install_fake_java(tmp_path / "bin", monkeypatch)
        (tmp_path / "bin" / "java").write_text(
            "#!/bin/sh\necho 'Exception in thread: OutOfMemoryError' >&2; exit 1\n"
        )
        with pytest.raises(UserError, match="failed: Exception in thread: OutOfMemoryError"):
            train(options, tmp_path)
        assert not list((tmp_path / "run").glob("ckpt/*"))

    def test_a_reference_file_that_misses_captions(self, options, tmp_path):
        lines = [line for _, line in read_jsonl(options["val_ref"])]
        del lines[1]["descs"]
        options["val_ref"] = str(tmp_path / "ref.jsonl")
        write_jsonl(options["val_ref"], lines)
        with pytest.raises(UserError, match=f"clip {lines[1]['clip_id']} has no reference"):
            train(options, tmp_path)

    def test_a_video_without_features(self, options, tmp_path):
        folder = tmp_path / "tv"
        shutil.copytree(options["vfeat_db"], folder)
        counts = json.loads((folder / "id2nframe.json").read_text())
        lost = next(line["vid_name"] for _, line in read_jsonl(options["val_ref"]))
        del counts[lost]
        (folder / "id2nframe.json").write_text(json.dumps(counts))
        with pytest.raises(UserError, match=f"{lost}.*feature database"):
            train(options | {"vfeat_db": str(folder)}, tmp_path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"bf16": True, "beam": 2},
            {"lsr": 0.0, "max_cap_per_vid": -1},
            {"checkpoint": None, "max_clip_len": 12, "n_workers": 1},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_variants_train(self, options, tmp_path, monkeypatch, changes):
        monkeypatch.setattr("evaluation.caption_split.score_lines", lambda lines, references: {})
        metrics = train(options | changes, tmp_path)
        assert np.isfinite(metrics["loss/caption"])

    def test_train_then_caption(self, options, tmp_path, monkeypatch):
        """Validation and inference write the same captions; a target without ``descs`` works too;
        without Java the captions are there before the error."""
        monkeypatch.setattr(
            "evaluation.caption_split.score_lines",
            lambda lines, references: {"CIDEr": float(len(lines))},
        )
        metrics = train(options, tmp_path)
        count = len(read_clip_lines(options["val_ref"]))
        assert metrics["CIDEr"] == count and np.isfinite(metrics["loss/caption"])
        run = tmp_path / "run"
        validated = (run / "results" / "results_1_all.jsonl").read_bytes()

        def infer(target, output, *more):
            words = ["--model_dir", str(run), "--ckpt_step", "1", "--target_clip", str(target)]
            return inf_tvc.main([*words, "--output", str(output), "--n_workers", "0", *more])

        output = tmp_path / "out" / "captions.jsonl"
        assert infer(options["val_ref"], output) == {"CIDEr": count}
        assert output.read_bytes() == validated
        assert json.loads((output.parent / "metrics_1.json").read_text()) == {"CIDEr": count}

        bare = [
            {key: line[key] for key in ("vid_name", "clip_id", "ts")}
            for _, line in read_jsonl(options["val_ref"])
        ]
        write_jsonl(tmp_path / "bare.jsonl", bare)
        other = tmp_path / "bare" / "captions.jsonl"
        assert infer(tmp_path / "bare.jsonl", other, "--batch_size", "1") == {}
        assert other.read_bytes() == validated
        assert not list(other.parent.glob("metrics*"))
        final = tmp_path / "final.jsonl"  # the published code's name of a run's last step
        assert infer(tmp_path / "bare.jsonl", final, "--ckpt_step", "1_final") == {}
        assert final.read_bytes() == validated
        assert infer(tmp_path / "bare.jsonl", other, "--beam", "3", "--length_penalty", "0") == {}
        assert len(list(read_jsonl(other))) == count

        monkeypatch.undo()
        monkeypatch.setenv("PATH", str(tmp_path))
        late = tmp_path / "late.jsonl"
        with pytest.raises(UserError, match="need Java"):
            infer(options["val_ref"], late)
        assert late.read_bytes() == validated
