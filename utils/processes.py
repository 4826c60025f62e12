"""Worker processes that end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def follow_parent() -> None:
    """Let this worker process end with its parent. Ctrl-C is the parent's: it stops its workers.

    It also ends where the parent was gone before this was called.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """A worker whose parent is killed would wait for ever, and keep the parent's lock."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
