"""What a training step asks of a GPU, counted with fake tensors (no device)."""

import pytest
import torch
from torch import nn

from benchmarks.common import tvr_like_batch
from benchmarks.operations import Operations, count_step, kinds


@pytest.fixture(scope="module")
def parts():
    if torch.version.cuda and not torch.cuda.is_available():
        pytest.skip("a PyTorch built for CUDA asks the driver about the device of fake tensors")
    return count_step(tvr_like_batch(8))


def test_a_step_is_some_nine_hundred_operations(parts):
    """With a call of attention for every bucket of lengths, and queries in a pass of their own,
    they were 2,256, 256 of them attention."""
    both = kinds(parts["forward"] + parts["backward"])
    assert both["operations"] <= 950
    # Six cross-modal layers, three temporal ones, the query encoder's; forward and backward.
    assert both["attention calls"] == 2 * (6 + 3 + 1)
    # Half precision is for products alone: a cast of every weight and bias, and back.
    assert both["casts"] <= 260 and both["copies"] <= 42


def test_the_optimizers_part_is_a_dozen(parts):
    assert parts["optimizer"]["_fused_adamw_"] == 2  # with decay and without
    assert kinds(parts["optimizer"])["operations"] <= 12


def test_counting_by_hand():
    layer, counter = nn.Linear(4, 4), Operations()
    with counter, counter.count("forward"):
        layer(torch.ones(3, 4)).view(4, 3).t().relu()
    assert counter.parts == {"forward": {"ones": 1, "addmm": 1, "relu": 1}}
    assert kinds(counter.parts["forward"])["operations"] == 3
