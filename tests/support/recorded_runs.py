"""Short training runs through the engine, compared with the record."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from engine.precision import Precision
from engine.restore import RunFolder
from engine.run import Run
from engine.trainer import Task, Trainer
from model.vcmr import HeroForVcmr
from tests.support.recorded import DEVICE, TRAINING, placed, recorded_source
from utils.distributed import Communicator, SingleProcess

WARMUP_STEPS, TOTAL_STEPS = 2, 10


class RecordedLoader:
    """Items one after the other in database order, wrapping around."""

    def __init__(self, dataset: Any, collate: Callable, batch_size: int) -> None:
        self.batches = self._all(dataset, collate, batch_size)

    @staticmethod
    def _all(dataset: Any, collate: Callable, batch_size: int) -> Iterator[Any]:
        number = 0
        while True:
            items = [dataset[(number + i) % len(dataset)] for i in range(batch_size)]
            yield placed(collate(items))
            number += batch_size

    def __next__(self) -> Any:
        return next(self.batches)

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to take up."""


def recorded_options(steps: int, accumulation: int, rate: float, lr_mul: float) -> Any:
    """The options that a trainer reads, as the runs were recorded."""
    return SimpleNamespace(
        next_step="",
        optim="adamw",
        learning_rate=rate,
        lr_mul=lr_mul,
        betas=[0.9, 0.98],
        weight_decay=1.0,
        grad_norm=1.0,
        warmup=WARMUP_STEPS,
        num_train_steps=TOTAL_STEPS,
        gradient_accumulation_steps=accumulation,
        apex=False,
        fp16=False,
        bf16=False,
        log_steps=1,
        valid_steps=TOTAL_STEPS + steps,
        save_steps=TOTAL_STEPS + steps,
        restore_steps=TOTAL_STEPS + steps,
        seed=0,
    )


def tvr_task(model: HeroForVcmr, world: Path) -> Task:
    """The recorded training of moment retrieval."""
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, 12))
    return Task(
        name="tvr",
        model=model,
        loader=RecordedLoader(data, collate_moments, batch_size=6),
        loss_weights={"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0},
        validate=lambda step: {},
        set_step=model.set_step,
    )


class StepRecorder:
    """Runs a few optimizer steps of the engine and keeps what the record has.

    Attributes:
        losses: weighted sum of every accumulation step.
        parts: the same, loss by loss.
    """

    def __init__(
        self,
        task: Task,
        options: Any,
        folder: Path,
        comm: Communicator | None = None,
        emulated_ranks: int = 1,
    ) -> None:
        run = Run(
            options,
            comm or SingleProcess(),
            DEVICE,
            None,
            Precision.from_options(options, DEVICE),
            RunFolder(folder),
            emulated_ranks,
        )
        self.losses: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.trainer, self.model = Trainer(task, run), task.model
        self.start = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def run(self, steps: int) -> dict[str, np.ndarray]:
        """Loss per accumulation step; gradient norm and learning rate per optimizer step."""
        norms, rates, weights = [], [], self.trainer.task.loss_weights
        for _ in range(steps):
            seen = self.trainer.step()
            self.losses += [total.item() for total in seen.totals]
            self.parts += [
                {name: weights[name] * loss.item() for name, loss in losses.items()}
                for losses in seen.losses
            ]
            norms.append(self.trainer.means.take_means()["grad_norm"])
            rates.append(self.trainer.rate)
        return {
            "loss": np.array(self.losses),
            "grad_norm": np.array(norms),
            "lr": np.array(rates),
        }

    def changes(self, names: Sequence[str]) -> np.ndarray:
        """L2 norm of how far each parameter moved."""
        own = dict(self.model.named_parameters())
        return np.array([(own[name].detach() - self.start[name]).norm().item() for name in names])


def assert_recorded_run(
    model: nn.Module, task: Task, kind: str, expected: Path, folder: Path, **settings: Any
) -> None:
    """Train as recorded under ``train/{kind}`` and compare losses, norms, rates, and movement."""
    with np.load(expected / "golden.npz") as arrays:
        record = {key: arrays[f"train/{kind}/{key}"] for key in ("loss", "grad_norm", "lr")}
        moved = arrays[f"train/{kind}/param_change"]
    steps = len(record["lr"])
    options = recorded_options(steps, **settings)
    recorder = StepRecorder(task, options, folder)
    result = recorder.run(steps)
    tolerance = 1e-3 if kind == "pretrain" else TRAINING
    for key, values in record.items():
        np.testing.assert_allclose(result[key], values, rtol=tolerance, err_msg=key)
    names = json.loads((expected / f"train_{kind}_parameters.json").read_text())
    own = {name for name, _ in model.named_parameters()}
    assert set(names) == own
    # Key biases cancel in the softmax: their gradient is rounding, and so is their movement.
    np.testing.assert_allclose(recorder.changes(names), moved, rtol=1e-3, atol=1e-6)
