"""Training on several real ranks against the record of two."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.support.launching import launch, launched
from tests.support.recorded import TRAINING
from tests.support.workers.recorded_ranks import RecordedBatches, shared_first_step, train
from utils.distributed import SingleProcess

pytestmark = [pytest.mark.golden, pytest.mark.device]

RECORD = json.loads((GOLDEN / "expected" / "two_ranks.json").read_text())
RUNS = [*RECORD["runs"]]
FIRST_STEPS = ["step1", "step1_hard", "step1_with_spans"]
RANKING_ALONE = FIRST_STEPS[:2]
ROUNDING = 2e-6  # recorded movements below it are those of parameters without a real gradient


@pytest.fixture(scope="module")
def recorded(expected):
    with np.load(expected / "two_ranks.npz") as arrays:
        return dict(arrays)


def trained(backend, ranks, names, expected, world, folder):
    """What rank 0 of so many found in the trainings of these names."""
    output = folder / "results.json"
    run = launch(backend, "recorded_ranks.py", expected, world, output, *names, ranks=ranks)
    assert run.returncode == 0, run.stdout
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def two_ranks(backend, expected, world, tmp_path_factory):
    names = [*RUNS, *FIRST_STEPS, "undivided", "shared/step1/2"]
    return trained(backend, 2, names, expected, world, tmp_path_factory.mktemp(backend))


@launched
@pytest.mark.parametrize("name", RUNS)
def test_losses_and_gradients(two_ranks, recorded, name):
    result = two_ranks[name]
    for key in ("loss", "grad_norm", "lr"):
        np.testing.assert_allclose(result[key], recorded[f"{name}/{key}"], rtol=1e-4, err_msg=key)


@launched
def test_parts_of_losses(two_ranks, recorded):
    with_parts = [name for name in RUNS if f"{name}/loss_parts" in recorded]
    assert with_parts
    for run in with_parts:
        names, weights = ("st_ed", "neg_ctx", "neg_q"), RECORD["runs"][run]["loss_weights"]
        divisors = dict.fromkeys(names, 1.0)
        if "qa" in weights:  # recorded without weights
            names, divisors = ("qa", "st_ed"), weights
        ours = [
            [[part.get(name, 0.0) / divisors[name] for name in names] for part in ranks]
            for ranks in two_ranks[run]["parts"]
        ]
        np.testing.assert_allclose(ours, recorded[f"{run}/loss_parts"], rtol=1e-4, err_msg=run)


@launched
@pytest.mark.parametrize("name", RUNS)
def test_parameters_move(two_ranks, recorded, expected, name):
    moved = two_ranks[name]["moved"]
    names = json.loads((expected / RECORD["runs"][name]["parameters"]).read_text())
    assert set(names) == set(moved)
    ours, wanted = np.array([moved[n] for n in names]), recorded[f"{name}/param_change"]
    real = wanted >= ROUNDING
    np.testing.assert_allclose(ours[real], wanted[real], rtol=1e-3)
    assert ours[~real].max(initial=0.0) < 10 * ROUNDING
    assert not ours[wanted == 0].any()


@launched
@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_step(two_ranks, recorded, name):
    result = two_ranks[name]
    np.testing.assert_allclose(result["loss"], recorded[f"{name}/loss_two_ranks"], rtol=1e-4)
    norm = recorded[f"{name}/grad_norm_two_ranks"]
    np.testing.assert_allclose(result["grad_norm"], [norm], rtol=1e-4)


@launched
def test_undivided_gradient_is_that_of_one_process(two_ranks, expected):
    result = two_ranks["undivided"]
    with np.load(expected / "golden.npz") as arrays:
        loss, norm = arrays["train/tvr/loss"], arrays["train/tvr/grad_norm"]
        moved = arrays["train/tvr/param_change"]
    np.testing.assert_allclose(np.mean(result["loss"], axis=1), loss, rtol=1e-4)
    np.testing.assert_allclose(result["grad_norm"], norm, rtol=1e-4)
    names = json.loads((expected / "train_tvr_parameters.json").read_text())
    ours = [result["moved"][name] for name in names]
    np.testing.assert_allclose(ours, moved, rtol=1e-3, atol=1e-6)


@launched
def test_gradient_on_four_ranks_is_a_quarter(recorded, expected, world, tmp_path):
    """Of torchrun; four of Horovod: test_launchers.py."""
    words = {name: f"shared/{name}/1" for name in RANKING_ALONE}
    results = trained("torch", 4, words.values(), expected, world, tmp_path)
    for name, word in words.items():
        norm = recorded[f"{name}/grad_norm_one_process"] / 4
        np.testing.assert_allclose(results[word]["grad_norm"], [norm], rtol=1e-4)


@launched
def test_two_ranks_that_stand_in_for_two_each(two_ranks, recorded):
    norm = recorded["step1/grad_norm_one_process"] / 4
    np.testing.assert_allclose(two_ranks["shared/step1/2"]["grad_norm"], [norm], rtol=1e-4)


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_one_process(recorded, expected, world, name):
    run = shared_first_step(RECORD, name, ranks=1)
    result = train(run, expected, world, SingleProcess())
    loss, norm = (recorded[f"{name}/{key}_one_process"] for key in ("loss", "grad_norm"))
    np.testing.assert_allclose(np.ravel(result["loss"]), loss, rtol=TRAINING)
    np.testing.assert_allclose(result["grad_norm"], [norm], rtol=TRAINING)


@pytest.mark.parametrize("name", FIRST_STEPS)
@pytest.mark.parametrize("ranking_gradient", ["published", "undivided"])
def test_one_process_emulates_two(recorded, expected, world, name, ranking_gradient):
    """Each batch comes twice: the mean over the two is what one gives."""
    run = shared_first_step(RECORD, name, ranks=1)
    run = RecordedBatches(run.settings, run.micro_steps, ranking_gradient, emulated_ranks=2)
    result = train(run, expected, world, SingleProcess())
    key = "two_ranks" if ranking_gradient == "published" else "one_process"
    np.testing.assert_allclose(
        result["grad_norm"], [recorded[f"{name}/grad_norm_{key}"]], rtol=TRAINING
    )
    loss = np.repeat(recorded[f"{name}/loss_one_process"][None], 2, axis=0)  # not divided
    np.testing.assert_allclose(np.ravel(result["loss"]), loss.ravel(), rtol=TRAINING)
