"""Training and evaluating on the videos that are there (--only_available)."""

import contextlib
import json
import logging
import shutil
from pathlib import Path

import pytest

import eval_vcmr
import train_vcmr
import train_videoQA
from config.config import PretrainOptions, parse_options
from data.check.broken_databases import BrokenRecords, drop_from
from data.pretraining import open_corpora
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb
from data.tvc import (
    CaptionDataset,
    TargetClips,
    caption_texts,
    captions_by_video,
    read_clip_lines,
)
from data.video import SubtitleSource
from scripts import check_data
from tests.support.damaged_world import World
from utils.errors import UserError
from utils.files import read_json

SHORT = {"num_train_steps": 1, "valid_steps": 1, "n_workers": 0}


def words(folder: Path, options: dict) -> list[str]:
    path = folder / "options.json"
    path.write_text(json.dumps(options | SHORT))
    return ["--config", str(path)]


def copy_features(source: Path, target: Path, gone: set[str]) -> None:
    """A feature database of fewer videos, whose id2nframe.json still counts all."""
    db = FeatureDb(source)
    with FeatureDbWriter(target) as writer:
        for vid in db.keys():  # noqa: SIM118 (a database)
            if vid not in gone:
                writer.put(vid, db[vid])
    shutil.copy(source / "id2nframe.json", target)


@pytest.fixture
def part(tvr_options, world, tmp_path):
    """Options over features that lack the first video of each split, and those videos."""
    gone = set()
    for split in ("train", "val"):
        videos = TextDb(world / "txt_db" / f"tvr_{split}.db").side("query2video.json").values()
        gone.add(next(iter(videos)))
    copy_features(world / "video_db" / "tv", tmp_path / "video" / "tv", gone)
    options = tvr_options | {"vfeat_db": str(tmp_path / "video" / "tv"), "only_available": True}
    return options, gone


def test_moments_as_if_what_is_missing_had_been_dropped(part, tmp_path, caplog):
    """The same metrics, results and weights as of copies without the missing videos."""
    options, gone = part
    dropped = dict(options, only_available=False, output_dir=str(tmp_path / "dropped"))
    for name in ("train_query_txt_db", "val_query_txt_db", "sub_txt_db"):
        dropped[name] = str(tmp_path / "clean" / Path(options[name]).name)
        drop_from(Path(options[name]), Path(dropped[name]), BrokenRecords(set(gone)))
    wanted = train_vcmr.main(words(tmp_path, dropped))
    caplog.set_level(logging.INFO)
    assert train_vcmr.main(words(tmp_path, options)) == wanted
    runs = tmp_path / "run", tmp_path / "dropped"
    partial, whole = (read_json(run / "results" / "results_1_all.json") for run in runs)
    mark = partial.pop("partial")
    assert partial == whole
    total = {name: len(TextDb(options[f"{name}_query_txt_db"])) for name in ("train", "val")}
    left = {name: len(TextDb(dropped[f"{name}_query_txt_db"])) for name in ("train", "val")}
    assert mark["queries"] == {"used": left["val"], "of": total["val"]}
    assert mark["videos"]["used"] == mark["videos"]["of"] - 1 == len(whole["video2idx"])
    metrics = [read_json(run / "results" / "metrics_1.json") for run in runs]
    assert metrics[0] == {"partial": mark} | metrics[1]
    assert f"{left['train']} of {total['train']} queries are available" in caplog.text
    assert "metrics of " in caplog.text and " are partial: " in caplog.text
    caplog.clear()
    evaluated = ["--output_dir", str(runs[0]), "--checkpoint", "1", "--n_workers", "0"]
    eval_vcmr.main(evaluated)
    assert read_json(runs[0] / "results_val" / "metrics_1.json") == metrics[0]
    with pytest.raises(UserError, match=r"not in the feature database|no features of video"):
        eval_vcmr.main([*evaluated, "--no_only_available"])


