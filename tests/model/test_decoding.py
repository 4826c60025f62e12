"""Writing captions: with and without kept keys and values, greedily and with a beam."""

import itertools
import math

import numpy as np
import pytest
import torch

from config.config import parse_options
from config.groups import DecodingOptions
from config.model_config import ModelConfig
from data.batch import CaptionBatch
from data.tvc import collate_clips
from data.video import Subtitle, VideoItem, collate_texts, collate_videos
from model.decoding import DecodingSettings, beam_search, greedy_search, search, until_end
from model.layers import set_dropout
from model.multitask import HeroForMultiTask
from model.tvc import CaptionStepper, HeroForTvc, smoothed_loss
from model.vcmr import HeroForVcmr
from tests.support.recorded import DEVICE, placed
from utils.errors import UserError

pytestmark = pytest.mark.device

BEGIN, END, KNOWN = 0, 2, (0, 2, 3, 4, 5, 6)
BLOCK = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "vocab_size": 16,
}
CLIPS = [[(0, 3), (2, 7)], [(1, 2), (0, 4), (3, 4)]]  # of two videos


def settings(max_steps=8, beam=1, length_penalty=1.0, known=KNOWN):
    return DecodingSettings(BEGIN, END, known, max_steps, beam, length_penalty)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    blocks = dict.fromkeys(("f_config", "c_config", "d_config"), BLOCK)
    model = HeroForTvc(ModelConfig.from_dict(blocks), 6)
    set_dropout(model, 0.0)
    with torch.no_grad():  # far from the even distribution of an untrained model
        model.v_encoder.f_encoder.embeddings.word_embeddings.weight.mul_(60)
        for layer in model.decoder.layer:
            layer.dec_enc_attention.value.weight.mul_(6)
    return model.to(DEVICE).eval()


@pytest.fixture(scope="module")
def videos():
    rng = np.random.default_rng(0)
    return [
        VideoItem(name, rng.standard_normal((frames, 6)).astype(np.float32), [subtitle])
        for name, frames, subtitle in (
            ("a", 7, Subtitle([2, 5, 6], [0, 1, 2])),
            ("b", 4, Subtitle([2, 4], [1])),
        )
    ]


@pytest.fixture(scope="module")
def batch(videos):
    return placed(collate_videos(videos)), placed(collate_clips(list(zip(videos, CLIPS))))


def teacher_forced(model, batch, captions):
    """Logits of every next token, one (L + 1, V) a clip; no cache anywhere."""
    video, clips = batch
    text = placed(collate_texts([[BEGIN, *caption] for caption in captions]))
    sizes = [len(caption) + 1 for caption in captions]
    full = CaptionBatch(["x"], video, clips, text, text.token_ids, text.layout)
    with torch.no_grad():
        return model.logits(full).split(sizes)


def known_only(logits, known=KNOWN):
    """Logits with −inf for ids that must not be written."""
    masked = torch.full_like(logits, float("-inf"))
    masked[..., list(known)] = logits[..., list(known)]
    return masked


def log_prob(model, batch, clip, tokens, known):
    """Log-probability of ``tokens`` (END too, where it ends) for one clip."""
    captions = [list(tokens[:-1]) if number == clip else [] for number in range(5)]
    steps = known_only(teacher_forced(model, batch, captions)[clip], known).log_softmax(-1)
    return steps[torch.arange(len(tokens)), list(tokens)].sum().item()


class Script:
    """A stepper whose next token depends on the last alone: {token: {next: probability}}."""

    def __init__(self, table, vocab_size=8):
        self.logits = torch.full((vocab_size, vocab_size), -1e9)
        for token, following in table.items():
            for next_token, probability in following.items():
                self.logits[token, next_token] = math.log(probability)
        self.calls = 0

    def __call__(self, tokens):
        self.calls += 1
        return self.logits[tokens]

    def reorder(self, rows):
        pass


def run(table, *clip_settings, count=1):
    stepper = Script(table)
    ids = search(stepper, count, torch.device("cpu"), settings(*clip_settings))
    return until_end(ids, END), stepper.calls


def written_from_scratch(model, batch, steps):
    """Greedy captions, every step computed again."""
    captions, ended = [[] for _ in range(5)], set()
    for _ in range(steps):
        for number, logits in enumerate(teacher_forced(model, batch, captions)):
            token = known_only(logits[-1]).argmax().item()
            if token == END:
                ended.add(number)
            if number not in ended:
                captions[number].append(token)
    return captions


def test_kept_keys_and_values_change_nothing(model, batch):
    written = model.generate(*batch, settings())
    assert len({tuple(row) for row in written}) > 1 and max(map(len, written)) > 2
    assert written == written_from_scratch(model, batch, 8)


