"""The encoder against recorded frame embeddings."""

import json

import numpy as np
import pytest
import torch

from config.model_config import ModelConfig
from data.stores.lmdb_io import FeatureDb, TextDb
from data.video import VideoOnlySource, collate_videos
from model.checkpoint import load_weights, read_state_dict
from model.vcmr import HeroForVcmr
from tests.support.recorded import assert_recorded, placed, recorded_source, recorded_vcmr

pytestmark = [pytest.mark.golden, pytest.mark.device]


@pytest.fixture(scope="module")
def model(expected):
    return recorded_vcmr(expected).eval()


def recorded_vids(recorded, kind):
    vids = [key.removeprefix(kind) for key in recorded if key.startswith(kind)]
    assert vids, f"nothing recorded under {kind}"
    return vids


@pytest.mark.parametrize(
    ("kind", "max_clip_len", "context"), [("full", 100, 0), ("ctx2", 100, 2), ("cut", 12, 1)]
)
@torch.no_grad()
def test_frame_embeddings(model, recorded, world, kind, max_clip_len, context):
    source = recorded_source(world, max_clip_len, context)
    for vid in recorded_vids(recorded, f"repr/{kind}/"):
        batch = placed(collate_videos([source(vid)]))
        assert_recorded(model.encode_videos(batch), recorded[f"repr/{kind}/{vid}"], vid)


@torch.no_grad()
def test_frames_before_the_temporal_transformer(model, recorded, world):
    source = recorded_source(world)
    for vid in recorded_vids(recorded, "frames/full/"):
        batch = placed(collate_videos([source(vid)]))
        vectors = model.v_encoder.frame_vectors(batch)
        assert_recorded(vectors, recorded[f"frames/full/{vid}"], vid)


@torch.no_grad()
def test_videos_without_subtitles(model, recorded, world):
    cls_id = TextDb(world / "txt_db" / "tv_subtitles.db").meta["CLS"]
    source = VideoOnlySource(FeatureDb(world / "video_db" / "tv", max_clip_len=100), cls_id)
    for vid in recorded_vids(recorded, "repr/video_only/"):
        batch = placed(collate_videos([source(vid)]))
        assert_recorded(model.encode_videos(batch), recorded[f"repr/video_only/{vid}"], vid)


@torch.no_grad()
def test_a_video_alone_equals_the_video_in_a_mixed_batch(model, recorded, world):
    source = recorded_source(world, context=1)
    items = [source(vid) for vid in recorded_vids(recorded, "repr/full/")]
    assert len({item.num_frames for item in items}) > 1
    together = model.encode_videos(placed(collate_videos(items)))
    alone = torch.cat([model.encode_videos(placed(collate_videos([item]))) for item in items])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_compressed_features_give_the_same(model, world):
    plain = FeatureDb(world / "video_db" / "tv")
    compressed = FeatureDb(world / "video_db" / "tv", compressed=True)
    for vid in plain.id2nframe:
        np.testing.assert_array_equal(plain[vid], compressed[vid])


def test_weight_names_are_the_contract(expected):
    contract = json.loads((expected / "state_dict_keys.json").read_text())["HeroForVcmr"]
    config = ModelConfig.from_json(expected / "model_finetune.json")
    own = {name: list(value.shape) for name, value in HeroForVcmr(config).state_dict().items()}
    assert own == contract["parameters"]


def test_published_buffers_are_ignored_and_nothing_is_missing(expected):
    config = ModelConfig.from_json(expected / "model_finetune.json")
    state = read_state_dict(expected / "pretrained.pt")
    state["v_encoder.pad"] = torch.zeros(8, 4)
    state["v_encoder.f_encoder.pad"] = torch.zeros(8, 4)
    report = load_weights(HeroForVcmr(config), state)
    assert report.ignored == ["v_encoder.pad", "v_encoder.f_encoder.pad"]
    assert not (report.missing or report.unexpected or report.new_heads or report.grown)
