"""The pre-training objectives on recorded inputs."""

import json
from itertools import cycle

import numpy as np
import pytest
import torch

from data.pretraining import OBJECTIVES
from data.video import context_tokens
from data.vsm import VsmDataset, subtitle_frames
from engine.trainer import Task
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import assert_recorded, placed
from tests.support.recorded_pretraining import Inputs, build
from tests.support.recorded_runs import assert_recorded_run

pytestmark = [pytest.mark.golden, pytest.mark.device]

WEIGHTS = {"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0}


@pytest.fixture(scope="module")
def inputs(expected, world):
    return Inputs(json.loads((expected / "pretrain_inputs.json").read_text()), world)


def batch_of(name, items):
    return placed(OBJECTIVES[name].batch(items))


@pytest.fixture(scope="module")
def model(expected):
    return build(expected)


def test_weight_names_are_the_contract(expected, model):
    contract = json.loads((expected / "state_dict_keys.json").read_text())["HeroForPretraining"]
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert own == contract["parameters"]


@pytest.mark.parametrize(("kind", "key"), [(None, "mlm/loss"), ("mlm_ctx", "mlm_ctx/loss")])
def test_masked_tokens(model, inputs, recorded, kind, key):
    batch = batch_of("mlm", inputs.mlm(kind))
    assert_recorded(model.answer(batch).losses["mlm"], recorded[key])
    assert model(batch)["mlm"].item() == pytest.approx(recorded[key].mean(), abs=2e-4)


def test_contrasted_frames(model, inputs, recorded):
    batch = batch_of("mfm-nce", inputs.mfm())
    assert_recorded(model.answer(batch).losses["mfm-nce"], recorded["mfm_nce/loss"])
    assert model(batch)["mfm-nce"].item() == pytest.approx(recorded["mfm_nce/loss"].mean(), 1e-5)


def test_regressed_frames(model, inputs, recorded):
    batch = batch_of("mffr", inputs.mfm())
    predicted, true, negatives = model.frame_predictions(batch.batch, contrastive=False)
    squares = recorded["mffr/loss"]
    assert len(negatives) == 0
    assert_recorded((predicted - true) ** 2, squares)
    losses = np.sqrt(squares.sum(axis=1))
    assert_recorded(model.answer(batch).losses["mffr"], losses)
    assert model(batch)["mffr"].item() == pytest.approx(losses.mean(), rel=1e-5)


def test_frame_order(model, inputs, recorded):
    batch = batch_of("fom", inputs.fom())
    logits = model.v_encoder.fom_output(model.shuffled_frames(batch.batch))
    assert_recorded(logits, recorded["fom/logits"])
    assert_recorded(model(batch)["fom"], recorded["fom/loss"])


@pytest.mark.parametrize(("kind", "key"), [(None, "vsm/loss"), ("vsm_ctx", "vsm_ctx/loss")])
def test_subtitles_find_their_moment(model, inputs, recorded, kind, key):
    losses = model(batch_of("vsm", inputs.vsm(kind)))
    assert_recorded(torch.stack([WEIGHTS[name] * losses[name] for name in WEIGHTS]), recorded[key])


def test_subtitles_find_their_moment_among_hard_negatives(expected, inputs, recorded):
    schedule = MomentSchedule(RankingLoss("hinge", margin=0.1))
    schedule.hard_start_steps, schedule.hard_pool_sizes = [0], [3]
    schedule.hard_weights = [10.0]
    losses = build(expected, schedule)(batch_of("vsm", inputs.vsm()))
    weighted = torch.stack([WEIGHTS[name] * losses[name] for name in WEIGHTS])
    assert_recorded(weighted, recorded["vsm/loss_hard"])


@pytest.mark.parametrize("kind", [None, "vsm_ctx"])
def test_inputs_of_subtitle_matching_follow_from_the_queries(inputs, kind):
    """The same queries chosen by us give the recorded texts, targets and what is left to read."""
    source, wanted = inputs.source(kind), inputs.vsm(kind)
    data = VsmDataset([item.video.vid for item in wanted], source, max_txt_len=60, seed=0)
    cls_id = source.subtitles.meta["CLS"]
    for vid, item in zip(data.vids, wanted, strict=True):
        video = source(vid)
        whole = source.transcript(vid, video.num_frames)
        texts = [[cls_id, *text] for text in whole.texts]
        kept = dict(whole.frames)
        chosen = [
            next(
                number
                for number, frames in kept.items()
                if texts[number] == query
                and frames
                and subtitle_frames(frames, video.num_frames) == target
            )
            for query, target in zip(item.queries, item.targets, strict=True)
        ]
        assert chosen == sorted(chosen)
        assert chosen[len(set(chosen)) :] == chosen[-1:] * (5 - len(set(chosen)))
        ours = data._item(vid, video.features, whole, chosen)
        assert (ours.queries, ours.targets) == (item.queries, item.targets)
        assert [s.tokens for s in ours.video.subtitles] == [s.tokens for s in item.video.subtitles]
        assert [s.frames for s in ours.video.subtitles] == [s.frames for s in item.video.subtitles]


@pytest.mark.parametrize("kind", [None, "mlm_ctx"])
def test_texts_of_masked_language_modelling_are_the_recorded_ones(inputs, kind):
    """Where no token is chosen, our text is the recorded one with its labels filled in."""
    source = inputs.source(kind)
    for item in inputs.mlm(kind):
        whole = source.transcript(item.video.vid, item.video.num_frames)
        ours = [
            context_tokens(whole.texts, number, source.context, 0) for number, _ in whole.frames
        ]
        true = []
        for subtitle, label in zip(item.video.subtitles, item.labels, strict=True):
            true.append([label.get(i, token) for i, token in enumerate(subtitle.tokens)])
        assert true == [text for text in ours if len(text) > 1]


def test_short_run(expected, inputs, tmp_path):
    model = build(expected)
    items = {
        "mlm": inputs.mlm(),
        "mffr": inputs.mfm(),
        "fom": inputs.fom(),
        "vsm": inputs.vsm(),
    }
    batches = {name: batch_of(name, some) for name, some in items.items()}
    order = cycle(["mlm", "mffr", "fom", "vsm", "mffr", "mlm"])
    task = Task(
        name="pretrain",
        model=model,
        loader=(batches[name] for name in order),
        loss_weights=dict.fromkeys(OBJECTIVES, 1.0) | WEIGHTS,
        validate=lambda step: {},
        set_step=model.set_step,
    )
    assert_recorded_run(
        model, task, "pretrain", expected, tmp_path, accumulation=1, rate=1e-4, lr_mul=1.0
    )
