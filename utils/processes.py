"""Worker processes that end with the process that started them, and whether this one is a rank."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait

RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK")


def is_rank() -> bool:
    """Whether a launcher has started this process as one of several."""
    return any(name in os.environ for name in RANK_VARIABLES)


def is_other_rank() -> bool:
    """Whether a launcher has started this process as another rank than 0."""
    return any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES)


def leave_group() -> None:
    """Leave what is sent to the group of processes (Ctrl-C; a launcher's end) to the parent.

    It stops its workers when it has no more use for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)


def follow_parent() -> None:
    """Let this worker process end with its parent, and not before it (:func:`leave_group`).

    It also ends where the parent was gone before this was called.
    """
    leave_group()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """A worker whose parent is killed would wait for ever, and keep the parent's lock."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
