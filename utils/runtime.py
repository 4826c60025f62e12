"""Settings of PyTorch's libraries that must stand before it is loaded.

Importing any module of ``utils`` makes them. Children and loader workers inherit them; what the
user has set in the environment stays as it is.
"""

import ctypes
import os

ENVIRONMENT = {
    # Packed batches have other shapes at every step. oneDNN keeps a compiled kernel for each of the
    # last 1024, PyTorch's layer above it as many for each kind of operation: gigabytes. Half a
    # hundred are those of one step, which its layers share.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
    # Threads that wait in a loop take the cores from whatever else runs; those that sleep at once
    # are slow to wake for small operations. GNU's OpenMP, which has the count, looks at no policy.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
}

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h

_policy_is_the_users = "OMP_WAIT_POLICY" in os.environ
for _name, _value in ENVIRONMENT.items():
    if _name != "GOMP_SPINCOUNT" or not _policy_is_the_users:
        os.environ.setdefault(_name, _value)


def set_deterministic(on: bool) -> None:
    """Choose whether a GPU adds up in a fixed order, so that the same run ends in the same bits.

    To be called before the first operation: cuBLAS reads its setting once. What has no form with a
    fixed order then raises an error that names it.
    """
    import torch  # after the settings above

    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    # Costs a pass over every new tensor; nothing here reads what was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def share_memory() -> None:
    """Let all threads that begin from now on take memory from the same pool.

    glibc gives each its own, up to eight a processor, and each keeps what its thread once needed.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose:
        choose(_ARENA_MAX, 1)


def release_memory() -> None:
    """Give freed memory back to the system, of which glibc keeps what lies between used pieces."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
