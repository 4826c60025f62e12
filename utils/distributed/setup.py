"""Set up ranks, device and seeds for the launcher that started the run."""

import atexit
import os
import random
import sys
import traceback
from functools import cache
from types import TracebackType

import numpy as np
import torch

from utils.distributed.communicator import CollectiveError, Communicator, SingleProcess
from utils.errors import UserError

# Of a collective: long enough to wait for rank 0 to validate or write a checkpoint.
TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_SECONDS = "HERO_COLLECTIVE_TIMEOUT", 1800
# Of a silent rank: it ends the run within five minutes, including the launcher's time.
SILENCE_VARIABLE, DEFAULT_SILENCE_SECONDS = "HERO_RANK_TIMEOUT", 240


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
    # It plans again for every shape, and every packed batch has other shapes.
    torch.backends.cuda.enable_cudnn_sdp(False)
    seed_all(seed, comm.rank)
    return comm, device


def init_communicator() -> Communicator:
    """Join the other ranks of the launcher that the environment shows.

    horovodrun sets ``HOROVOD_RANK``, mpirun ``OMPI_COMM_WORLD_RANK``, torchrun ``RANK``,
    ``WORLD_SIZE`` and ``LOCAL_RANK``; without any of them this is one process. A collective that
    takes longer than ``$HERO_COLLECTIVE_TIMEOUT`` seconds (1800) fails, and a rank that gives no
    sign of life for ``$HERO_RANK_TIMEOUT`` seconds (240) ends the run.

    A process joins once: later calls return the same communicator, also after its ``shutdown()``.
    """
    env = os.environ
    timeout = _seconds(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_SECONDS)
    silence = _seconds(SILENCE_VARIABLE, min(DEFAULT_SILENCE_SECONDS, timeout))
    if "HOROVOD_RANK" in env or "OMPI_COMM_WORLD_RANK" in env:
        _check_gpus(int(env.get("HOROVOD_LOCAL_RANK", env.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))))
        comm = _join("horovod", timeout, silence)
    elif all(name in env for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        _check_gpus(int(env["LOCAL_RANK"]))
        comm = _join("torch", timeout, silence)
    else:
        return SingleProcess()
    sys.excepthook = _die
    return comm


@cache
def _join(backend: str, timeout: int, silence: int) -> Communicator:
    comm: Communicator
    if backend == "horovod":
        from utils.distributed.horovod_backend import HorovodRanks

        comm = HorovodRanks(timeout)
    else:
        from utils.distributed.torch_backend import TorchDistributed

        comm = TorchDistributed(timeout)
    comm.watch_ranks(silence)
    atexit.register(comm.shutdown)
    return comm


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (CPU and CUDA), differently on each rank."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    torch.manual_seed(seed + rank)


def _seconds(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise UserError(f"{variable} must be a whole number of seconds, not {value!r}")
    return int(value)


def _check_gpus(local_rank: int) -> None:
    """Check that there is a GPU per process, which NCCL needs but its messages do not say."""
    count = torch.cuda.device_count()
    if 0 < count <= local_rank:
        raise UserError(
            f"process {local_rank} (from 0) of this host has no GPU of its own: {count} visible; "
            f"start at most {count} per host, or set CUDA_VISIBLE_DEVICES= to run on the CPU"
        )


def _die(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback, or why a collective failed, and exit at once.

    A normal exit may wait for the other ranks, which wait for this one; when this process ends, the
    launcher ends the others.
    """
    if isinstance(error, CollectiveError):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
