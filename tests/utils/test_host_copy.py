"""Values that are read on the host after the device has continued."""

import pytest
import torch

from utils.batch import to_device
from utils.host_copy import HostCopy
from utils.packing import PackedLayout


def test_a_value_of_the_cpu_is_read_as_it_is():
    assert HostCopy(torch.tensor(True)).read() is True
    assert HostCopy(torch.tensor([2.5])).read() == 2.5


@pytest.mark.gpu
def test_starting_a_copy_does_not_wait_for_the_device():
    """PyTorch raises at each operation that would make the host wait."""
    values = torch.rand(2000, 2000, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        finite = HostCopy(torch.isfinite(values @ values).all())
        assert finite.read() is True
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_pageable_memory_go_to_the_device_without_waiting():
    layout, numbers = PackedLayout.from_lengths([3, 1, 2]), torch.arange(5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved, there = layout.to("cuda"), to_device(numbers, "cuda")
        moved.pad(torch.ones(6, device="cuda"))
        moved.bins.mask(torch.ones(1, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert moved.lengths.tolist() == [3, 1, 2] and there.tolist() == numbers.tolist()


def test_on_the_cpu_nothing_is_copied():
    numbers = torch.arange(5)
    assert to_device(numbers, "cpu") is numbers
