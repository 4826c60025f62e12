"""Packed weights for inference; plain ones where PyTorch lacks the private operators."""

from types import SimpleNamespace

import pytest
import torch

from config.model_config import BlockConfig
from model.inference import PackedLinear, pack_weights
from model.layers import TransformerEncoder
from utils.packing import PackedLayout

LAYOUT = PackedLayout.from_lengths([3, 5])


def unsupported(*arguments):
    raise RuntimeError("mkldnn is not built")


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TransformerEncoder(BlockConfig(8, 2, 2, 16, 10, 1)).eval()


def outputs(encoder):
    x = torch.linspace(-1, 1, 8 * LAYOUT.total).view(LAYOUT.total, 8)
    with torch.no_grad():
        return encoder(x, LAYOUT)


def packed_layers(encoder):
    return sum(isinstance(module, PackedLinear) for module in encoder.modules())


def test_packed_layers_compute_what_plain_ones_do(encoder):
    expected, state = outputs(encoder), torch.get_rng_state()
    pack_weights(encoder)
    assert packed_layers(encoder) == 2 * 4  # projections, attention's output, feed-forward
    torch.testing.assert_close(outputs(encoder), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "operators",
    [
        SimpleNamespace(),
        SimpleNamespace(_reorder_linear_weight=lambda weight: weight),  # other arguments
        SimpleNamespace(_reorder_linear_weight=unsupported),
        SimpleNamespace(
            _reorder_linear_weight=lambda weight, rows: weight,
            _linear_pointwise=lambda x, *others: x.new_zeros(1, 3),  # other results
        ),
    ],
    ids=["absent", "other arguments", "not supported", "other results"],
)
def test_without_the_operators_layers_stay_plain(encoder, operators, monkeypatch):
    expected = outputs(encoder)
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    pack_weights(encoder)
    assert packed_layers(encoder) == 0
    assert torch.equal(outputs(encoder), expected)
