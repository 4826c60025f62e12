"""Multi-task training of VALUE's data sets against the record: losses, gradients, movement."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from config.config import ValueOptions, parse_options
from config.groups import Kind
from data.batch import SetBatch
from data.value_sets import Databases, OpenSet, collate_set, open_training_sets
from engine.run import start_training
from engine.trainer import Trainer
from model.checkpoint import read_state_dict
from model.multitask import HeroForMultiTask
from tests.support.recorded import placed
from tests.support.recorded_value import WEIGHTS, WIDE_SIZE, ValueWorld
from tests.support.value_lists import recorded_lists
from train_all_multitask import open_task

pytestmark = pytest.mark.golden_value

MAX_STEPS = 12  # of the schedule; fewer are recorded


@pytest.fixture(scope="module")
def value(golden_value) -> ValueWorld:
    return ValueWorld(golden_value)


def find_item(opened: OpenSet, name: str) -> int:
    """The place of a query, statement or caption, or of a video with its captions."""
    dataset = opened.dataset
    if opened.entry.kind in (Kind.MOMENTS, Kind.VIDEOS):
        return dataset.groups.index([name])
    if opened.entry.kind is not Kind.CAPTIONS:
        return dataset.ids.index(name)
    of_clips = opened.entry.data_set == "tvc"
    ids = dataset.vids if of_clips else [id_ for _, id_, _ in dataset.items]
    return ids.index(name)


class RecordedBatches:
    """The recorded batches, one after the other."""

    def __init__(self, sets: list[OpenSet], steps: list[dict]) -> None:
        self.batches = self._all({each.label: each for each in sets}, steps)

    @staticmethod
    def _all(sets: dict[str, OpenSet], steps: list[dict]) -> Iterator[SetBatch]:
        for step in steps:
            opened = sets[step["dataset"]]
            items = [opened[find_item(opened, item)] for item in step["items"]]
            yield placed(collate_set(items))

    def __next__(self) -> SetBatch:
        return next(self.batches)

    def load_state_dict(self, state: dict) -> None:
        """Nothing to take up."""


@pytest.fixture
def recorded_run(value: ValueWorld, tmp_path: Path):
    record = value.expected_json("train_multitask")
    weights = {}
    for name in WEIGHTS:
        weights |= read_state_dict(value.expected / name)
    torch.save(weights, tmp_path / "start.pt")
    sizes = {name: each["batch_size"] for name, each in record["datasets"].items()}
    per_step = max(
        sum(s["optimizer_step"] == step["optimizer_step"] for s in record["micro_steps"])
        for step in record["micro_steps"]
    )
    values = {
        "checkpoint": str(tmp_path / "start.pt"),
        "output_dir": str(tmp_path / "run"),
        "max_clip_len": 12,
        "sub_ctx_len": 0,
        "max_txt_len": -1,
        "dropout": 0.0,
        "weight_decay": 1.0,
        "learning_rate": 1e-4,
        "lr_mul": 10,  # has no effect
        "num_train_steps": MAX_STEPS,
        "warmup_steps": 2,
        "gradient_accumulation_steps": per_step,
        "drop_svmr_prob": 0.0,
        "hard_pool_size": [2],
        "hard_neg_weights": [10],
        "hard_negative_start_step": [5],  # steps that are done: from the sixth on
        "log_steps": 1,
        "valid_steps": 2 * MAX_STEPS,
        "skip_data_check": True,
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(recorded_lists(value.folder, sizes, **values)))
    run = start_training(parse_options(ValueOptions, ["--config", str(config)]))
    task = open_task(run)
    sets = open_training_sets(Databases(run.options, run.vocab_size))
    task.loader = RecordedBatches(sets, record["micro_steps"])
    return Trainer(task, run), len(record["micro_steps"]) // per_step


def test_ten_steps_of_nine_data_sets(value, value_recorded, recorded_run):
    trainer, steps = recorded_run
    model = trainer.task.model
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses, norms, rates = [], [], []
    for _ in range(steps):
        losses += [total.item() for total in trainer.step().totals]
        norms.append(trainer.means.take_means()["grad_norm"])
        rates.append(trainer.rate)
    for key, found in (("loss", losses), ("grad_norm", norms), ("lr", rates)):
        recorded = value_recorded[f"train/multitask/{key}"]
        np.testing.assert_allclose(found, recorded, rtol=1e-4, err_msg=key)
    names = value.expected_json("train_multitask_parameters")
    now = dict(model.named_parameters())
    assert set(names) == now.keys()
    for name, moved in zip(names, value_recorded["train/multitask/param_change"], strict=True):
        tolerance = 5e-3 if name.endswith("lm_head.bias") else 1e-3
        distance = (now[name].detach() - start[name]).norm().item()
        np.testing.assert_allclose(distance, moved, rtol=tolerance, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [None, WIDE_SIZE])
def test_its_weights_are_called_as_the_single_tasks_are(value, size):
    recorded = value.expected_json("state_dict_keys")
    wide = "" if size is None else f"_{size}"
    named = recorded[f"HeroForMultiTask{wide}"]["parameters"]
    model = value.model(HeroForMultiTask, size)
    shapes = {name: list(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    assert shapes == {name: list(shape) for name, shape in dict(named).items()}
    single = ("HeroForVcmr", "HeroForVideoQA", "HeroForVideoCap")
    union = {name for cls in single for name in recorded[cls]["parameters"]}
    assert union == shapes.keys()
