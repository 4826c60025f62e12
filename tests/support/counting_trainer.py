"""A trainer of one weight whose batches are 1, 2, 3, …: gradients are known."""

from types import SimpleNamespace

import torch
from torch import nn

from engine.precision import Precision
from engine.restore import RunFolder
from engine.run import Run
from engine.trainer import Task, Trainer
from tests.support.recorded_runs import recorded_options
from utils.distributed import SingleProcess

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
