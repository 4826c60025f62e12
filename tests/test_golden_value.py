"""VALUE's tasks against the record: frames, queries, scores, losses."""

import pytest
import torch

from config.groups import Channel
from data.batch import QueryBatch
from data.loader import ItemKey
from data.vcmr import CorpusQueries, MomentDataset, collate_moments
from data.video import VideoBatch, collate_videos
from data.video_pool import video_pool
from model.ranking_loss import RankingLoss
from model.vcmr import HeroForVcmr, MomentSchedule
from model.vr import HeroForVr
from tests.recorded import assert_recorded
from tests.recorded_value import WIDE, WIDE_SIZE, ValueWorld, recorded_ids

pytestmark = pytest.mark.golden_value

CORPUS = {"yc2r": "yc2", "vatex_en_r": "vatex"}
VARIANTS = [WIDE, Channel.SUB_ONLY, Channel.VIDEO_ONLY]


@pytest.fixture(scope="module")
def value(golden_value) -> ValueWorld:
    return ValueWorld(golden_value)


@pytest.fixture(scope="module")
def model(value) -> HeroForVcmr:
    return value.model(HeroForVcmr)


def variant(value, model, name, corpus, context=1):
    """Videos and model of a row of the record."""
    if name == WIDE:
        wide = value.model(HeroForVcmr, WIDE_SIZE)
        return value.videos(corpus, context, version=WIDE), wide
    return value.videos(corpus, context, Channel(name)), model


@pytest.mark.parametrize(
    ("kind", "corpus", "name", "context"),
    [
        ("repr/yc2", "yc2", "video_sub", 1),
        ("repr/vatex", "vatex", "video_sub", 1),
        ("repr/sub_only/vlep", "vlep", "sub_only", 0),
        *((f"repr/{name}/yc2", "yc2", name, 1) for name in VARIANTS),
    ],
)
@torch.no_grad()
def test_frame_embeddings(value, model, value_recorded, kind, corpus, name, context):
    videos, model = variant(value, model, name, corpus, context)
    vids = recorded_ids(value_recorded, kind)
    items = [videos.source(vid) for vid in vids]
    together = model.encode_videos(collate_videos(items)).split([i.num_frames for i in items])
    for vid, item, frames in zip(vids, items, together, strict=True):
        alone = model.encode_videos(collate_videos([item]))
        assert_recorded(alone, value_recorded[f"{kind}/{vid}"], vid)
        assert_recorded(frames, value_recorded[f"{kind}/{vid}"], vid)
        subtitles = sum(subtitle.positions for subtitle in item.subtitles)
        assert videos.source.positions(vid) == subtitles
