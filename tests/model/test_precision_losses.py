"""What half precision must not touch: scores, ranking and span losses, sums over subtitles."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model.hero import HierarchicalEncoder
from model.query_encoder import segment_attention_pool
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import DEVICE, placed, recorded_batch, recorded_vcmr
from tests.support.small_world import small_model
from utils.packing import PackedLayout

pytestmark = pytest.mark.device
HALVES = [torch.bfloat16, torch.float16]
WEIGHTS = {"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0}


def layout_of(*lengths):
    return placed(PackedLayout.from_lengths(lengths))


def half(dtype):
    return torch.autocast(DEVICE.type, dtype=dtype)


@pytest.fixture(scope="module")
def model(expected):
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    return recorded_vcmr(expected, schedule).train()


@pytest.fixture(scope="module")
def batch(expected, world):
    return recorded_batch(expected, world, 100)


def gradients(model, batch, frames, vectors, autocast, scale=1.0):
    """Of the weighted losses, by frame embeddings and query vectors."""
    frames, vectors = (x.detach().clone().requires_grad_() for x in (frames, vectors))
    with autocast:
        losses = model.ranking_losses(frames, batch.video.layout, vectors)
        losses["st_ed"] = model.span_losses(frames, batch, vectors)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
    found = torch.autograd.grad(total * scale, (frames, vectors))
    return [gradient.float() / scale for gradient in found]


@pytest.mark.golden
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("given", ["fp32", "half"])
def test_gradients_of_the_losses(model, batch, dtype, given):
    """Those of fp32, whatever the frames come in: with a loss scale of 65536 nothing overflows."""
    with torch.no_grad():
        frames, vectors = model.encode_videos(batch.video), model.encode_queries(batch)
    exact = gradients(model, batch, frames, vectors, nullcontext())
    if given == "half":
        frames, vectors = frames.to(dtype), vectors.to(dtype)
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    found = gradients(model, batch, frames, vectors, half(dtype), scale)
    share = 0.001 if given == "fp32" else 0.01
    for mine, wanted in zip(found, exact, strict=True):
        assert mine.isfinite().all()
        assert (mine - wanted).norm() < share * wanted.norm()


@pytest.mark.golden
def test_fp16_gradients_of_the_whole_model_fit_into_half_the_first_loss_scale(model, batch):
    """Some gradient is greater than one: times 65536 it is beyond fp16, so one step is skipped."""
    model.zero_grad()
    with half(torch.float16):
        losses = model(batch)
        total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
    (total * 2.0**15).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", HALVES)
def test_scores_and_span_logits_by_hand(dtype):
    # 0.6 · 1 + 0.8 · 2⁻⁹ needs more digits than half precision has.
    frames = torch.tensor([[3.0, 4.0], [1.0, 0.0]], device=DEVICE)
    query = torch.tensor([[1.0, 2.0**-9]], device=DEVICE)
    model = small_model().to(DEVICE)
    model.video_query_linear = nn.Identity()
    with torch.no_grad():
        model.video_st_predictor.weight.copy_(torch.eye(5, device=DEVICE)[2] * (1 + 2.0**-12))
    layout, own = layout_of(2), torch.tensor([0], device=DEVICE)
    with half(dtype):
        scores = model.video_scores(query, frames, layout_of(1, 1))
        start, _ = model.own_video_spans(query, frames, layout, own)
    length = (1 + 2.0**-18) ** 0.5
    wanted = torch.tensor([[(0.6 + 0.8 * 2**-9) / length, 1 / length]])
    torch.testing.assert_close(scores.cpu(), wanted, rtol=1e-6, atol=0)
    wanted = torch.tensor([[3 + 4 * 2**-9, 1.0]]) * (1 + 2.0**-12)
    torch.testing.assert_close(start.cpu(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_query_is_pooled_in_fp32(dtype):
    # Weights 3/4 and 1/4 of 1 and 1 + 2⁻⁷: 1 + 2⁻⁹ has no bf16; 1 and 1 + 2⁻¹⁰ likewise in fp16.
    step = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-10
    x = torch.tensor([[1.0], [1 + step]], dtype=dtype, device=DEVICE)
    logits = torch.tensor([[3.0], [1.0]], device=DEVICE).log()
    with half(dtype):
        pooled = segment_attention_pool(x, logits, layout_of(2))
    torch.testing.assert_close(pooled.cpu(), torch.tensor([[1 + step / 4]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_subtitles_are_added_up_in_fp32(monkeypatch, dtype):
    """A frame of 2048 that three subtitles add 1 to: in half precision it would stay 2048."""
    encoder = object.__new__(HierarchicalEncoder)
    for name, rows in (("_transform", [[2048.0]]), ("subtitle_vectors", [[1.0]] * 3)):
        vectors = torch.tensor(rows, dtype=dtype, device=DEVICE)
        monkeypatch.setattr(HierarchicalEncoder, name, lambda *_, vectors=vectors: vectors)
    zeros = torch.zeros(3, dtype=torch.long, device=DEVICE)
    video = SimpleNamespace(
        features=torch.zeros(1, 1, device=DEVICE),
        subtitles=SimpleNamespace(slot_rows=zeros, slot_targets=zeros, slot_sources=None),
    )
    with half(dtype):
        assert encoder.frame_vectors(video).tolist() == [[2051.0]]
