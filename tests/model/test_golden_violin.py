"""VIOLIN against the record (weights and training: test_golden_videoqa.py)."""

import pytest
import torch

from tests.support.recorded import assert_recorded, placed, saved
from tests.support.recorded_answers import VIOLIN

pytestmark = [pytest.mark.golden, pytest.mark.device]


@torch.no_grad()
def test_logits_and_losses_alone_and_in_a_mixed_batch(expected, world, recorded):
    model, data = VIOLIN.model(expected).eval(), VIOLIN.data(world)
    items = [data[number] for number in range(len(data))]
    assert len({item.video.num_frames for item in items}) > 1
    together = model.answer(VIOLIN.batch(data))
    for number, id_ in enumerate(data.ids):
        alone = model.answer(VIOLIN.batch(data, number))
        for answers, place in ((alone, 0), (together, number)):
            logit, loss = recorded[f"violin/logit/{id_}"], recorded[f"violin/loss/{id_}"]
            assert_recorded(answers.scores[place : place + 1], logit.reshape(1), id_)
            assert_recorded(answers.losses["violin"][place], loss.reshape(()), id_)
            assert answers.chosen[place] == (logit.item() > 0)


def test_a_pair_in_training_is_the_mean_of_its_halves(expected, world):
    model = VIOLIN.model(expected)
    alone, pairs = VIOLIN.data(world, "train"), VIOLIN.data(world, "train", training=True)
    with torch.no_grad():
        halves = model.eval()(VIOLIN.batch(alone, 0, 1, 2))["violin"]
        both = model.train()(VIOLIN.batch(pairs, 0))["violin"]
        mixed = model.train()(placed(pairs.collate([pairs[0], alone[2]])))["violin"]
    assert pairs[0].ids == alone.ids[:2]
    torch.testing.assert_close(both, halves[:2].mean(), atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, halves.mean(), atol=1e-6, rtol=0)


def test_the_loss_of_a_hopeless_statement_is_finite(expected, world):
    model, data = VIOLIN.model(expected).train(), VIOLIN.data(world)
    with torch.no_grad():
        model.violin_pred_head.linear_2.bias.fill_(-1000.0)
    true = next(item for item in map(data.__getitem__, range(len(data))) if item.targets == [1])
    loss = model(placed(data.collate([true])))["violin"]
    loss.backward()
    assert loss.item() == pytest.approx(1000, abs=10)
    assert model.violin_pool.weight.grad.isfinite().all()


def test_result_file_and_metrics(expected, world, tmp_path):
    run = VIOLIN.run_folder(expected, tmp_path)
    metrics = VIOLIN.evaluate_run(run, world, "--save_logits")
    results = saved(run, folder="results_val_w_logit")
    assert results == saved(expected / "exp_violin")
    loss, accuracy = VIOLIN.recorded_metrics(expected, "eval_violin.py")
    assert metrics["loss/violin"] == pytest.approx(loss, abs=0.006)
    assert metrics["accuracy"] == accuracy
    logits = saved(run, "logits", "results_val_w_logit")
    assert {id_: int(logit > 0) for id_, logit in logits.items()} == results


def test_ranks_answer_what_one_process_answers(expected, world):
    (alone,) = VIOLIN.answer_on_ranks(expected, world, 1)
    for split in VIOLIN.answer_on_ranks(expected, world, 2):
        assert split == alone
