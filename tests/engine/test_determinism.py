"""Sums in a fixed order (``--deterministic``): what a GPU has them for, and whole trainings."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train_vcmr
from engine import trainer
from tests.support.damaged_world import World
from tests.support.recorded_captions import tvc_options
from tests.support.short_trainings import SCRIPTS, SHORT
from utils.files import write_json
from utils.runtime import set_deterministic
from utils.signals import Stopped

# Operations that PyTorch refuses on a GPU then (the documentation of
# torch.use_deterministic_algorithms); of cumsum, those of floats.
REFUSED = (
    *("avg_pool3d", "adaptive_avg_pool", "adaptive_max_pool", "fractional_max_pool", "max_unpool"),
    *("upsample_linear", "upsample_bilinear", "upsample_bicubic", "upsample_trilinear"),
    *("reflection_pad", "nll_loss2d", "ctc_loss", "_ctc_loss", "embedding_bag", "_embedding_bag"),
    *("put", "put_", "histc", "bincount", "median", "nanmedian", "grid_sampler", "scatter_reduce"),
    *("cumsum", "cumsum_"),
)


@pytest.fixture(autouse=True)
def afterwards(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    set_deterministic(False)


class Operations(TorchDispatchMode):
    """Names of the operations that forward, backward and optimizer call, on floats."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor) or result.is_floating_point():
            self.names.add(func.overloadpacket.__name__)
        assert torch.are_deterministic_algorithms_enabled()
        return result


@pytest.mark.golden
@pytest.mark.device
@pytest.mark.parametrize("task", SCRIPTS)
def test_a_gpu_has_a_fixed_order_for_all_that_a_task_calls(
    task, world, expected, tmp_path, fake_java
):
    small = World(tmp_path, task)
    config = small.write()
    options = tvc_options(world, expected) if task == "tvc" else small.config()
    write_json(config, options | SHORT | {"output_dir": str(tmp_path / "run")})
    with Operations() as called:
        SCRIPTS[task].main(["--config", str(config), "--deterministic"])
    assert {
        "index_select",
        "native_layer_norm_backward",
        "embedding_dense_backward",
    } <= called.names
    assert [name for name in called.names if name.startswith(REFUSED)] == []


@pytest.mark.golden
@pytest.mark.device
def test_a_run_that_goes_on_ends_in_the_same_bits(tvr_options, tmp_path, monkeypatch):
    """Stopped in the middle by a signal; dropout is on."""
    config = tmp_path / "options.json"
    write_json(config, tvr_options | {"num_train_steps": 4, "n_workers": 0, "deterministic": True})

    def train(folder: Path) -> dict[str, torch.Tensor]:
        train_vcmr.main(["--config", str(config), "--output_dir", str(folder)])
        return torch.load(folder / "ckpt" / "model_step_4.pt", weights_only=True)

    unbroken = train(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        signals = iter([None, signal.SIGTERM, signal.SIGTERM])
        patch.setattr(trainer, "received_signal", lambda: next(signals))
        with pytest.raises(Stopped, match=r"is of step 2"):
            train(tmp_path / "stopped")
    again = train(tmp_path / "stopped")
    assert unbroken.keys() == again.keys()
    assert [name for name in unbroken if not torch.equal(unbroken[name], again[name])] == []


def test_it_is_off_unless_asked_for(tmp_path):
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    config = World(tmp_path).write()
    train_vcmr.main(["--config", str(config), "--num_train_steps", "1", "--n_workers", "0"])
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_setting_of_the_users_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
