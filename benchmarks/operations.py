"""Operations of a training step on a GPU, counted: attention calls, copies, casts.

    python benchmarks/operations.py [--videos 32] [--by_name]

Needs no GPU: the tensors are fake ones of a CUDA device (shapes and types without values), so that
autocast casts as it does on CUDA. The step is TVR's by its recipe: full-size model in bf16, one
query for each of 32 videos, with a span loss. An operation is what eager PyTorch dispatches to the
device, mostly one kernel; views and mere allocations do not count.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import make_parser, model_config, tvr_like_batch
from data.batch import MomentBatch
from model.layers import set_dropout
from model.vcmr import HeroForVcmr
from optim.adamw import AdamW
from optim.build import parameter_groups
from optim.gradients import clip_gradients, drop_gradients, fill_gradients

LOSS_WEIGHTS = {"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0}
DEVICE = torch.device("cuda:0")
CUDA, META = 1, 14  # numbers of c10::DeviceType
NO_OPERATIONS = ("empty", "new_empty", "new_empty_strided", "_unsafe_view", "detach")
KINDS = {
    "attention calls": ("_scaled_dot_product_efficient", "_scaled_dot_product_flash"),
    "copies": ("cat", "stack", "clone", "copy", "constant_pad_nd"),
    "casts": ("_to_copy",),
    "gathers and scatters": ("index", "gather", "scatter", "embedding"),
}


class Operations(TorchDispatchMode):
    """Counts dispatched operations while it is active.

    Attributes:
        parts: number of calls of every operation, by part of a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Counter[str]] = {}
        self._part = ""

    @contextmanager
    def count(self, part: str) -> Iterator[None]:
        """Count what is dispatched within under the name of this part."""
        self.parts[part], self._part = Counter(), part
        yield
        self._part = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        backward = self._part == "backward"
        if func is torch.ops.prim.device.default:
            # For a CUDA tensor, backward would use the device's streams; there are none.
            return torch.device("cpu") if backward else func(*args)
        if backward and kwargs.get("device"):
            kwargs = {**kwargs, "device": DEVICE}
        if self._part and not _is_view(func):
            self.parts[self._part][func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **kwargs)


def _is_view(func: Any) -> bool:
    name = func._schema.name.removeprefix("aten::")
    if func.namespace in ("prim", "profiler") or name in NO_OPERATIONS:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


class CudaAttention(TorchFunctionMode):
    """Attention by the kernels that PyTorch uses on CUDA; a CPU build cannot choose them."""

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
    attn_mask = attn_mask.to(query.dtype)
    if missing := -attn_mask.shape[-1] % 8:  # the kernel needs aligned rows
        attn_mask = F.pad(attn_mask, (0, missing))[..., :-missing]
    mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, True, dropout_p, is_causal
    )[0]


def _pretend_cuda() -> None:
    """Let a build of PyTorch without CUDA record gradients of fake CUDA tensors.

    Autograd needs the device's guard for a stream. Builds with CUDA have one even without a device;
    here the meta device's, which does nothing, replaces it.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    registry = "_ZN3c104impl26device_guard_impl_registryE"
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, registry)
    guards[CUDA] = guards[CUDA] or guards[META]


@contextmanager
def fake_cuda(mode: FakeTensorMode) -> Iterator[None]:
    """Compute with fake CUDA tensors by CUDA's rules."""
    _pretend_cuda()
    with (
        mode,
        CudaAttention(),
        torch.autograd.set_multithreading_enabled(False),  # the device has no thread
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
    ):
        yield


def fake_model(fake: Callable[[Tensor], Tensor]) -> HeroForVcmr:
    """Return TVR's full-size model with parameters made by ``fake``; ties are kept."""
    with torch.device("meta"):
        model = HeroForVcmr(model_config())
    parameters = {p: nn.Parameter(fake(p.detach())) for p in model.parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, parameters[parameter])
    set_dropout(model, 0.1)
    model.span_wanted = True
    return model


def count_step(batch: MomentBatch) -> dict[str, Counter[str]]:
    """Return operations of the second of two steps: forward, backward, optimizer."""
    mode, counter = FakeTensorMode(), Operations()

    def fake(tensor: Tensor) -> Tensor:
        return FakeTensor(mode, tensor.to("meta"), DEVICE)

    model, batches = fake_model(fake), [batch.map_tensors(fake) for _ in range(2)]
    optimizer = AdamW(parameter_groups(model, lr_mul=1.0, weight_decay=0.01))
    with fake_cuda(mode), counter:
        for moved in batches:
            drop_gradients(optimizer)
            with counter.count("forward"), torch.autocast("cuda", torch.bfloat16):
                losses = model(moved)
                total = sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items())
            with counter.count("backward"):
                total.backward()
            with counter.count("optimizer"):
                fill_gradients(optimizer)
                clip_gradients(model.parameters(), 1.0)
                optimizer.step()
    return counter.parts


def kinds(counts: Counter[str]) -> dict[str, int]:
    """Return the number of operations, and of those that attend or only move data."""
    return {"operations": counts.total()} | {
        kind: sum(count for name, count in counts.items() if name.startswith(prefixes))
        for kind, prefixes in KINDS.items()
    }


def main() -> None:
    parser = make_parser(__doc__, videos=32)
    parser.add_argument("--by_name", action="store_true", help="list every operation, too")
    options = parser.parse_args()
    parts = count_step(tvr_like_batch(options.videos))
    table = {part: kinds(counts) for part, counts in parts.items()}
    table["forward and backward"] = kinds(parts["forward"] + parts["backward"])
    headers = ["", *table["forward"]]
    print(tabulate([[part, *row.values()] for part, row in table.items()], headers=headers))
    for part, counts in parts.items() if options.by_name else ():
        print(tabulate(counts.most_common(), headers=[part, "times"]))


if __name__ == "__main__":
    main()
