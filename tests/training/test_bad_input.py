"""A user's mistakes with the training and evaluation scripts: one clear line, exit code 2."""

import json
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

import eval_vcmr
import train_vcmr
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter
from tests.support import REPOSITORY
from tests.support.options_file import run_with
from utils.errors import UserError


@pytest.fixture
def databases(world, tmp_path):
    """A copy of the recorded databases that a test may spoil."""
    for name in ("tvr_train.db", "tvr_val.db", "tvr_test_public.db", "tv_subtitles.db"):
        shutil.copytree(world / "txt_db" / name, tmp_path / name)
    shutil.copytree(world / "video_db" / "tv", tmp_path / "tv")
    return tmp_path


@pytest.fixture
def options(databases, expected):
    return {
        "train_query_txt_db": str(databases / "tvr_train.db"),
        "val_query_txt_db": str(databases / "tvr_val.db"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(databases / "tv"),
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "output_dir": str(databases / "run"),
        "num_train_steps": 1,
        "n_workers": 0,
    }


train = partial(run_with, train_vcmr.main)


def test_a_missing_database(options, databases):
    options["train_query_txt_db"] = str(databases / "tvr_trian.db")
    with pytest.raises(UserError, match=r"tvr_trian\.db"):
        train(options, databases)


def test_an_unknown_option_names_the_nearest(options, databases):
    with pytest.raises(UserError, match="learning_rate"):
        train(options | {"learning_rte": 1.0}, databases)


def test_a_truncated_database(options, databases):
    path = databases / "tvr_train.db" / "data.mdb"
    path.write_bytes(path.read_bytes()[:8192])
    with pytest.raises(UserError, match=r"tvr_train\.db.*cut short"):
        train(options, databases)


def test_a_video_without_features_is_named_before_training(options, databases):
    nframes = databases / "tv" / "id2nframe.json"
    counts = json.loads(nframes.read_text())
    videos = json.loads((databases / "tvr_train.db" / "query2video.json").read_text())
    lost = next(iter(videos.values()))
    del counts[lost]
    nframes.write_text(json.dumps(counts))
    with pytest.raises(UserError, match=f"first: {lost}.*feature database"):
        train(options, databases)


def test_a_video_without_subtitles_record_is_named_before_training(options, databases):
    source = TextDb(databases / "tv_subtitles.db")
    videos = json.loads((databases / "tvr_train.db" / "query2video.json").read_text())
    lost = next(iter(videos.values()))
    with TextDbWriter(databases / "fewer.db") as fewer:
        fewer.write_side("meta.json", source.meta)
        for vid in source.keys():  # noqa: SIM118 (a database, not a dictionary)
            if vid != lost:
                fewer.put(vid, source[vid])
    options["sub_txt_db"] = str(databases / "fewer.db")
    with pytest.raises(UserError, match=f"first: {lost}.*subtitle database"):
        train(options, databases)


def test_features_of_another_width(options, databases):
    source = FeatureDb(databases / "tv")
    with FeatureDbWriter(databases / "narrow") as narrow:
        for vid in source.id2nframe:
            narrow.put(vid, source[vid][:, :100])
    options["vfeat_db"] = str(databases / "narrow")
    said = f"features {source.width} values wide, these are 100 wide: .*--reinit_feature_layers"
    with pytest.raises(UserError, match=said):
        train(options, databases)


def test_training_on_a_split_without_videos(options, databases):
    options["train_query_txt_db"] = str(databases / "tvr_test_public.db")
    with pytest.raises(UserError, match=r"has no video .* cannot train"):
        train(options, databases)


def test_a_checkpoint_none_of_whose_names_fit(options, databases):
    weights = torch.load(options["checkpoint"], weights_only=True)
    options["checkpoint"] = str(databases / "other.pt")
    for prefix, said in (("x", "has no weight of this model"), ("roberta.", "seems to be RoBERTa")):
        torch.save({f"{prefix}{name}x": v for name, v in weights.items()}, databases / "other.pt")
        with pytest.raises(UserError, match=said):
            train(options, databases)
    assert not (databases / "run" / "ckpt").exists()


def test_a_hero_checkpoint_given_as_roberta(options, databases):
    with pytest.raises(UserError, match=r"pretrained\.pt is a HERO checkpoint, not RoBERTa"):
        train(options | {"load_partial_pretrained": True}, databases)


def test_a_loss_that_is_not_finite_names_step_task_and_batch(options, databases, expected):
    weights = torch.load(expected / "pretrained.pt", weights_only=True)
    name = "video_query_linear.weight"
    options |= {"checkpoint": str(databases / "bad.pt"), "drop_svmr_prob": 0.0}
    torch.save(weights | {name: torch.full_like(weights[name], float("nan"))}, databases / "bad.pt")
    with pytest.raises(UserError, match=rf"bad\.pt: 1 weights .* not finite, such as {name}:"):
        train(options, databases)
    huge = torch.full(weights[name].shape, 3e38)
    torch.save(weights | {name: huge}, databases / "bad.pt")
    with pytest.raises(UserError, match=r"not finite at step 1 of task tvr; its batch holds \d+"):
        train(options, databases)
    assert not (databases / "run" / "ckpt").exists()


def test_evaluation_of_a_run_that_is_none(databases):
    with pytest.raises(UserError, match=r"hps\.json"):
        eval_vcmr.main(["--output_dir", str(databases), "--checkpoint", "1", "--split", "val"])


@pytest.mark.parametrize("script", ["train_vcmr.py", "eval_vcmr.py"])
def test_the_user_sees_one_line_and_exit_code_2(script):
    done = subprocess.run(
        [sys.executable, script, "--chekpoint", "1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert "--checkpoint" in done.stderr
