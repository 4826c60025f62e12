"""VALUE's tasks against the record: frames, queries, scores, losses."""

import pytest
import torch

from config.groups import Channel
from data.batch import QueryBatch
from data.loader import ItemKey
from data.vcmr import CorpusQueries, MomentDataset, collate_moments
from data.video import collate_videos
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


def split_queries(value, task) -> QueryBatch:
    queries = CorpusQueries(value.texts(f"{task}_val"), raw_ids=False)
    return queries.collate([queries[number] for number in range(len(queries))])


@pytest.mark.parametrize("task", CORPUS)
@torch.no_grad()
def test_query_vectors(value, model, value_recorded, task):
    queries = split_queries(value, task)
    assert sorted(queries.qids) == sorted(recorded_ids(value_recorded, f"query/{task}"))
    for qid, vector in zip(queries.qids, model.encode_queries(queries), strict=True):
        assert_recorded(vector, value_recorded[f"query/{task}/{qid}"], qid)


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        *((f"q2v/{task}", task, "video_sub") for task in CORPUS),
        *((f"q2v/{name}/yc2r", "yc2r", name) for name in VARIANTS),
    ],
)
@torch.no_grad()
def test_video_scores(value, model, value_recorded, kind, task, name):
    """The pool and its numbers are the same for every channel."""
    videos, model = variant(value, model, name, CORPUS[task])
    db = value.texts(f"{task}_val")
    _, numbers = video_pool("val", db, videos.subtitles, videos.source, required=True)
    indices = videos.subtitles.side("vid2dur_idx.json")["val"]
    assert numbers == {vid: index for vid, (_, index) in indices.items()}
    video = collate_videos([videos.source(vid) for vid in sorted(numbers)])
    queries = split_queries(value, task)
    assert sorted(queries.qids) == sorted(recorded_ids(value_recorded, kind))
    frames = model.encode_videos(video)
    scores = model.video_scores(model.encode_queries(queries), frames, video.layout)
    for qid, row in zip(queries.qids, scores, strict=True):
        assert_recorded(row, value_recorded[f"{kind}/{qid}"], qid)


@pytest.mark.parametrize("hard", ["", "_hard"])
@pytest.mark.parametrize("form", ["hinge", "lse"])
@pytest.mark.parametrize("task", CORPUS)
def test_ranking_losses(value, value_recorded, task, form, hard):
    schedule = MomentSchedule(
        RankingLoss(form, 0.1),
        hard_start_steps=[0] if hard else [],
        hard_pool_sizes=[2] if hard else [],
        hard_weights=[10.0] if hard else [],
    )
    model = value.model(HeroForVr, schedule=schedule).train()
    videos = value.videos(CORPUS[task], context=1)
    data = MomentDataset(value.texts(f"{task}_train"), videos.source)
    place = {ids[0]: number for number, ids in enumerate(data.groups)}
    qids = value.expected_json("batches")[task]
    losses = model(collate_moments([data[ItemKey(place[qid])] for qid in qids]))
    weighted = torch.stack([10 * losses["neg_ctx"], 10 * losses["neg_q"]])
    assert_recorded(weighted, value_recorded[f"vr_loss/{task}/{form}{hard}"])
