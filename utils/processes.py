"""Worker processes: they end with their parent, and note what they read; ranks of a launcher.

A damaged page of a mapped file kills the process that reads it: its note tells which file it was.
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
# Shared with forked processes; each writes into the slot of its process id.
_notes = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)
_DEAD_LOADER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([0-9, ]+)\) (?:is killed by signal: ([\w ]+)|exited)"
)


@contextmanager
def noted_reading(what: str) -> Iterator[None]:
    """Note for the parent what this process reads, in case that kills it."""
    pid = os.getpid()
    start = pid % _SLOTS * _SLOT_BYTES
    note = f"{pid} {what}".encode("utf-8", "replace")[:_SLOT_BYTES]
    _notes[start : start + _SLOT_BYTES] = note.ljust(_SLOT_BYTES, b"\0")
    try:
        yield
    finally:
        _notes[start : start + 1] = b"\0"


def what_it_read(pid: int) -> str | None:
    """Return what a forked process was reading when it ended, or None."""
    start = pid % _SLOTS * _SLOT_BYTES
    note = _notes[start : start + _SLOT_BYTES].rstrip(b"\0").decode("utf-8", "replace")
    noted, _, what = note.partition(" ")
    return what if noted == str(pid) else None


def dead_workers(error: Exception) -> dict[int, str | None]:
    """Return process id → what it was reading of the dead workers that a loader's error names."""
    found = _DEAD_LOADER.search(str(error)) if isinstance(error, RuntimeError) else None
    return {int(pid): what_it_read(int(pid)) for pid in found[1].split(",")} if found else {}


def loader_death(error: Exception) -> str | None:
    """Return one line about the dead worker that a loader's error names; None for other errors."""
    dead, found = dead_workers(error), _DEAD_LOADER.search(str(error))
    if not dead or found is None:
        return None
    death = f"a worker of the loader died ({(found[2] or 'it exited').strip()})"
    if read := next(filter(None, dead.values()), None):
        damage = "the file is damaged there; copy, download or build this database again"
        return f"{death} while it read {read}: {damage}"
    return f"{death}: is there too little memory, or shared memory? Try fewer --n_workers"


RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "RANK")


def is_rank() -> bool:
    """Return whether a launcher has started this process as a rank."""
    return any(name in os.environ for name in RANK_VARIABLES)


def is_other_rank() -> bool:
    """Return whether a launcher has started this process as a rank other than 0."""
    return any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES)


def leave_group() -> None:
    """Ignore signals to the process group (Ctrl-C; a launcher's end): the parent stops workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)


def follow_parent() -> None:
    """End this worker process when its parent ends, or has ended, but not before."""
    leave_group()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit with the parent: after its death a worker would wait forever, and hold its lock."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    os._exit(1)


def close_bars() -> None:
    """Close the open progress bars, so that a last message gets its own line."""
    module = sys.modules.get("tqdm")  # not imported for this, as most scripts show none
    for bar in list(getattr(module.tqdm, "_instances", ())) if module else ():
        bar.close()
