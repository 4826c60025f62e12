"""Reading the recorded world: its models, databases and tolerances."""

import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from config.model_config import ModelConfig
from data.loader import ItemKey
from data.stores.lmdb_io import FeatureDb, TextDb
from data.vcmr import MomentDataset, collate_moments
from data.video import SubtitleSource
from model.checkpoint import LoadReport, load_weights, read_state_dict
from model.layers import set_dropout
from model.vcmr import HeroForVcmr, MomentSchedule
from tests.conftest import TEST_DEVICE
from utils.batch import TensorBatch

DEVICE = torch.device(TEST_DEVICE)
# Of the recording, and of a GPU's other order of sums.
ABSOLUTE, RELATIVE = 2e-4 if DEVICE.type == "cpu" else 3e-4, 1e-5
# Of a training's losses, norms and rates.
TRAINING = 1e-4 if DEVICE.type == "cpu" else 3e-4
BatchT = TypeVar("BatchT", bound=TensorBatch)


def assert_recorded(actual: torch.Tensor, recorded: np.ndarray, what: str = "") -> None:
    """Within the tolerance of the recording: 2e-4 (a GPU: 3e-4) absolute or 1e-5 relative."""
    actual = actual.detach().float().cpu().numpy()
    assert actual.shape == recorded.shape, what
    np.testing.assert_allclose(
        actual, recorded, atol=ABSOLUTE, rtol=RELATIVE, err_msg=what, equal_nan=False
    )


def placed(batch: BatchT) -> BatchT:
    """A batch on the device that models compute on."""
    return batch.to(DEVICE)


def load_recorded(model: nn.Module, *files: Path) -> LoadReport:
    """Load the union of the files' weights."""
    state = {}
    for file in files:
        state.update(read_state_dict(file))
    return load_weights(model, state)


def recorded_run(expected: Path, name: str, folder: Path, head: str = "") -> Path:
    """A run folder as a user has it: options, model sizes, weights of step 1.

    Args:
        head: file of the weights that the pre-trained model lacks.
    """
    run = folder / name
    shutil.copytree(expected / name / "log", run / "log")
    (run / "ckpt").mkdir()
    weights = read_state_dict(expected / "pretrained.pt")
    if head:
        weights |= read_state_dict(expected / head)
    torch.save(weights, run / "ckpt" / "model_step_1.pt")
    return run


def saved(run: Path, kind: str = "results", folder: str = "results_val", step: str = "1") -> Any:
    """A file that an evaluation of the validation split wrote."""
    return json.loads((run / folder / f"{kind}_{step}_all.json").read_text())


def recorded_vcmr(expected: Path, schedule: MomentSchedule | None = None) -> HeroForVcmr:
    """The recorded moment-retrieval model, without dropout."""
    config = ModelConfig.from_json(expected / "model_finetune.json")
    model = HeroForVcmr(config, schedule=schedule)
    load_recorded(model, expected / "pretrained.pt")
    set_dropout(model, 0.0)
    return model.to(DEVICE)


def recorded_source(world: Path, max_clip_len: int = 100, context: int = 0) -> SubtitleSource:
    """Videos with subtitles of the recorded world."""
    features = FeatureDb(world / "video_db" / "tv", max_clip_len=max_clip_len)
    return SubtitleSource(TextDb(world / "txt_db" / "tv_subtitles.db"), features, context)


def recorded_batch(expected, world, max_clip_len):
    qids = json.loads((expected / "batches.json").read_text())["vcmr_batch_qids"]
    data = MomentDataset(
        TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, max_clip_len)
    )
    place = {ids[0]: number for number, ids in enumerate(data.groups)}
    return placed(collate_moments([data[ItemKey(place[qid])] for qid in qids]))
