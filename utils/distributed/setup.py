"""The one place that finds out how a run was started and sets up ranks, device and seeds."""

import atexit
import os
import random
import sys
import time
import traceback
from functools import cache
from types import TracebackType

import numpy as np
import torch

from utils.distributed.communicator import CollectiveError, Communicator, SingleProcess
from utils.errors import UserError

TIMEOUT_VARIABLE = "HERO_COLLECTIVE_TIMEOUT"
# Long enough for rank 0 to validate or write a checkpoint while the others wait.
DEFAULT_TIMEOUT_SECONDS = 1800
# The other ranks of a failed collective fail within this time, and the launcher ends them with us.
LAST_WORDS_SECONDS = 2.0


def setup(seed: int = 0) -> tuple[Communicator, torch.device]:
    """Join the run's other ranks, choose this rank's device and seed every random generator.

    Returns:
        The communicator, and the GPU of this rank or, where there is none, the CPU.

    Raises:
        UserError: more processes than GPUs on this host, or the launcher's library is missing.
    """
    comm = init_communicator()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", comm.local_rank)
        torch.cuda.set_device(device)
    seed_all(seed, comm.rank)
    return comm, device


def init_communicator() -> Communicator:
    """Recognise the launcher from its environment and join the other ranks.

    horovodrun sets ``HOROVOD_RANK``, mpirun ``OMPI_COMM_WORLD_RANK``, torchrun ``RANK``,
    ``WORLD_SIZE`` and ``LOCAL_RANK``; without any of them this is one process. A collective that
    takes longer than ``$HERO_COLLECTIVE_TIMEOUT`` seconds (1800) fails.

    A process joins once: scripts that are called one after the other in it get the same
    communicator, and after its ``shutdown()`` there is no other.
    """
    env = os.environ
    timeout = _timeout_seconds()
    if "HOROVOD_RANK" in env or "OMPI_COMM_WORLD_RANK" in env:
        _check_gpus(int(env.get("HOROVOD_LOCAL_RANK", env.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))))
        comm = _join_horovod(timeout)
    elif all(name in env for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        _check_gpus(int(env["LOCAL_RANK"]))
        comm = _join_torch(timeout)
    else:
        return SingleProcess()
    sys.excepthook = _die
    return comm


@cache
def _join_horovod(timeout: int) -> Communicator:
    from utils.distributed.horovod_backend import HorovodRanks

    return HorovodRanks(timeout)


@cache
def _join_torch(timeout: int) -> Communicator:
    from utils.distributed.torch_backend import TorchDistributed

    comm = TorchDistributed(timeout)
    atexit.register(comm.shutdown)  # Horovod does so itself
    return comm


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (CPU and CUDA), differently on each rank."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    torch.manual_seed(seed + rank)


def _timeout_seconds() -> int:
    value = os.environ.get(TIMEOUT_VARIABLE, str(DEFAULT_TIMEOUT_SECONDS))
    if not value.isdecimal() or int(value) == 0:
        raise UserError(f"{TIMEOUT_VARIABLE} must be a whole number of seconds, not {value!r}")
    return int(value)


def _check_gpus(local_rank: int) -> None:
    """Before joining: NCCL needs one GPU per process, and its own message does not say so."""
    count = torch.cuda.device_count()
    if 0 < count <= local_rank:
        raise UserError(
            f"process {local_rank} (from 0) of this host has no GPU of its own: {count} visible; "
            f"start at most {count} per host, or set CUDA_VISIBLE_DEVICES= to run on the CPU"
        )


def _die(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the traceback and end at once.

    An orderly exit may wait for the other ranks, which wait for this one; a process that ends
    makes the launcher end the others.
    """
    traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(error, CollectiveError):
        time.sleep(LAST_WORDS_SECONDS)
    os._exit(1)
