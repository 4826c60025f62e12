"""Settings of PyTorch's libraries that must be made before it is loaded.

Importing any module of ``utils`` makes them. Child processes inherit them; variables that the user
has set in the environment are not changed.
"""

import ctypes
import os

ENVIRONMENT = {
    # Packed batches have other shapes at every step. oneDNN caches a compiled kernel for each of
    # the last 1024, PyTorch's layer above it as many for each kind of operation: gigabytes. One
    # step, with all its layers, uses about fifty.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
    # Threads that spin take cores from other processes; those that sleep at once are slow to wake
    # for small operations. GNU's OpenMP, which has the spin count, ignores the policy.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
}

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h

_policy_is_the_users = "OMP_WAIT_POLICY" in os.environ
for _name, _value in ENVIRONMENT.items():
    if _name != "GOMP_SPINCOUNT" or not _policy_is_the_users:
        os.environ.setdefault(_name, _value)


def set_deterministic(on: bool) -> None:
    """Choose whether to use deterministic algorithms only, so that a run ends in the same bits.

    Call this before the first operation: cuBLAS reads its setting once. An operation without a
    deterministic algorithm then raises an error.
    """
    import torch  # after the settings above

    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    # It would cost a pass over every new tensor; no code here reads uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def share_memory() -> None:
    """Let all threads that start from now on allocate memory from the same arena of glibc.

    Otherwise each of up to eight arenas per processor keeps the memory that its thread once needed.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose:
        choose(_ARENA_MAX, 1)


def release_memory() -> None:
    """Return freed memory to the system, which glibc keeps between used blocks."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