def test_a_split_that_is_whole_is_not_marked(tvr_options, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train_vcmr.main(words(tmp_path, tvr_options | {"only_available": True}))
    assert "all is available" in caplog.text and "partial" not in caplog.text
    assert "partial" not in read_json(tmp_path / "run" / "results" / "metrics_1.json")


def test_nothing_is_there(tvr_options, world, tmp_path):
    every = set(FeatureDb(world / "video_db" / "tv").keys())
    with FeatureDbWriter(tmp_path / "video") as writer:
        writer.put("another", FeatureDb(world / "video_db" / "tv")[min(every)])
    options = tvr_options | {"vfeat_db": str(tmp_path / "video"), "only_available": True}
    with pytest.raises(UserError, match=r"the data check found .*without features"):
        train_vcmr.main(words(tmp_path, options))
    with pytest.raises(UserError, match=r"none of the .* videos of .* is there"):
        train_vcmr.main(words(tmp_path, options | {"skip_data_check": True}))


def test_questions(part, world, tmp_path):
    options, gone = part
    databases = {
        f"{split}_query_txt_db": str(world / "txt_db" / f"tvqa_{split}.db")
        for split in ("train", "val")
    }
    kept = ("sub_txt_db", "vfeat_db", "model_config", "output_dir", "only_available")
    train_videoQA.main(words(tmp_path, databases | {name: options[name] for name in kept}))
    videos = TextDb(databases["val_query_txt_db"]).side("query2video.json")
    there = [qid for qid, vid in videos.items() if vid not in gone]
    assert 0 < len(there) < len(videos)
    assert list(read_json(tmp_path / "run" / "results" / "results_1_all.json")) == there
    mark = read_json(tmp_path / "run" / "results" / "metrics_1.json")["partial"]
    assert mark["questions"] == {"used": len(there), "of": len(videos)}


@pytest.mark.parametrize("task", ["tvr", "msrvtt_video_sub", "tvqa", "violin", "tvc", "pretrain"])
def test_the_check_warns_of_what_is_left_out(task, tmp_path):
    """Videos without features or subtitles, where others of the split are there."""
    world = World(tmp_path, task)
    del world.features["b"]
    config = world.write()
    rows = tmp_path / "rows.json"

    def errors(*more: str) -> list[dict]:
        with contextlib.suppress(SystemExit):
            check_data.main(["--config", str(config), "--json", str(rows), "--workers", "1", *more])
        return [row for row in read_json(rows) if row["severity"] == "error"]

    assert [row["problem"] for row in errors()] == ["videos without features"]
    assert not errors("--only_available")


def some_videos(world: Path, gone: set[str]) -> SubtitleSource:
    """A source of the recorded world's videos but some."""
    features = FeatureDb(world / "video_db" / "tv", max_clip_len=100)
    for vid in gone:
        del features.id2nframe[vid]
    subtitles = TextDb(world / "txt_db" / "tv_subtitles.db")
    return SubtitleSource(subtitles, features, only_available=True)


def test_captions_and_clips(world):
    captions = caption_texts(world / "txt_db" / "tvc_train.db")
    of_video = captions_by_video(captions)
    gone = {min(of_video)}
    videos = some_videos(world, gone)
    data = CaptionDataset(captions, videos)
    assert data.vids == [vid for vid in of_video if vid not in gone]
    target = TargetClips(world / "ann" / "tvc_train.jsonl", videos)
    lines = read_clip_lines(world / "ann" / "tvc_train.jsonl")
    assert target.lines == [line for line in lines if line["vid_name"] not in gone]
    assert target.coverage.mark() == {
        "partial": {
            "videos": {"used": len(of_video) - 1, "of": len(of_video)},
            "clips": {"used": len(target.lines), "of": len(lines)},
        }
    }
    places = [place for number in range(len(target)) for place in target[number].indices]
    assert sorted(places) == list(range(len(target.lines)))


def test_lists_to_pretrain_on(tmp_path, caplog):
    world = World(tmp_path, "pretrain")
    del world.features["b"]
    options = parse_options(PretrainOptions, ["--config", str(world.write()), "--only_available"])
    assert [vids for *_, vids in open_corpora(options)[0].parts(train=True)] == 2 * [
        ["a", "c", "d"]
    ]
    assert "vids.json: only 3 of 4 videos are available" in caplog.text
