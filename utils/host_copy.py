"""Read values of a device without waiting for all of its queued work."""

import torch
from torch import Tensor


class HostCopy:
    """An asynchronous copy of a tensor to the host.

    From a GPU it is copied to page-locked memory; reading waits only for work that was queued
    before the copy. A tensor on the CPU is not copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._copied = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> bool | int | float:
        """Return the value of a tensor with one element."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.item()
