"""Worker processes: they end with the process that started them, and leave word of what they read.
Also whether this one is a rank.

A damaged page of a mapped file kills the process that touches it.
"""

import mmap
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

_SLOTS, _SLOT_BYTES = 256, 256
# Shared with the processes forked from here; each writes into the slot of its number.
_notes = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)
_DEAD_LOADER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([0-9, ]+)\) (?:is killed by signal: ([\w ]+)|exited)"
)


@contextmanager
def noted_reading(what: str) -> Iterator[None]:
    """Let the parent know what this process reads, in case that kills it."""
    pid = os.getpid()
    start = pid % _SLOTS * _SLOT_BYTES
    _notes[start : start + _SLOT_BYTES] = f"{pid} {what}".encode("utf-8", "replace")[
        :_SLOT_BYTES
    ].ljust(_SLOT_BYTES, b"\0")
    try:
        yield
    finally:
        _notes[start : start + 1] = b"\0"


def what_it_read(pid: int) -> str | None:
    """Return what a forked process that has ended was reading then; None if it was reading
    nothing."""
    start = pid % _SLOTS * _SLOT_BYTES
    note = _notes[start : start + _SLOT_BYTES].rstrip(b"\0").decode("utf-8", "replace")
    noted, _, what = note.partition(" ")
    return what if noted == str(pid) else None


def dead_workers(error: Exception) -> dict[int, str | None]:
    """Return what each worker of a loader was reading that has died, by its process, if an error
    says so.

    Returns:
        Nothing for an error that is about something else.
    """
    found = _DEAD_LOADER.search(str(error)) if isinstance(error, RuntimeError) else None
    return {int(pid): what_it_read(int(pid)) for pid in found[1].split(",")} if found else {}


def loader_death(error: Exception) -> str | None:
    """One line about a loader's worker that has died, if that is what an error is about."""
    dead = dead_workers(error)
    if not dead:
        return None
    found = _DEAD_LOADER.search(str(error))
    cause = ((found and found[2]) or "it exited").strip()
    read = list(filter(None, dead.values()))
    if read:
        return (
            f"a worker of the loader died ({cause}) while it read {read[0]}: the file is damaged "
            "there; copy, download or build this database again"
        )
    return (
        f"a worker of the loader died ({cause}): is there too little memory, or shared memory? "
        "Try fewer --n_workers"
    )


RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK")


def is_rank() -> bool:
    """Return whether a launcher has started this process as one of several."""
    return any(name in os.environ for name in RANK_VARIABLES)


def is_other_rank() -> bool:
    """Return whether a launcher has started this process as another rank than 0."""
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
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    os._exit(1)


def close_bars() -> None:
    """Close the progress bars that are under way: a last message gets a line of its own."""
    module = sys.modules.get("tqdm")  # not imported for this: most scripts show none
    for bar in list(getattr(module.tqdm, "_instances", ())) if module else ():
        bar.close()
