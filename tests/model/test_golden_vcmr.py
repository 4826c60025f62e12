"""Query vectors, spans, scores and losses of moment retrieval against the record."""

import pytest
import torch

from data.batch import QueryBatch
from data.stores.lmdb_io import TextDb
from data.vcmr import CorpusQueries
from data.video import collate_texts, collate_videos
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import (
    DEVICE,
    assert_recorded,
    placed,
    recorded_batch,
    recorded_source,
    recorded_vcmr,
)

pytestmark = [pytest.mark.golden, pytest.mark.device]

WEIGHTS = {"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0}


@pytest.fixture(scope="module")
def model(expected):
    return recorded_vcmr(expected).eval()


@pytest.fixture(scope="module")
def val_queries(world):
    queries = CorpusQueries(TextDb(world / "txt_db" / "tvr_val.db"))
    return placed(queries.collate([queries[i] for i in range(len(queries))]))


@torch.no_grad()
def test_query_vectors(model, recorded, val_queries):
    vectors = model.encode_queries(val_queries)
    for qid, vector in zip(val_queries.qids, vectors, strict=True):
        assert_recorded(vector, recorded[f"query/{qid}"], qid)


@torch.no_grad()
def test_span_logits(model, recorded, val_queries, world):
    source = recorded_source(world)
    vids = sorted(set(val_queries.vids))
    video = placed(collate_videos([source(vid) for vid in vids]))
    frames = model.encode_videos(video)
    place = torch.tensor([vids.index(vid) for vid in val_queries.vids], device=DEVICE)
    start, end = model.own_video_spans(
        model.encode_queries(val_queries), frames, video.layout, place
    )
    for row, (qid, length) in enumerate(zip(val_queries.qids, video.frame_lens[place])):
        assert_recorded(start[row, :length], recorded[f"st/{qid}"], qid)
        assert_recorded(end[row, :length], recorded[f"ed/{qid}"], qid)


@torch.no_grad()
def test_video_scores(model, recorded, val_queries, world):
    source = recorded_source(world)
    video = placed(collate_videos([source(vid) for vid in sorted(source.features.id2nframe)]))
    frames = model.encode_videos(video)
    scores = model.video_scores(model.encode_queries(val_queries), frames, video.layout)
    for row, qid in enumerate(val_queries.qids):
        assert_recorded(scores[row], recorded[f"q2v/{qid}"], qid)


@torch.no_grad()
def test_a_pass_of_videos_and_queries_equals_each_alone(model, expected, world):
    batch = recorded_batch(expected, world, 100)
    frames, vectors = model.encode_moments(batch)
    source = recorded_source(world)
    alone = [model.encode_videos(collate_videos([source(vid)])) for vid in batch.video.vids]
    torch.testing.assert_close(frames, torch.cat(alone), atol=1e-5, rtol=0)
    tokens = batch.text.token_ids.split(batch.text.layout.lengths.tolist())
    assert len({len(text) for text in tokens}) > 1
    for text, vector in zip(tokens, vectors, strict=True):
        query = QueryBatch(["q"], ["q"], [None], collate_texts([text.tolist()]))
        torch.testing.assert_close(vector, model.encode_queries(query)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["hinge", "lse"])
@pytest.mark.parametrize("hard", [False, True])
def test_losses(expected, world, recorded, kind, hard):
    schedule = MomentSchedule(ranking=RankingLoss(kind, margin=0.1))
    if hard:
        schedule.hard_start_steps, schedule.hard_pool_sizes = [0], [3]
        schedule.hard_weights = [10.0]
    model = recorded_vcmr(expected, schedule).train()
    losses = model(recorded_batch(expected, world, max_clip_len=12))
    weighted = torch.stack([WEIGHTS[name] * losses[name] for name in WEIGHTS])
    assert_recorded(weighted, recorded[f"vcmr_loss/{kind}_all{'_hard' if hard else ''}"])


def test_losses_of_videos_of_mixed_lengths(expected, world, recorded):
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    losses = recorded_vcmr(expected, schedule).train()(recorded_batch(expected, world, 100))
    weighted = torch.stack([WEIGHTS[name] * losses[name] for name in ("neg_ctx", "neg_q")])
    assert_recorded(weighted, recorded["vcmr_loss/mixed_lengths"])


@torch.no_grad()
def test_losses_in_evaluation_mode_are_sums_and_vectors(expected, world, recorded):
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    losses = recorded_vcmr(expected, schedule).eval()(recorded_batch(expected, world, 12))
    for name, weight in WEIGHTS.items():
        assert_recorded(weight * losses[name], recorded[f"vcmr_loss_eval/{name}"], name)
