"""--max_clip_len -1: all frames, however many a subtitle lies over."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import eval_vcmr
import train_vcmr
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter
from tests.support.options_file import run_with
from utils.errors import UserError

pytestmark = pytest.mark.golden

TABLE = "v_encoder.f_encoder.img_embeddings.position_embeddings.weight"
FRAMES = 130


@pytest.fixture
def long_video(tvr_options, tmp_path, world) -> dict:
    """Options for the recorded videos, of which one is longer and has one long subtitle."""
    features, subtitles = FeatureDb(tvr_options["vfeat_db"]), TextDb(tvr_options["sub_txt_db"])
    videos = json.loads((world / "txt_db/tvr_train.db/query2video.json").read_text())
    longest = next(iter(videos.values()))
    with FeatureDbWriter(tmp_path / "video") as db:
        for vid in features.id2nframe:
            frames = features[vid]
            db.put(vid, np.resize(frames, (FRAMES, features.width)) if vid == longest else frames)
    with TextDbWriter(tmp_path / "subtitles.db") as db:
        lengths = subtitles.side("vid2len.json")
        for vid in subtitles.keys():  # noqa: SIM118 (a database, not a dictionary)
            record = subtitles[vid]
            if vid == longest:
                spans = [[0, list(range(FRAMES))]]
                spans += [[number, []] for number in range(1, len(record["input_ids"]))]
                record |= {"unique_sub2frames": spans, "sub2frames": spans, "unmatched_frames": []}
            db.put(vid, record)
        db.write_side("meta.json", subtitles.meta)
        db.write_side("vid2len.json", lengths | {longest: FRAMES})
        for name in ("vid2dur_idx.json", "vid2max_frame_sub_len.json"):
            db.write_side(name, subtitles.side(name))
    data = {"vfeat_db": str(tmp_path / "video"), "sub_txt_db": str(tmp_path / "subtitles.db")}
    short = {"num_train_steps": 2, "valid_steps": 2, "n_workers": 0, "drop_svmr_prob": 0.0}
    return tvr_options | data | short


train = partial(run_with, train_vcmr.main)


def test_zero_rows_are_added_for_the_longest_video(long_video, tmp_path, expected):
    run = tmp_path / "run"
    # The least learning rate there is, 1e-8, without decay: rows stay about what they were.
    words = ["--max_clip_len", "-1", "--learning_rate", "1e-8", "--weight_decay", "0"]
    metrics = train(long_video, tmp_path, *words)
    assert np.isfinite(metrics["loss/total"])
    table = torch.load(run / "ckpt" / "model_step_2.pt", weights_only=True)[TABLE]
    published = torch.load(expected / "pretrained.pt", weights_only=True)[TABLE].float()
    assert len(table) == FRAMES
    torch.testing.assert_close(table[: len(published)], published)
    assert 0 < table[len(published) :].abs().max() < 1e-7  # zero before two steps
    evaluated = eval_vcmr.main(["--output_dir", str(run), "--checkpoint", "2", "--n_workers", "0"])
    assert evaluated == {k: v for k, v in metrics.items() if not k.startswith("loss/")}


def test_a_published_length_of_the_table_is_kept(long_video, tmp_path):
    train(long_video, tmp_path)
    table = torch.load(tmp_path / "run/ckpt/model_step_2.pt", weights_only=True)[TABLE]
    assert len(table) == 100


def test_what_the_temporal_table_cannot_number_is_said(long_video, tmp_path, expected):
    sizes = json.loads((expected / "model_finetune.json").read_text())
    sizes["c_config"]["max_position_embeddings"] = FRAMES - 1
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    changes = {"model_config": str(tmp_path / "sizes.json"), "checkpoint": None}
    with pytest.raises(UserError, match=r"of 130 positions .* table of 129; set max_clip_len"):
        train(long_video | changes, tmp_path, "--max_clip_len", "-1")
