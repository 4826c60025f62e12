"""The training loop on a model small enough to work out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.precision import Precision
from engine.restore import RunFolder, load_restore_point
from engine.run import Run, _emulated_ranks
from engine.trainer import Task, Trainer
from tests.support.recorded_runs import recorded_options
from utils.distributed import SingleProcess
from utils.errors import UserError

CPU = torch.device("cpu")


class Scale(nn.Module):
    """loss = factor · x: the gradient is x."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        return {"a": self.factor * batch.x, "b": self.factor * 0}


class Count:
    """Batches with x = 1, 2, 3, …"""

    def __init__(self):
        self.number = 0

    def __next__(self):
        self.number += 1
        return SimpleNamespace(x=torch.tensor(float(self.number)), ids=[f"item{self.number}"])

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def make_trainer(
    folder, accumulation=1, emulated_ranks=1, loader=None, gradient_factors=None, **changes
):
    options = recorded_options(2, accumulation, rate=0.1, lr_mul=1.0)
    vars(options).update({"grad_norm": -1, "weight_decay": 0.0} | changes)
    run = Run(
        options,
        SingleProcess(),
        CPU,
        None,
        Precision.from_options(options, CPU),
        RunFolder(folder),
        emulated_ranks,
    )
    begun = []
    task = Task(
        name="count",
        model=Scale(),
        loader=loader or Count(),
        loss_weights={"a": 2.0, "b": 1.0},
        validate=lambda step: {"seen": step},
        set_step=lambda step, micro_step: begun.append((step, micro_step)),
        gradient_factors=gradient_factors or {},
    )
    trainer = Trainer(task, run)
    trainer.begun = begun
    return trainer


def first_gradient(trainer):
    trainer.step()
    return trainer.means.take_means()["grad_norm"]


def test_losses_are_weighted(tmp_path):
    assert first_gradient(make_trainer(tmp_path)) == 2.0


def test_accumulation_steps_are_summed(tmp_path):
    assert first_gradient(make_trainer(tmp_path, accumulation=3)) == 2.0 * (1 + 2 + 3)


def test_a_step_tells_the_losses_of_its_batches(tmp_path):
    seen = make_trainer(tmp_path, accumulation=2).step()
    assert seen.ids == ["item1", "item2"]
    assert [losses["a"].item() for losses in seen.losses] == [1.0, 2.0]
    assert [total.item() for total in seen.totals] == [2.0, 4.0]


def test_emulated_ranks_are_averaged(tmp_path):
    trainer = make_trainer(tmp_path, accumulation=2, emulated_ranks=2)
    assert first_gradient(trainer) == 2.0 * (1 + 2 + 3 + 4) / 2
    assert trainer.begun == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_a_factor_on_a_gradient_does_not_change_what_is_logged(tmp_path):
    trainer = make_trainer(tmp_path, gradient_factors={"a": 0.25})
    trainer.step()
    means = trainer.means.take_means()
    assert means["grad_norm"] == 2.0 * 0.25
    assert (means["loss/a"], means["loss/total"]) == (1.0, 2.0)


def test_a_skipped_step_is_not_logged(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.guard = None
    trainer.precision.scale.scaler = torch.amp.GradScaler("cpu")  # what fp16 adds
    loader = trainer.task.loader
    loader.number = float("inf")
    assert trainer.step() is None
    assert trainer.steps_done == 0 and trainer.means.take_means() == {}
    loader.number = 0
    assert trainer.step()
    means = trainer.means.take_means()
    assert (means["loss/a"], means["loss/total"], means["grad_norm"]) == (1.0, 2.0, 2.0)


def test_ranks_of_a_recipe_must_be_shared_out_evenly():
    options = SimpleNamespace(num_gpus_of_recipe=8)
    assert _emulated_ranks(options, SimpleNamespace(size=2)) == 4
    assert _emulated_ranks(SimpleNamespace(num_gpus_of_recipe=None), SimpleNamespace(size=3)) == 1
    with pytest.raises(UserError, match="8 cannot be shared out evenly over 3 ranks"):
        _emulated_ranks(options, SimpleNamespace(size=3))


def test_clipping_bounds_the_step_but_reports_the_norm(tmp_path):
    assert first_gradient(make_trainer(tmp_path, grad_norm=0.5)) == 2.0


def test_a_run_validates_saves_and_resumes(tmp_path):
    changes = {"num_train_steps": 4, "valid_steps": 3, "save_steps": 2, "restore_steps": 2}
    trainer = make_trainer(tmp_path, **changes)
    assert trainer.train() == {"seen": 4.0}
    steps = {path.name for path in (tmp_path / "ckpt").iterdir()}
    assert steps == {"model_step_2.pt", "model_step_3.pt", "model_step_4.pt"}
    assert load_restore_point(RunFolder(tmp_path))["loader"] == {"number": 4}
    again = make_trainer(tmp_path, **changes)
    assert again.steps_done == 4 and again.train() == {"seen": 4.0}


def test_a_validation_that_fails_does_not_cost_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, valid_steps=1)

    def fail(step):
        raise RuntimeError("no Java")

    trainer.task.validate = fail
    with pytest.raises(RuntimeError, match="no Java"):
        trainer.train()
    assert (tmp_path / "ckpt" / "model_step_1.pt").exists()


def test_nothing_is_written_after_a_loss_that_is_not_finite(tmp_path):
    loader = Count()
    loader.number = float("inf")
    trainer = make_trainer(tmp_path, loader=loader, save_steps=1, restore_steps=1)
    with pytest.raises(UserError, match=r"not finite at step 1 of task count; .* iteminf"):
        trainer.train()
    assert not (tmp_path / "ckpt").exists() and not (tmp_path / "restore.pt").exists()
