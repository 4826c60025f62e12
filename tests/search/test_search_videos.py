"""Searching for a sentence: as the evaluation does, and all the way from a raw video."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import eval_vcmr
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb
from model.extractors.build import EXTRACTORS
from scripts.search_videos import main
from tests.support.documents import documented_commands
from tests.support.small_extractors import use_small_networks
from tests.support.tvr_runs import make_run, model_options
from tests.support.videos import SRT, make_video
from utils.errors import UserError
from utils.files import read_json


@pytest.fixture
def run(tvr_options, tmp_path) -> Path:
    """A run on the recorded world."""
    width = FeatureDb(tvr_options["vfeat_db"]).width
    options = tvr_options | {"max_vcmr_video": 100, "max_after_nms": 500, "max_before_nms": 500}
    return make_run(tmp_path / "run", options, width)


def search(run: Path, *more: str) -> dict:
    return main(["--run_dir", str(run), "--checkpoint", "1", "--n_workers", "0", *more])


@pytest.mark.golden
def test_a_sentence_finds_what_the_evaluation_finds(run, tvr_options, world):
    arguments = ["--split", "val", "--checkpoint", "1", "--output_dir", str(run)]
    eval_vcmr.main([*arguments, "--n_workers", "0", "--no_eval_with_query_type"])
    results = read_json(run / "results_val" / "results_1_all.json")
    names = {index: vid for vid, index in results["video2idx"].items()}
    queries = TextDb(tvr_options["val_query_txt_db"])
    entries = results["VCMR"][:3]
    texts = [queries[str(entry["desc_id"])]["desc"] for entry in entries]
    options = ["--top", "500", "--nms_thd", "-1", "--toker", str(world / "toker")]
    found = search(run, *options, "--query", *texts)
    for text, entry in zip(texts, entries, strict=True):
        # The search knows more videos than the split has: leave those out.
        moments = [tuple(m.values()) for m in found[text] if m["video"] in results["video2idx"]]
        expected = [(names[video], *rest) for video, *rest in entry["predictions"]]
        assert len(moments) > 10
        for one, other in zip(moments, expected):
            assert one[:3] == other[:3]
            assert one[3] == pytest.approx(other[3], rel=1e-5)


@pytest.mark.golden
def test_the_list(run, world, tmp_path, capsys):
    output = tmp_path / "moments.json"
    options = ["--toker", str(world / "toker"), "--top", "4", "--output", str(output)]
    found = search(run, *options, "--query", "Somebody waves.", "SOMEBODY WAVES.")
    assert read_json(output) == found
    first, second = found["Somebody waves."], found["SOMEBODY WAVES."]
    assert len(first) == len(second) == 4
    scores = [moment["score"] for moment in first]
    assert scores == sorted(scores, reverse=True)
    printed = capsys.readouterr().out
    table = printed.partition("Somebody waves.")[2].splitlines()
    assert table[1].split() == ["video", "start", "end", "score"]
    assert table[3].split()[0] == first[0]["video"]
    # No two moments of one video overlap by more than half: nms_thd is 0.5 here.
    for place, one in enumerate(first):
        for other in first[:place]:
            both = min(one["end"], other["end"]) - max(one["start"], other["start"])
            span = max(one["end"], other["end"]) - min(one["start"], other["start"])
            assert one["video"] != other["video"] or both <= span / 2


@pytest.mark.golden
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--query", " "], "--query is empty"),
        ([], "missing options: --query"),
        (["--query", "Hi.", "--checkpoint", "7"], "7"),
        (["--query", "Hi.", "--top", "0"], "option top = 0 must be greater than 0"),
        (["--query", "Hi.", "--toker", "nowhere/toker"], "nowhere/toker"),
        (["--query", "Hi.", "--sub_txt_db", "nowhere.db"], r"nowhere.db"),
        (
            ["--query", "Hi.", "--task", "didemo_video_only", "--no_sub"],
            "unknown argument --no_sub",
        ),
    ],
)
def test_a_mistake(run, more, message):
    with pytest.raises(UserError, match=message):
        search(run, *more)


@pytest.mark.golden
def test_databases_without_a_common_video(run, world, tmp_path):
    features = tmp_path / "other"
    with FeatureDbWriter(features) as db:
        db.put("stranger", np.zeros((4, 8), np.float32))
    options = ["--toker", str(world / "toker"), "--vfeat_db", str(features)]
    with pytest.raises(UserError, match="have no video in common"):
        search(run, *options, "--query", "Hi.")


# --- From raw video -------------------------------------------------------------------------------


def run_documented(heading: str, variables: dict[str, list[str]]) -> object:
    """Run a section's commands one after the other in this process; the last one's result."""
    result = None
    for _, script, *words in documented_commands(heading):
        argv = [part for word in words for part in variables.get(word, [word])]
        module = import_module(script.removesuffix(".py").replace("/", "."))
        result = module.main(argv)
    return result


def own_videos(tmp_path, world, monkeypatch) -> dict[str, list[str]]:
    """video.mp4 and video.srt in ``videos``, and the variables of the documented commands."""
    make_video(tmp_path / "videos" / "video.mp4", 4.5)
    (tmp_path / "videos" / "video.srt").write_text(SRT)
    monkeypatch.chdir(tmp_path)
    return {
        "$WEIGHTS": ["--random_weights", "--workers", "1"],
        "$TOKER": [str(world / "toker")],
        "$RUN": ["run"],
        "4800": ["1"],
    }


def assert_moments_of_the_video(found: dict[str, list]) -> None:
    (moments,) = found.values()
    assert {moment["video"] for moment in moments} == {"video"}
    spans = {(moment["start"], moment["end"]) for moment in moments}
    assert spans <= {(0.0, 3.0), (1.5, 4.5), (0.0, 4.5)}
    assert moments[0]["score"] >= moments[-1]["score"] > 0


@pytest.mark.golden
def test_from_a_video_with_subtitles_to_moments(tmp_path, world, expected, monkeypatch):
    """The documented commands, with small networks."""
    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))
    variables = own_videos(tmp_path, world, monkeypatch)
    make_run(tmp_path / "run", model_options(world, expected), width=32 + 288)
    assert_moments_of_the_video(run_documented("Search your own video", variables))
    record = TextDb(tmp_path / "txt_db" / "mine_subtitles.db")["video"]
    assert record["sub"][0] == {"text": " Yusuf lifts the tiny rope.", "start": 0.5, "end": 2.0}
    assert record["unique_sub2frames"] == [[0, [0, 1]], [1, [2]]]
    assert FeatureDb(tmp_path / "video_db" / "mine")["video"].shape == (3, 320)


@pytest.mark.golden
def test_what_a_search_cannot_see_is_said(tmp_path, world, expected, monkeypatch, capsys):
    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))
    variables = own_videos(tmp_path, world, monkeypatch)
    shutil.copy("videos/video.mp4", "videos/silent.mp4")
    options = model_options(world, expected) | {"max_clip_len": 2}
    make_run(tmp_path / "run", options, width=32 + 288)
    found = run_documented("Search your own video", variables)
    (moments,) = found.values()
    assert {(m["video"], m["start"], m["end"]) for m in moments} == {
        ("video", 0.0, 3.0),
        ("silent", 0.0, 3.0),
    }
    said = capsys.readouterr()
    assert "2 videos, such as silent, are searched up to 3 seconds only" in said.err + said.out
    assert "resnet features come from an untrained network" in said.err + said.out
    short = ["--vfeat_db", "video_db/mine", "--sub_txt_db", "txt_db/mine_subtitles.db"]
    found = search(tmp_path / "run", *short, "--min_pred_l", "5", "--query", "Hi.")
    assert found == {"Hi.": []}
    assert "no video has the 6 frames of the shortest moment" in capsys.readouterr().out


@pytest.mark.golden
def test_without_subtitles_the_tokenizer_must_be_named(run, tvr_options, tmp_path, world):
    options = {**tvr_options, "sub_txt_db": None, "task": "didemo_video_only"}
    gone = dict.fromkeys(("train_query_txt_db", "val_query_txt_db"), "/nowhere")
    knowing = make_run(tmp_path / "own", options, FeatureDb(tvr_options["vfeat_db"]).width)
    options |= gone
    other = make_run(tmp_path / "video_only", options, FeatureDb(tvr_options["vfeat_db"]).width)
    with pytest.raises(UserError, match="--toker is missing"):
        search(other, "--query", "Hi.")
    found = search(other, "--query", "Hi.", "--toker", str(world / "toker"))
    assert len(found["Hi."]) == 10
    # The queries that a run learnt from tell as well.
    assert search(knowing, "--query", "Hi.").keys() == found.keys()
