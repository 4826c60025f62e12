"""What the pre-training objectives draw, and their empty cases."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.fom import FomDataset, FomItem, collate_fom, shuffle_some
from data.loader import ItemKey
from data.mfm import MfmDataset, choose_frames, collate_mfm
from data.mlm import MlmDataset, TokenMasking, collate_mlm
from data.pretraining import OBJECTIVES, ObjectiveDataset, collate_objective
from data.vcmr import collate_moments
from data.vsm import VsmDataset, draw_queries, subtitle_frames
from tests.support.small_world import CLS, MASK, SEP, V_RANGE, make_source, small_model
from utils.errors import UserError

VIDEOS = {
    # a subtitle without a frame, and one without a token
    "a": (9, [([11, 12, 13], [0, 1]), ([], [2]), ([14, 15], []), ([16, 17], [4, 5, 6])]),
    "b": (4, [([20] * 80, [0, 1, 2, 3])]),
    "silent": (6, [([], [0, 1, 2, 3, 4]), ([], [5])]),  # pseudo-subtitles
    "unseen": (3, [([30, 31], [])]),
}


def assert_binomial(successes, trials, probability):
    """Within five standard deviations of what is expected."""
    spread = math.sqrt(trials * probability * (1 - probability))
    assert abs(successes - trials * probability) < 5 * spread, successes / trials


def masked_texts(count, length, prob=0.15):
    rng = np.random.default_rng(1)
    masking = TokenMasking(prob, MASK, np.arange(*V_RANGE))
    text = [5] * length  # an id that no random replacement can be
    return [masking(text, rng) for _ in range(count)]


def test_shares_of_masked_tokens():
    length, count = 40, 5000
    fates = Counter()
    for read, true in masked_texts(count, length):
        assert set(true.values()) == {5}
        assert all(read[place] == 5 for place in range(length) if place not in true)
        for place in true:
            fates["mask" if read[place] == MASK else "same" if read[place] == 5 else "random"] += 1
            assert read[place] in (MASK, 5) or V_RANGE[0] <= read[place] < V_RANGE[1]
    chosen = sum(fates.values())
    # One more, masked, where none of 40 was drawn: 0.85 to the 40th of the texts.
    undrawn = 0.85**length / length
    assert_binomial(chosen, length * count, 0.15 + undrawn)
    masked = (0.8 * 0.15 + undrawn) / (0.15 + undrawn)
    for fate, share in (
        ("mask", masked),
        ("random", (1 - masked) / 2),
        ("same", (1 - masked) / 2),
    ):
        assert_binomial(fates[fate], chosen, share)


def test_random_replacements_are_even():
    replaced = Counter(
        read[place]
        for read, true in masked_texts(4000, 100, prob=0.5)
        for place in true
        if read[place] not in (MASK, 5)
    )
    total, ids = sum(replaced.values()), range(*V_RANGE)
    assert set(replaced) == set(ids)
    for token in ids:
        assert_binomial(replaced[token], total, 1 / len(ids))


def test_where_no_token_is_drawn_the_first_one_is_masked():
    for read, true in masked_texts(100, 4, prob=0.0):
        assert (read, true) == ([MASK, 5, 5, 5], {0: 5})


def test_no_special_id_is_a_random_replacement():
    masking = TokenMasking.of(0.15, {"CLS": 0, "PAD": 7, "MASK": 5, "UNK": None, "v_range": [4, 9]})
    assert masking.replacements.tolist() == [4, 6, 8]


def test_shares_of_hidden_frames():
    rng = np.random.default_rng(2)
    masks = [choose_frames(30, 0.15, rng) for _ in range(4000)]
    assert min(mask.sum() for mask in masks) >= 1
    assert_binomial(sum(mask.sum() for mask in masks), 30 * 4000, 0.15 + 0.85**30 / 30)
    alone = sum(choose_frames(5, 0.0, rng) for _ in range(3000))
    for count in alone:
        assert_binomial(count, 3000, 0.2)


def test_shuffled_frames_change_places_among_themselves():
    rng = np.random.default_rng(3)
    chosen_before, stayed = 0, 0
    for _ in range(4000):
        order, chosen = shuffle_some(30, 0.15, rng)
        assert sorted(order[chosen]) == chosen.tolist()
        others = np.setdiff1d(np.arange(30), chosen)
        assert (order[others] == others).all()
        chosen_before += len(chosen)
        stayed += (order[chosen] == chosen).sum()
    assert_binomial(chosen_before, 30 * 4000, 0.15)
    # A random permutation leaves one frame in place on average, unless it is empty.
    assert abs(stayed / 4000 - (1 - 0.85**30)) < 5 / math.sqrt(4000)


def test_the_order_says_where_each_frame_goes():
    source = make_source(VIDEOS)
    item = FomItem(source("b"), order=np.array([2, 1, 3, 0]), chosen=np.array([0, 2, 3]))
    batch = collate_fom([FomItem(source("unseen"), np.arange(3), np.array([], int)), item])
    assert batch.source.tolist() == [0, 1, 2, 6, 4, 3, 5]  # slot 0 of "b" shows its frame 3
    assert batch.slots.tolist() == [5, 6, 3]
    assert batch.targets.tolist() == [0, 2, 3]


def test_queries_are_drawn_evenly_in_order():
    rng = np.random.default_rng(4)
    drawn = Counter()
    for _ in range(4000):
        queries = draw_queries([2, 3, 5, 8, 13, 21, 34, 55], rng)
        assert len(queries) == 5 and queries == sorted(set(queries))
        drawn.update(queries)
    for count in drawn.values():
        assert_binomial(count, 4000, 5 / 8)
    assert len(drawn) == 8


def test_fewer_subtitles_than_queries_repeat_the_last():
    rng = np.random.default_rng(0)
    assert draw_queries([4, 7], rng) == [4, 7, 7, 7, 7]
    assert draw_queries([1, 2, 3, 4, 5], rng) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("frames", "num_frames", "target"),
    [([3], 10, (3, 4)), ([3, 4, 7], 10, (3, 7)), ([9], 10, (9, 9)), ([8, 9], 10, (8, 9))],
)
def test_target_frames(frames, num_frames, target):
    assert subtitle_frames(frames, num_frames) == target


def test_masked_texts_with_and_without_frames():
    data = MlmDataset(["a", "b"], make_source(VIDEOS), 0.15, max_txt_len=60, seed=0)
    item = data[ItemKey(0)]
    assert [subtitle.frames for subtitle in item.video.subtitles] == [[0, 1], [], [4, 5, 6]]
    for subtitle, label, true in zip(
        item.video.subtitles, item.labels, [[11, 12, 13], [14, 15], [16, 17]], strict=True
    ):
        tokens = [label.get(place, token) for place, token in enumerate(subtitle.tokens)]
        assert tokens == [CLS, *true]
        assert len(label) >= 1
    assert len(data[ItemKey(1)].video.subtitles[0].tokens) == 61


def test_masked_texts_read_their_context():
    data = MlmDataset(["a"], make_source(VIDEOS, context=2), 0.0, max_txt_len=2, seed=0)
    item = data[ItemKey(0)]
    texts = [
        [label.get(place, token) for place, token in enumerate(subtitle.tokens)]
        for subtitle, label in zip(item.video.subtitles, item.labels, strict=True)
    ]
    assert texts == [[CLS, 11, 12], [CLS, 11, 12], [CLS, 11, 12, 14, 15], [CLS, 14, 15, 16, 17]]


def test_chosen_rows_hold_the_masked_tokens():
    data = MlmDataset(["b", "a"], make_source(VIDEOS), 0.4, max_txt_len=60, seed=3)
    batch = collate_mlm([data[ItemKey(0)], data[ItemKey(1)]])
    sequences = batch.video.subtitles
    slots = len(sequences.slot_rows)
    places = sequences.order[batch.rows] - slots  # among the tokens
    assert (places >= 0).all()
    read = sequences.token_ids[places]
    restored = sequences.token_ids.clone()
    restored[places] = batch.labels
    assert (read == MASK).any()
    assert restored.tolist() == [CLS, *[20] * 60, CLS, 11, 12, 13, CLS, 14, 15, CLS, 16, 17]


def test_a_query_is_not_in_the_video_nor_in_a_context():
    data = VsmDataset(["a"], make_source(VIDEOS, context=3), max_txt_len=60, seed=0)
    item = data[ItemKey(0)]
    assert item.queries == [[CLS, 11, 12, 13], *[[CLS, 16, 17]] * 4]
    assert item.targets == [(0, 1), *[(4, 6)] * 4]
    # Only the subtitle that has no frame was not a query; it stays, also as a context.
    texts = [subtitle.tokens for subtitle in item.video.subtitles]
    assert texts == [[SEP], [SEP], [SEP, 14, 15], [SEP, 14, 15]]


def test_videos_without_a_usable_subtitle_are_left_out():
    source = make_source(VIDEOS)
    assert VsmDataset(list(VIDEOS), source, 60, seed=0).vids == ["a", "b"]
    with pytest.raises(UserError, match="nothing to match"):
        VsmDataset(["silent", "unseen"], source, 60, seed=0)


def test_a_subtitle_beyond_the_cut_is_no_query():
    data = VsmDataset(["a"], make_source(VIDEOS, max_clip_len=3), 60, seed=0)
    assert data[ItemKey(0)].queries == [[CLS, 11, 12, 13]] * 5


def test_a_video_whose_features_end_before_any_subtitle_is_skipped(caplog):
    source = make_source(VIDEOS | {"late": (9, [([40], [6])])})
    data = VsmDataset(["late", "a", "b"], source, 60, seed=0)
    assert [data[n].video.vid for n in range(3)] == ["late", "a", "b"]
    source.features.id2nframe["late"] = 4  # after the data set was made: the record has but 4
    assert [data[n].video.vid for n in range(3)] == ["a", "a", "b"]
    assert [data[ItemKey(0, epoch)].video.vid for epoch in range(2)] == ["a", "a"]
    (said,) = caplog.records
    assert said.getMessage().startswith("late has 4 frames, fewer than its frame count")


@pytest.mark.parametrize("objective", ["mlm", "mfm", "fom", "vsm"])
def test_draws_follow_from_seed_epoch_and_item(objective):
    many = {f"v{n}": (30, [([20 + i] * 6, [i]) for i in range(12)]) for n in range(3)}
    source, vids = make_source(many), list(many)
    make = {
        "mlm": lambda seed: MlmDataset(vids, source, 0.15, 60, seed),
        "mfm": lambda seed: MfmDataset(vids, source, 0.15, seed),
        "fom": lambda seed: FomDataset(vids, source, seed),
        "vsm": lambda seed: VsmDataset(vids, source, 60, seed),
    }[objective]

    def told(seed, key):
        return repr(make(seed)[key]).encode()

    assert told(1, ItemKey(2, 5)) == told(1, ItemKey(2, 5))
    assert told(1, ItemKey(2, 5)) != told(1, ItemKey(2, 6))
    assert told(1, ItemKey(2, 5)) != told(2, ItemKey(2, 5))


def assert_zero_loss_and_gradient(batch):
    model = small_model()
    (loss,) = model(batch).values()
    assert loss.item() == 0.0
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_a_batch_without_text_has_no_masked_language_loss():
    data = MlmDataset(["silent"], make_source(VIDEOS), 0.15, 60, seed=0)
    assert_zero_loss_and_gradient(OBJECTIVES["mlm"].batch([data[ItemKey(0)]]))


def test_a_video_without_text_changes_nothing_for_the_others():
    data = MlmDataset(["silent", "a", "b"], make_source(VIDEOS), 0.15, 60, seed=0)
    model = small_model()
    items = [data[ItemKey(n)] for n in range(3)]
    alone, together = (model(OBJECTIVES["mlm"].batch(some))["mlm"] for some in (items[1:], items))
    torch.testing.assert_close(alone, together)


def test_a_text_alone_is_guessed_too():
    data = MlmDataset(["unseen"], make_source(VIDEOS), 0.15, 60, seed=0)
    assert small_model()(OBJECTIVES["mlm"].batch([data[ItemKey(0)]]))["mlm"].item() > 1


def test_a_batch_without_shuffled_frames_has_no_order_loss():
    item = FomItem(make_source(VIDEOS)("a"), np.arange(9), np.array([], dtype=np.int64))
    assert_zero_loss_and_gradient(OBJECTIVES["fom"].batch([item]))


def test_videos_longer_than_the_places_known():
    source = make_source({"long": (101, [])})
    batch = OBJECTIVES["fom"].batch([FomItem(source("long"), np.arange(101), np.array([3]))])
    with pytest.raises(UserError, match="101 frames; set max_clip_len to 100"):
        small_model()(batch)


def test_a_batch_whose_frames_are_all_hidden():
    source = make_source({"a": (1, [([11], [0])]), "b": (1, [])})
    data = MfmDataset(["a", "b"], source, 0.15, seed=0)
    batch = OBJECTIVES["mfm-nce"].batch([data[ItemKey(0)], data[ItemKey(1)]])
    assert len(batch.batch.others) == 0 and len(batch.batch.chosen) == 2
    assert math.isfinite(small_model()(batch)["mfm-nce"].item())


def test_hidden_features_are_not_seen():
    """The true features of a chosen frame reach the loss as the answer only."""
    source = make_source(VIDEOS)
    data = MfmDataset(["a", "b"], source, 0.3, seed=1)
    batch = collate_mfm([data[ItemKey(0)], data[ItemKey(1)]])
    model = small_model()
    before = model.frame_predictions(batch, contrastive=False)[0]
    batch.video.features[batch.chosen] += 100
    torch.testing.assert_close(model.frame_predictions(batch, contrastive=False)[0], before)
    batch.video.features[batch.others] += torch.randn(len(batch.others), 6)
    assert not torch.allclose(model.frame_predictions(batch, contrastive=False)[0], before)


def test_the_pool_of_frames_by_hand():
    """Three frames, one hidden: its prediction against the truth and two other predictions."""
    data = MfmDataset(["unseen"], make_source(VIDEOS), 0.0, seed=0)
    batch = OBJECTIVES["mfm-nce"].batch([data[ItemKey(0)]])
    model = small_model()
    predicted, true, others = model.frame_predictions(batch.batch, contrastive=True)
    assert (len(predicted), len(others)) == (1, 2)
    dots = [(predicted[0] @ answer).item() for answer in (true[0], others[0], others[1])]
    wanted = math.log(sum(math.exp(dot) for dot in dots)) - dots[0]
    assert model(batch)["mfm-nce"].item() == pytest.approx(wanted, rel=1e-5)


def test_the_vocabulary_of_the_loss_is_the_real_one():
    model = small_model()
    head = model.v_encoder.f_encoder.lm_head
    assert (head.vocab_size, head.bias.shape[0]) == (100, 104)
    data = MlmDataset(["a"], make_source(VIDEOS), 0.15, 60, seed=0)
    batch = OBJECTIVES["mlm"].batch([data[ItemKey(0)]])
    before = model(batch)["mlm"].item()
    with torch.no_grad():
        head.bias[100:] = 50.0  # would take all probability
    assert model.token_logits(batch.batch).shape[1] == 100
    assert model(batch)["mlm"].item() == before


@pytest.mark.parametrize(
    ("objective", "columns"),
    [
        ("mlm", {"acc"}),
        ("mfm-nce", {"acc", "l2", "cosine"}),
        ("mffr", {"l2", "cosine"}),
        ("fom", {"acc"}),
        ("vsm", {"st_ed", "neg_ctx", "neg_q"}),
    ],
)
def test_validation_sums_up_what_training_takes_the_mean_of(objective, columns):
    options = SimpleNamespace(mask_prob=0.15, max_txt_len=60)
    data = ObjectiveDataset(objective, ["a", "b"], make_source(VIDEOS), options, seed=5)
    batch = collate_objective([data[ItemKey(0)], data[ItemKey(1)]])
    weights = {"st_ed": 0.1, "neg_ctx": 8.0, "neg_q": 2.0}
    model = small_model()
    trained = model(batch)
    count, sums = model.eval().answer(batch).sums(defaultdict(lambda: 1.0, weights))
    assert count > 0 and set(sums) == {"loss"} | columns
    total = sum(weights.get(name, 1.0) * loss.double() for name, loss in trained.items())
    torch.testing.assert_close(sums["loss"], total * count)


def test_several_queries_of_a_video_are_scored_in_their_own_video():
    data = VsmDataset(["a", "b"], make_source(VIDEOS), 60, seed=0)
    batch = collate_moments([data[ItemKey(0)], data[ItemKey(1)]])
    assert batch.query_video.tolist() == [0] * 5 + [1] * 5
    assert batch.targets[5:].tolist() == [[0, 3]] * 5
