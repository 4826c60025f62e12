"""A pre-training objective that this file adds: it is trained, validated and saved."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pretrain
from data.batch import VideoBatch
from data.loader import ItemKey
from data.pretraining import OBJECTIVES, Objective
from data.stores.lmdb_io import FeatureDb
from data.video import VideoItem, collate_videos
from model.checkpoint import read_state_dict
from model.pretrain import HeroForPretraining, ObjectiveOutput
from utils.batch import TensorBatch

pytestmark = pytest.mark.golden


@dataclass
class ReversedItem:
    video: VideoItem
    reversed: bool


@dataclass
class ReversedBatch(TensorBatch):
    ids: list[str]
    video: VideoBatch
    reversed: torch.Tensor  # (B,) long


class ReversedDataset:
    """Videos, some of them with their frames' features in reverse order."""

    def __init__(self, vids, source, mask_prob, seed):
        self.share = mask_prob
        self.vids, self.source, self.seed = vids, source, seed

    def __len__(self):
        return len(self.vids)

    def __getitem__(self, key):
        key = ItemKey.of(key)
        video = self.source(self.vids[key.index])
        turned = bool(key.generator(self.seed).random() < self.share)
        features = np.ascontiguousarray(video.features[::-1]) if turned else video.features
        return ReversedItem(VideoItem(video.vid, features, video.subtitles), turned)


def collate_reversed(items):
    return ReversedBatch(
        ids=[item.video.vid for item in items],
        video=collate_videos([item.video for item in items]),
        reversed=torch.tensor([item.reversed for item in items], dtype=torch.long),
    )


class HeroWithDirection(HeroForPretraining):
    """Also tells videos that run backwards."""

    def __init__(self, config, *arguments, **named):
        super().__init__(config, *arguments, **named)
        self.direction = nn.Linear(config.f_config.hidden_size, 2)

    def directions(self, batch):
        frames = self.v_encoder(batch.video)
        starts = torch.cumsum(batch.video.frame_lens, 0) - batch.video.frame_lens
        logits = self.direction(frames.index_select(0, starts))
        losses = F.cross_entropy(logits.float(), batch.reversed, reduction="none")
        right = logits.argmax(dim=1) == batch.reversed
        return ObjectiveOutput(len(batch.ids), {"reversed": losses}, {"acc": right})


def test_a_new_objective_is_a_data_set_a_method_and_a_row(world, expected, tmp_path, monkeypatch):
    row = Objective(ReversedDataset, ("mask_prob",), collate_reversed, "directions")
    monkeypatch.setitem(OBJECTIVES, "reversed", row)
    monkeypatch.setattr(pretrain, "HeroForPretraining", HeroWithDirection)
    videos = world / "video_db" / "tv"
    (tmp_path / "vids.json").write_text(json.dumps(list(FeatureDb(videos).id2nframe)))
    split = {"name": "all", "tasks": ["reversed", "mffr"], "ratio": [9, 1]}
    split |= dict.fromkeys(("train_idx", "val_idx"), "vids.json")
    target = {"name": "tv", "vfeat_db": str(videos), "splits": [split]}
    options = {
        "targets": [target | {"sub_txt_db": str(world / "txt_db" / "tv_subtitles.db")}],
        "txt_db": str(tmp_path),
        "model_config": str(expected / "model_finetune.json"),
        "output_dir": str(tmp_path / "run"),
        "train_batch_size": 4,
        "val_batch_size": 3,
        "gradient_accumulation_steps": 1,
        "num_train_steps": 2,
        "valid_steps": 1,
        "log_steps": 1,
        "n_workers": 1,
        "mask_prob": 0.5,
    }
    (tmp_path / "options.json").write_text(json.dumps(options))
    metrics = pretrain.main(["--config", str(tmp_path / "options.json")])

    assert {name for name in metrics if name.startswith("reversed")} == {
        "reversed_tv_all/loss",
        "reversed_tv_all/acc",
    }
    assert 0 < metrics["reversed_tv_all/loss"] < 5 and 0 <= metrics["reversed_tv_all/acc"] <= 1
    lines = (tmp_path / "run" / "log" / "metrics.jsonl").read_text().splitlines()
    trained = [line for line in map(json.loads, lines) if line["name"] == "loss/reversed"]
    assert trained and all(0 < line["value"] < 5 for line in trained)
    first, last = (
        read_state_dict(tmp_path / "run" / "ckpt" / f"model_step_{step}.pt") for step in (1, 2)
    )
    assert not torch.equal(first["direction.weight"], last["direction.weight"])