@torch.no_grad()
def test_logits_step_by_step_equal_those_of_whole_captions(model, batch):
    video, clips = batch
    captions = [[3, 4, 5, 6, 3], [4, 4, 4, 4, 4], [6, 5, 4, 3, 3], [5, 3, 5, 3, 5], [3, 3, 6, 6, 6]]
    whole = torch.stack(teacher_forced(model, batch, captions))  # (C, 6, V)
    stepper = CaptionStepper(model, model.v_encoder(video), clips, settings())
    inputs = torch.tensor([[BEGIN, *caption] for caption in captions], device=DEVICE)
    steps = torch.stack([stepper(column) for column in inputs.T], dim=1)
    torch.testing.assert_close(steps, whole, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_what_is_kept_follows_its_hypothesis(model, batch):
    video, clips = batch
    stepper = CaptionStepper(model, model.v_encoder(video), clips, settings(beam=2))
    stepper(torch.full((10,), BEGIN, device=DEVICE))
    written = torch.tensor([3, 4] * 5, device=DEVICE)
    stepper(written)
    # In every clip: both go on from the second, both from the first, exchanged, …
    parents = torch.tensor([1, 1, 2, 2, 5, 4, 6, 7, 9, 8], device=DEVICE)
    stepper.reorder(parents)
    logits = stepper(torch.full((10,), 5, device=DEVICE)).view(5, 2, -1)
    histories = written[parents].view(5, 2)
    for place in range(2):
        captions = [[history[place].item(), 5] for history in histories]
        scratch = torch.stack([steps[-1] for steps in teacher_forced(model, batch, captions)])
        torch.testing.assert_close(logits[:, place], scratch, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_captions_do_not_depend_on_the_batch(model, batch, videos, beam):
    together = model.generate(*batch, settings(beam=beam))
    alone = []
    for video, clips in zip(videos, CLIPS):
        for clip in clips:
            one = placed(collate_videos([video])), placed(collate_clips([(video, [clip])]))
            alone += model.generate(*one, settings(beam=beam))
    assert alone == together


def test_a_beam_of_one_is_greedy(model, batch):
    video, clips = batch
    frames, device = model.v_encoder(video), DEVICE
    for penalty in (0.0, 1.0, 2.0):
        one = settings(8, 1, penalty)
        with torch.no_grad():
            greedy = greedy_search(CaptionStepper(model, frames, clips, one), 5, device, one)
            beam = beam_search(CaptionStepper(model, frames, clips, one), 5, device, one)
        assert until_end(beam, END) == until_end(greedy, END)


def test_a_beam_finds_what_greed_misses():
    # 3 looks best (0.6) but leads to 0.6 · 0.4 = 0.24; 4 (0.4) leads to 0.4 · 0.9 = 0.36.
    table = {
        BEGIN: {3: 0.6, 4: 0.4},
        3: {5: 0.4, 6: 0.35, END: 0.25},
        4: {6: 0.9, END: 0.1},
        5: {END: 1.0},
        6: {END: 1.0},
    }
    assert run(table, 8)[0] == [[3, 5]]
    assert run(table, 8, 2)[0] == [[4, 6]]
    assert run(table, 8, 2, count=3)[0] == [[4, 6]] * 3


def test_the_best_that_ended_is_kept_when_it_is_pushed_out():
    # [3] has ended after 2 tokens with log(0.5 · 0.6) / 2 = −0.602. Then [4, 5, 6] and [4, 5, 7],
    # log(0.5 · 0.99 · 0.5) / 3 = −0.466 each, push it out of a beam of two; but what follows them
    # is worse: log(0.5 · 0.99 · 0.5 · 0.25) / 4 = −0.696.
    quarters = dict.fromkeys((3, 4, 5, 6), 0.25)
    table = {BEGIN: {3: 0.5, 4: 0.5}, 3: {END: 0.6, 3: 0.4}, 4: {5: 0.99, 6: 0.01}}
    table |= {5: {6: 0.5, 7: 0.5}, 6: quarters, 7: quarters}
    assert run(table, 4, 2, 1.0, (*KNOWN, 7), count=2) == ([[3]] * 2, 4)


def test_the_search_ends_when_nothing_that_grows_can_win():
    # The empty caption: log 0.9 = −0.105. What grows has log 0.1 = −2.303 and loses nothing more:
    # over 10 tokens −0.230, over 50 −0.046.
    table = {BEGIN: {END: 0.9, 3: 0.1}, 3: {3: 1.0}}
    assert run(table, 10, 2, 1.0) == ([[]], 1)
    assert run(table, 50, 2, 1.0) == ([[3] * 50], 50)
    assert run(table, 50, 2, 0.0) == ([[]], 1)


def test_length_penalty_by_hand():
    # [3]: log(0.5 · 0.6) = −1.20 over 2 tokens; [4, 5]: log(0.5 · 0.5) = −1.39 over 3.
    table = {BEGIN: {3: 0.5, 4: 0.5}, 3: {END: 0.6, 6: 0.4}, 4: {5: 0.5, 6: 0.5}, 5: {END: 1.0}}
    table |= {6: {6: 0.5, 5: 0.5}}
    assert run(table, 8, 4, 0.0)[0] == [[3]]
    assert run(table, 8, 4, 1.0)[0] == [[4, 5]]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all(model, batch, penalty):
    """Also checks that kept keys and values follow their hypotheses."""
    known = (END, 3, 4)
    limit, words = 3, known[1:]
    written = model.generate(*batch, settings(limit, 30, penalty, known))
    for clip in range(5):
        candidates = [
            (*body, END) for n in range(limit) for body in itertools.product(words, repeat=n)
        ]
        candidates += itertools.product(words, repeat=limit)
        scores = {
            tokens: log_prob(model, batch, clip, tokens, known) / len(tokens) ** penalty
            for tokens in candidates
        }
        best = max(scores, key=scores.get)
        assert written[clip] == [token for token in best if token != END]


@pytest.mark.parametrize("beam", [1, 3])
def test_the_search_stops_at_the_limit_or_when_all_have_ended(beam):
    forever = {BEGIN: {3: 1.0}, 3: {3: 1.0}}
    assert run(forever, 5, beam, count=2) == ([[3] * 5] * 2, 5)
    soon = {BEGIN: {3: 0.9, 4: 0.1}, 3: {END: 1.0}, 4: {END: 1.0}}
    captions, calls = run(soon, 50, min(beam, 2), count=2)
    assert (captions, calls) == ([[3]] * 2, 2)


def test_an_empty_caption():
    assert run({BEGIN: {END: 1.0}}, 5)[0] == [[]]
    assert run({BEGIN: {END: 0.9, 3: 0.1}, 3: {END: 1.0}}, 5, 2)[0] == [[]]


@pytest.mark.parametrize("beam", [1, 4])
def test_unknown_ids_are_never_written(model, batch, beam):
    bias = model.v_encoder.f_encoder.lm_head.bias
    unknown = [i for i in range(len(bias)) if i not in KNOWN]
    wanted = model.generate(*batch, settings(beam=beam))
    with torch.no_grad():
        bias[unknown] += 1e3
        written = model.generate(*batch, settings(beam=beam))
        bias[unknown] -= 1e3
    assert {token for row in written for token in row} <= set(KNOWN)
    assert written == wanted


def test_more_steps_than_positions(model, batch):
    with pytest.raises(UserError, match=r"33 positions.*max_gen_step"):
        model.generate(*batch, settings(33))


def test_smoothed_loss_by_hand():
    # V = 4, prediction (0.4, 0.3, 0.2, 0.1), word 1, ε = 0.3: target (0.1, 0.7, 0.1, 0.1).
    prediction, target = [0.4, 0.3, 0.2, 0.1], [0.1, 0.7, 0.1, 0.1]
    divergence = sum(t * math.log(t / p) for t, p in zip(target, prediction))
    logits = torch.tensor([prediction]).log() + 5.0
    assert smoothed_loss(logits, torch.tensor([1]), 0.3).item() == pytest.approx(divergence)
    assert smoothed_loss(logits, torch.tensor([1]), 0.0).item() == pytest.approx(-math.log(0.3))


def test_a_model_without_a_decoder_is_refused():
    config = ModelConfig.from_dict({"f_config": BLOCK, "c_config": BLOCK})
    with pytest.raises(UserError, match="no d_config"):
        HeroForTvc(config, 6)


@pytest.mark.parametrize("model_class", [HeroForVcmr, HeroForMultiTask])
def test_a_search_without_a_query_encoder_is_refused(model_class):
    config = ModelConfig.from_dict({"f_config": BLOCK, "c_config": BLOCK})
    with pytest.raises(UserError, match="no q_config"):
        model_class(config, 6)


def test_options():
    opts = parse_options(DecodingOptions, [])
    assert (opts.max_gen_step, opts.beam, opts.length_penalty, opts.toker) == (30, 1, 1.0, None)
    opts = parse_options(DecodingOptions, ["--beam", "4", "--length_penalty", "0.6"])
    made = DecodingSettings.from_options(opts, BEGIN, END, list(KNOWN))
    assert made == DecodingSettings(BEGIN, END, KNOWN, 30, 4, 0.6)
    for wrong in (["--beam", "0"], ["--length_penalty", "-1"]):
        with pytest.raises(UserError, match=wrong[0].strip("-")):
            parse_options(DecodingOptions, wrong)
