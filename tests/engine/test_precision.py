"""Number formats: autocast, loss scaling, skipped steps."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine import precision as precision_module
from engine.precision import Precision
from optim.adamw import AdamW
from tests.support.recorded import DEVICE
from utils.errors import UserError

CPU = torch.device("cpu")
pytestmark = pytest.mark.device


@pytest.fixture
def fp16(monkeypatch) -> Precision:
    """fp16 with loss scaling, also on a CPU: for the arithmetic alone."""
    monkeypatch.setattr(precision_module, "_check_device", lambda mode, device: None)
    return Precision("fp16", DEVICE)


def one() -> nn.Parameter:
    return nn.Parameter(torch.tensor(1.0, device=DEVICE))


def take_step(precision: Precision, parameter: nn.Parameter, slope: float) -> bool:
    optimizer = AdamW([parameter], lr=0.1, weight_decay=0.0)
    parameter.grad = None
    precision.backward(parameter * slope)
    precision.unscale_(optimizer)
    return precision.step(optimizer)


@pytest.mark.parametrize(
    ("mode", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast(monkeypatch, mode, dtype):
    monkeypatch.setattr(precision_module, "_check_device", lambda mode, device: None)
    rows, weight = torch.ones(2, 3, device=DEVICE), torch.ones(3, 2, device=DEVICE)
    with Precision(mode, DEVICE).autocast():
        assert (rows @ weight).dtype == dtype
    assert (rows @ weight).dtype == torch.float32


@pytest.mark.parametrize(
    ("fp16", "bf16", "mode", "said"),
    [
        (True, False, "fp32", 1),
        (None, False, "fp32", 0),  # "where there is CUDA"
        (False, False, "fp32", 0),
        (False, True, "bf16", 0),
    ],
)
def test_number_format_of_a_cpu(fp16, bf16, mode, said, caplog):
    options = SimpleNamespace(fp16=fp16, bf16=bf16)
    assert Precision.from_options(options, CPU).mode == mode
    assert len(caplog.records) == said
    assert "fp16 needs a CUDA device: computing in fp32" in caplog.text or not said


@pytest.mark.parametrize("mode", ["fp32", "bf16"])
def test_no_scaling_without_fp16(mode):
    precision, parameter = Precision(mode, DEVICE), one()
    assert precision.scale.scaler.get_scale() == 1.0
    assert take_step(precision, parameter, slope=3.0)
    assert parameter.grad.item() == 3.0
    assert parameter.item() == pytest.approx(0.9, abs=1e-5)


def test_fp16_scales_the_loss_and_unscales_the_gradient(fp16):
    parameter = one()
    fp16.backward(parameter * 3.0)
    assert parameter.grad.item() == 3.0 * 2**16
    assert take_step(fp16, parameter, slope=3.0)
    assert parameter.grad.item() == 3.0
    assert parameter.item() == pytest.approx(0.9, abs=1e-5)


def test_fp16_overflow_skips_the_step_and_halves_the_scale(fp16):
    parameter = one()
    assert not take_step(fp16, parameter, slope=float("inf"))
    assert parameter.item() == 1.0
    assert (fp16.scale.scaler.get_scale(), fp16.scale.overflows) == (2.0**15, 1)
    assert take_step(fp16, parameter, slope=1.0)
    assert fp16.scale.overflows == 0
    assert parameter.item() == pytest.approx(0.9, abs=1e-5)


def test_fp16_gives_up_after_many_overflows_in_a_row(fp16):
    parameter = one()
    for _ in range(precision_module.MOST_OVERFLOWS_IN_A_ROW - 1):
        assert not take_step(fp16, parameter, slope=float("nan"))
    with pytest.raises(UserError, match="30 times in a row"):
        take_step(fp16, parameter, slope=float("nan"))


def test_named_loss_scales_know_nothing_of_each_other(fp16):
    parameter = nn.Parameter(torch.tensor(1.0))
    fp16.choose_scale("captions")
    assert not take_step(fp16, parameter, slope=float("inf"))
    fp16.choose_scale("questions")
    assert take_step(fp16, parameter, slope=1.0)
    assert fp16.loss_scales == {"captions": 2.0**15, "questions": 2.0**16}
    restored = Precision("fp16", CPU)
    restored.load_state_dict(copy.deepcopy(fp16.state_dict()))
    assert restored.loss_scales == fp16.loss_scales
    restored.choose_scale("captions")
    assert restored.scale.overflows == 1


def test_restored_loss_scale_goes_on(fp16):
    parameter = one()
    take_step(fp16, parameter, slope=float("inf"))
    restored = Precision("fp16", DEVICE)
    restored.load_state_dict(copy.deepcopy(fp16.state_dict()))
    assert (restored.scale.scaler.get_scale(), restored.scale.overflows) == (2.0**15, 1)


def test_formats_restore_each_others_state(fp16):
    plain = Precision("fp32", DEVICE)
    plain.load_state_dict(fp16.state_dict())
    assert plain.scale.scaler.get_scale() == 1.0
    fp16.load_state_dict(plain.state_dict())
    assert fp16.scale.scaler.get_scale() == 2.0**16


@pytest.mark.parametrize("mode", ["fp32", "bf16", "fp16"])
def test_training(fp16, mode):
    torch.manual_seed(0)
    layer, precision = nn.Linear(64, 1, device=DEVICE), Precision(mode, DEVICE)
    optimizer = AdamW(layer.parameters(), lr=0.01)
    rows = torch.randn(256, 64, device=DEVICE)
    losses, taken = [], []
    for _ in range(30):
        optimizer.zero_grad(set_to_none=False)
        with precision.autocast():
            loss = (layer(rows) - rows[:, :1]).float().square().mean()
        precision.backward(loss)
        precision.unscale_(optimizer)
        taken.append(precision.step(optimizer))
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    first = 5 if mode == "fp16" else 0  # until the loss scale fits, fp16 may skip
    assert all(taken[first:])
