"""What a training step asks of a GPU: operations, attention calls, copies and casts, counted.

    python benchmarks/operations.py [--videos 32]

Needs no GPU: the tensors are fake ones of a CUDA device (shapes and types without values), so that
autocast casts as it does on CUDA. The step is TVR's by its recipe: full-size model in bf16, a query
for every video, gradients of the step before. An operation is what eager PyTorch hands to the
device, a kernel or a few; views, and memory that is only reserved, are none.
"""

import argparse
import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.train_step import tvr_like_videos
from config.model_config import ModelConfig
from data.batch import MomentBatch
from data.vcmr import MomentItem, collate_moments
from model.layers import set_dropout
from model.vcmr import HeroForVcmr

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = {"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0}
RESERVED = ("empty", "new_empty", "_unsafe_view", "_reshape_alias", "lift_fresh", "detach")
COPIES = ("copy_", "clone", "cat", "stack", "_to_copy", "constant_pad_nd")
DEVICE = torch.device("cuda:0")
CUDA, META = 1, 14  # c10::DeviceType


class Operations(TorchDispatchMode):
    """Counts what is dispatched while it is on, by the part of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Counter[str]] = {}
        self.part = ""

    @contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count operations under this name."""
        self.parts[part], self.part = Counter(), part
        yield
        self.part = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            # Backward would order the streams of the device, which is not there.
            return torch.device("cpu") if self.part == "backward" else func(*args)
        kwargs = kwargs or {}
        if self.part == "backward" and kwargs.get("device"):
            kwargs = {**kwargs, "device": DEVICE}
        if self.part and not _is_view(func):
            self.parts[self.part][self._kind(func, args)] += 1
        return func(*args, **kwargs)

    @staticmethod
    def _kind(func: Any, args: tuple) -> str:
        name = func._schema.name.removeprefix("aten::")
        return name


def _is_view(func: Any) -> bool:
    name = func._schema.name.partition("::")[2]
    if name.startswith(RESERVED) or func.namespace == "prim":
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


class CudaAttention(TorchFunctionMode):
    """Attention by the kernels that PyTorch takes on CUDA, which a CPU's build cannot choose."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    aten = torch.ops.aten
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal)[0]
    if attn_mask.dtype == torch.bool:
        added = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = added.masked_fill_(attn_mask.logical_not(), float("-inf"))
    if missing := -attn_mask.shape[-1] % 8:
        attn_mask = F.pad(attn_mask, (0, missing))[..., :-missing]
    mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, True, dropout_p, is_causal
    )[0]


def pretend_cuda() -> None:
    """Let a build of PyTorch without CUDA record gradients of fake CUDA tensors.

    Autograd asks for the device's stream. Builds with CUDA have an answer also where there is no
    device; here the fake answer of the meta device stands in.
    """
    libraries = Path(torch.__file__).parent / "lib"
    library = ctypes.CDLL(str(libraries / "libc10.so"))
    guards = (ctypes.c_void_p * 21).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[CUDA] = guards[CUDA] or guards[META]


def tvr_like_batch(videos: int) -> MomentBatch:
    """Videos as TVR has them, with a query of about 14 tokens each."""
    rng = np.random.default_rng(1)
    items = []
    for number, video in enumerate(tvr_like_videos(videos)):
        query = rng.integers(4, 50000, size=int(rng.integers(8, 21))).tolist()
        items.append(MomentItem(video, [query], [(3, 9)], [f"query{number}"]))
    return collate_moments(items)


def count_step(batch: MomentBatch) -> dict[str, Counter[str]]:
    """Operations of a step's forward and backward, by name."""
    pretend_cuda()
    mode, counter = FakeTensorMode(), Operations()

    def fake(tensor: Tensor) -> Tensor:
        return FakeTensor(mode, tensor.to("meta"), DEVICE)

    with torch.device("meta"):
        model = HeroForVcmr(ModelConfig.from_json(ROOT / "config" / "hero_finetune.json"))
    parameters = {p: nn.Parameter(fake(p.detach())) for p in model.parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, parameters[parameter])
    set_dropout(model, 0.1)
    moved = batch.map_tensors(fake)
    model.span_wanted = True
    with (
        mode,
        counter,
        CudaAttention(),
        torch.autograd.set_multithreading_enabled(False),
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
    ):
        for _ in range(1):
            with counter.count("forward"), torch.autocast("cuda", torch.bfloat16):
                losses = model(moved)
                total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
            with counter.count("backward"):
                total.backward()
    return counter.parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=32)
    arguments = parser.parse_args()
    parts = count_step(tvr_like_batch(arguments.videos))
    for part, counts in parts.items():
        print(part, counts.total())
        print(tabulate(counts.most_common()))


if __name__ == "__main__":
    main()
