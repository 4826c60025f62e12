"""Values of a device, read without making the host wait for all that the device has to do."""

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor on the host, under way from now on.

    On a GPU it goes to page-locked memory behind the work that is queued already; reading waits
    for that work alone, not for what was queued after it.

    Args:
        tensor: of any shape and device; not copied if it is on the CPU.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._copied = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> bool | int | float:
        """The value of a tensor with one element."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.item()
