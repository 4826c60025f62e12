"""Another temporal encoder: an LSTM in place of the transformer, one class for all tasks."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import model.hero
from config.model_config import ModelConfig
from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from model.checkpoint import read_state_dict
from model.layers import set_dropout
from model.vcmr import HeroForVcmr
from model.videoQA import HeroForVideoQA
from tests.support.recorded import recorded_source
from tests.support.recorded_answers import TVQA
from tests.support.tvr_runs import train_and_evaluate

pytestmark = pytest.mark.golden


class TemporalLstm(nn.Module):
    """Runs over the frames of a video, and the text behind them, in both directions."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, frames, positions, layout):
        padded, _ = layout.pad(frames)  # (S, L, H)
        lengths = layout.lengths.cpu()
        # Backwards, too, a sequence starts at its own last frame, not in its padding.
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        return layout.unpad(pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])

    def with_texts(self, frames, tokens, sequences):
        slots = frames.index_select(0, sequences.slot_frames)
        x = self(sequences.join(slots, tokens), None, sequences.layout)
        return x.index_select(0, sequences.slot_rows)


@pytest.fixture(autouse=True)
def _another_encoder(monkeypatch):
    monkeypatch.setattr(model.hero, "TemporalTransformer", TemporalLstm)


@pytest.fixture
def config(expected):
    torch.manual_seed(0)
    return ModelConfig.from_json(expected / "model_finetune.json")


def assert_trained(module, losses):
    """Every weight of the LSTM has a part in every loss."""
    weights = list(module.v_encoder.c_encoder.parameters())
    for name, loss in losses.items():
        for grad in torch.autograd.grad(loss, weights, retain_graph=True):
            assert grad.isfinite().all() and grad.abs().sum() > 0, name


def test_retrieval(tvr_options, world, config):
    model = HeroForVcmr(config)
    set_dropout(model, 0.0)
    data = MomentDataset(TextDb(tvr_options["val_query_txt_db"]), recorded_source(world))
    items = [data[place] for place in range(6)]
    batch = collate_moments(items)
    assert len(set(batch.video.frame_lens.tolist())) > 1
    losses = model(batch)
    assert set(losses) == {"st_ed", "neg_ctx", "neg_q"}
    assert_trained(model, losses)
    with torch.no_grad():
        together = model.encode_videos(batch.video)
        alone = [model.encode_videos(collate_moments([item]).video) for item in items]
        mean = sum(model.eval()(collate_moments([item]))["st_ed"] for item in items) / len(items)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(losses["st_ed"], mean, atol=1e-5, rtol=0)


def test_question_answering(world, config):
    model = HeroForVideoQA(config)
    set_dropout(model, 0.0)
    data = TVQA.data(world)
    items = [data[place] for place in range(len(data))]
    assert len({item.video.num_frames for item in items}) > 1
    batch = data.collate(items)
    assert_trained(model, model(batch))
    model.eval()
    with torch.no_grad():
        frames, together = model.candidate_frames(batch.candidates), model.answer(batch)
        batches = [data.collate([item]) for item in items]
        alone = [(model.candidate_frames(one.candidates), model.answer(one)) for one in batches]
    assert together.scores.std(dim=1).min() > 0  # the frames have met the answers
    close = {"atol": 5e-6, "rtol": 0}
    torch.testing.assert_close(frames, torch.cat([found for found, _ in alone]), **close)
    scores = torch.cat([one.scores for _, one in alone])
    torch.testing.assert_close(together.scores, scores, **close)
    for name, losses in together.losses.items():
        separate = torch.cat([one.losses[name] for _, one in alone])
        torch.testing.assert_close(losses, separate, **close)


def test_a_run_trains_saves_and_evaluates_it(tvr_options, tmp_path):
    run, _ = train_and_evaluate(tvr_options, tmp_path)
    first, last = (read_state_dict(run / "ckpt" / f"model_step_{step}.pt") for step in (1, 2))
    names = [name for name in last if name.startswith("v_encoder.c_encoder.")]
    assert len(names) == 8 and all("c_encoder.lstm." in name for name in names)
    assert not any(torch.equal(first[name], last[name]) for name in names)
