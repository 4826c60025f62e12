"""Values that the host reads later than the device was told to compute them."""

import pytest
import torch

from utils.host_copy import HostCopy


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
