"""Every task trains and validates in bf16 on a CPU, near what fp32 gives."""

import numpy as np
import pytest
import torch

from tests.support.damaged_world import World
from tests.support.recorded_captions import tvc_options
from tests.support.short_trainings import SCRIPTS, SHORT
from utils.files import write_json


@pytest.fixture
def formats(monkeypatch):
    """Number formats of the products of matrices and weights, of all linear layers called."""
    seen, linear = set(), torch.nn.functional.linear

    def noting(*arguments, **options):
        product = linear(*arguments, **options)
        seen.add(product.dtype)
        return product

    monkeypatch.setattr(torch.nn.functional, "linear", noting)
    return seen


@pytest.mark.golden
@pytest.mark.device
@pytest.mark.parametrize("task", SCRIPTS)
def test_two_steps_and_a_validation(task, world, expected, tmp_path, fake_java, formats):
    small = World(tmp_path, task)
    config = small.write()
    # Captions are spelled: their databases need a tokenizer.
    options = tvc_options(world, expected) if task == "tvc" else small.config()
    metrics = {}
    for mode in ("fp32", "bf16"):
        formats.clear()
        write_json(config, options | SHORT | {"output_dir": str(tmp_path / mode)})
        words = ["--config", str(config), *(["--bf16"] if mode == "bf16" else [])]
        metrics[mode] = SCRIPTS[task].main(words)
        assert (torch.bfloat16 in formats) == (mode == "bf16")
        assert np.isfinite(list(metrics[mode].values())).all()
    losses = [name for name in metrics["fp32"] if "loss" in name]
    assert losses or task == "tvc"  # captions are judged by what is written
    for name in losses:
        assert metrics["bf16"][name] == pytest.approx(metrics["fp32"][name], rel=0.05)
