"""Half-precision training follows fp32's loss."""

import numpy as np
import pytest
import torch

from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from engine.precision import Precision
from engine.restore import RunFolder
from engine.run import Run
from engine.trainer import Task, Trainer
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.recorded import recorded_source, recorded_vcmr
from tests.recorded_runs import RecordedLoader, recorded_options
from utils.distributed import SingleProcess

pytestmark = pytest.mark.golden


class OnDevice:
    """A recorded loader whose batches lie on a device."""

    def __init__(self, loader, device):
        self.loader, self.device = loader, device

    def __next__(self):
        return next(self.loader).to(self.device)


def loss_curve(expected, world, folder, mode, device, steps):
    """Total loss of every step of a moment-retrieval training."""
    model = recorded_vcmr(expected, MomentSchedule(ranking=RankingLoss("hinge", 0.1))).to(device)
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, 12))
    options = recorded_options(steps, accumulation=1, rate=1e-4, lr_mul=1.0)
    options.weight_decay = 0.01
    options.num_train_steps = 2 * steps
    comm, precision = SingleProcess(), Precision(mode, device)
    run = Run(options, comm, device, None, precision, RunFolder(folder / mode))
    task = Task(
        name="tvr",
        model=model,
        loader=OnDevice(RecordedLoader(data, collate_moments, batch_size=6), device),
        loss_weights={"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0},
        validate=lambda step: {},
        begin_batch=model.begin_batch,
    )
    trainer = Trainer(task, run)
    losses = []
    while trainer.steps_done < steps:
        if trainer.step():
            losses.append(trainer.running.take_means()["loss/total"])
    return np.array(losses)


def assert_follows(curve, reference, share):
    """Means over ten steps differ by less than ``share``."""
    windows = [values.reshape(-1, 10).mean(axis=1) for values in (curve, reference)]
    np.testing.assert_allclose(*windows, rtol=share)


def test_bf16_follows_on_a_cpu(expected, world, tmp_path):
    curves = {
        mode: loss_curve(expected, world, tmp_path, mode, torch.device("cpu"), 20)
        for mode in ("fp32", "bf16")
    }
    assert curves["fp32"][-5:].mean() < curves["fp32"][:5].mean()  # it learns
    assert_follows(curves["bf16"], curves["fp32"], 0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["bf16", "fp16"])
def test_half_precision_follows_on_a_gpu(expected, world, tmp_path, mode):
    device = torch.device("cuda")
    reference = loss_curve(expected, world, tmp_path, "fp32", device, 200)
    assert_follows(loss_curve(expected, world, tmp_path, mode, device, 200), reference, 0.02)
