"""Ranking and span losses by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from model.ranking_loss import (
    HardNegatives,
    RankingLoss,
    span_loss,
)
from model.vcmr import MomentSchedule, convolve
from tests.support.small_world import small_model
from utils.packing import PackedLayout

# Two videos with one query each: s_pos 0.9 and 0.5.
SCORES = torch.tensor([[0.9, 0.85], [0.7, 0.5]])


def test_hinge_by_hand():
    neg_ctx, neg_q = RankingLoss("hinge", margin=0.1)(SCORES)
    # query 0 against video 1: 0.1 + 0.85 − 0.9; query 1 against video 0: 0.1 + 0.7 − 0.5
    torch.testing.assert_close(neg_ctx, torch.tensor([0.05, 0.3]))
    # video 0: query 1 (0.7) against 0.9 → 0; video 1: query 0 (0.85) against 0.5
    torch.testing.assert_close(neg_q, torch.tensor([0.0, 0.45]))


def test_lse_by_hand():
    neg_ctx, _ = RankingLoss("lse")(SCORES)
    wanted = torch.tensor([math.log(1 + math.exp(-0.05)), math.log(1 + math.exp(0.2))])
    torch.testing.assert_close(neg_ctx, wanted)


def test_two_queries_a_video_do_not_compete():
    scores = torch.tensor([[0.5, 0.1], [0.4, 0.9], [0.3, 0.5], [0.0, 0.6]])
    neg_ctx, neg_q = RankingLoss("hinge", margin=0.0)(scores)
    torch.testing.assert_close(neg_ctx, torch.tensor([0.0, 0.5, 0.0, 0.0]))
    # Video 0's query 0 (0.5) against queries 2, 3 (0.3, 0.0); query 1 (0.4) against the same.
    # Video 1's query 2 (0.5) against queries 0, 1 (0.1, 0.9): mean of 0 and 0.4; query 3: 0, 0.3.
    torch.testing.assert_close(neg_q, torch.tensor([0.0, 0.0, 0.2, 0.15]))


def test_hard_negatives_weigh_the_highest_scores():
    scores = torch.tensor([[0.5, 0.6, 0.4, 0.8], *[[0.0] * 4] * 3])
    plain, _ = RankingLoss("hinge", margin=0.2)(scores)
    assert plain[0].item() == pytest.approx((0.5 + 0.3 + 0.1) / 3)
    hard, _ = RankingLoss("hinge", margin=0.2)(scores, HardNegatives(pool_size=1, weight=10.0))
    assert hard[0].item() == pytest.approx((10 * 0.5 + 0.1 * 0.3 + 0.1 * 0.1) / 3)


def test_one_drawn_negative_comes_from_the_hard_pool():
    scores = torch.tensor([[0.5, 0.6, 0.4, 0.8], *[[0.0] * 4] * 3])
    loss = RankingLoss("hinge", margin=0.2, use_all_neg=False)
    generator = torch.Generator().manual_seed(0)
    drawn = {
        round(loss(scores, HardNegatives(2, 10.0), generator)[0][0].item(), 4) for _ in range(50)
    }
    assert drawn == {0.5, 0.3}
    anywhere = {round(loss(scores, None, generator)[0][0].item(), 4) for _ in range(50)}
    assert anywhere == {0.5, 0.3, 0.1}


def test_one_negative_query_is_drawn_for_a_video_and_all_its_queries():
    # Two videos with two queries each. s_pos: 1.0, 0.9 and 1.0, 0.8; the other queries' scores:
    # 0.3 and 0.2 for video 0, 0.5 and 0.4 for video 1. All losses are margin + s_neg − s_pos.
    scores = torch.tensor([[1.0, 0.5], [0.9, 0.4], [0.3, 1.0], [0.2, 0.8]])
    loss = RankingLoss("hinge", margin=1.0, use_all_neg=False)
    generator = torch.Generator().manual_seed(0)
    neg_q = torch.stack([loss(scores, None, generator)[1] for _ in range(60)])
    drawn = neg_q - 1.0 + torch.tensor([1.0, 0.9, 1.0, 0.8])
    torch.testing.assert_close(drawn[:, 0], drawn[:, 1])
    torch.testing.assert_close(drawn[:, 2], drawn[:, 3])
    pairs = {(round(a, 4), round(b, 4)) for a, b in drawn[:, ::2].tolist()}
    assert pairs == {(0.3, 0.5), (0.3, 0.4), (0.2, 0.5), (0.2, 0.4)}  # each video draws its own
    hardest = loss(scores, HardNegatives(1, 10.0), generator)[1]  # not weighted
    torch.testing.assert_close(hardest, torch.tensor([0.3, 0.4, 0.5, 0.7]))


def test_one_video_has_no_negatives_but_a_gradient():
    scores = torch.ones(2, 1, requires_grad=True)
    neg_ctx, neg_q = RankingLoss()(scores)
    (neg_ctx.sum() + neg_q.sum()).backward()
    assert neg_ctx.tolist() == neg_q.tolist() == [0.0, 0.0]
    assert scores.grad.tolist() == [[0.0], [0.0]]


def test_a_video_scores_by_its_best_frame():
    frames = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    queries = torch.tensor([[0.0, 5.0]])
    scores = small_model().video_scores(queries, frames, PackedLayout.from_lengths([2, 1]))
    torch.testing.assert_close(scores, torch.tensor([[1.0, math.sqrt(0.5)]]))


def test_lengths_of_other_ranks_come_from_the_host():
    """Those on the device are not read: here they have no values."""
    model = small_model().train()
    frames, queries = torch.randn(3, 2), torch.randn(2, 2)
    twice = PackedLayout.from_lengths([2, 1, 2, 1])
    expected = model.ranking_losses(frames.repeat(2, 1), twice, queries.repeat(2, 1))
    own = PackedLayout.from_lengths([2, 1]).map_tensors(lambda tensor: tensor.to("meta"))
    model.comm = SimpleNamespace(
        size=2,
        rank=0,
        all_gather=lambda tensor: tensor.repeat(2),
        all_gather_parts=lambda tensor: [tensor, tensor],
    )
    assert model.ranking_losses(frames, own, queries) == expected


def test_padded_frames_are_zeros_for_the_convolution():
    model = small_model()
    torch.nn.init.ones_(model.video_st_predictor.weight)
    torch.nn.init.constant_(model.video_ed_predictor.weight, -1e4)
    similarities = torch.tensor([[1.0, 2.0, 7.0, math.nan]])  # the last two only pad
    mask = torch.tensor([[True, True, False, False]])
    start, end = model.span_logits(similarities, mask)
    assert start.tolist() == [[3.0, 3.0, -1e4, -1e4]]
    assert end.tolist() == [[-3e4, -3e4, -1e4, -1e4]]
    for probabilities in model.span_probabilities(similarities, mask):
        assert probabilities.tolist() == [[0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("taps", [1, 5])
def test_a_convolution_is_that_of_conv1d(taps):
    x, kernels = torch.randn(2, 3, 9), torch.randn(2, taps)
    wanted = F.conv1d(x.view(6, 1, 9).double(), kernels[:, None].double(), padding=taps // 2)
    found = convolve(x, kernels)
    torch.testing.assert_close(found, wanted.view(2, 3, 2, 9).permute(2, 0, 1, 3).float())


def test_span_loss_ignores_queries_without_a_target():
    logits = torch.zeros(2, 4)
    targets = torch.tensor([[1, 2], [-1, -1]])
    assert span_loss(logits, logits, targets).item() == pytest.approx(2 * math.log(4))
    assert span_loss(logits, logits, targets, "sum").item() == pytest.approx(2 * math.log(4))
    assert span_loss(logits, logits, torch.full((2, 2), -1)).item() == 0.0


def test_the_schedule_of_hard_negatives_and_spans():
    schedule = MomentSchedule(
        span_start_step=10,
        hard_start_steps=[20, -1, 30],
        hard_pool_sizes=[5, 6, 7],
        hard_weights=[1.0, 2.0, 3.0],
    )
    assert schedule.hard_negatives(19) is None
    assert schedule.hard_negatives(20) == HardNegatives(5, 1.0)
    assert schedule.hard_negatives(31) == HardNegatives(7, 3.0)
    generator = torch.Generator()
    assert not schedule.span_wanted(9, generator) and schedule.span_wanted(10, generator)
    assert not MomentSchedule(span_start_step=-1).span_wanted(99, generator)


def test_spans_are_dropped_as_often_as_asked():
    schedule = MomentSchedule(drop_svmr_prob=0.8)
    generator = torch.Generator().manual_seed(1)
    kept = sum(schedule.span_wanted(0, generator) for _ in range(2000))
    assert 320 < kept < 480  # 400 ± 4.5 standard deviations
