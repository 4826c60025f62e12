"""Liveness and progress of ranks, so that a missing one can be named."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

BEAT_SECONDS = 1.0
LAST_STEP_SECONDS = 30.0  # to end a step and write a restore point, as torchrun allows
ENDED = "ended"


class Board(Protocol):
    """A line of every rank in the launcher's store; RuntimeError or OSError if that is gone."""

    def write(self, rank: int, line: str) -> None: ...
    def read(self, rank: int) -> str: ...  # "" if it has written none


class RankWatch:
    """Writes this rank's line on the board once a second, and watches the next rank's.

    A rank that was stopped, or whose host is gone, stops writing: the previous rank ends the run. A
    busy one continues, however long the others wait for rank 0 to validate. Ranks whose launcher
    was killed end as by SIGTERM.

    Args:
        board: of the run.
        rank, size: this rank and the number of ranks.
        progress: returns its optimizer steps done and collectives begun.
        seconds: how long a rank may be silent.
    """

    def __init__(
        self,
        board: Board,
        rank: int,
        size: int,
        progress: Callable[[], tuple[int, int]],
        seconds: float,
    ) -> None:
        self._board, self._rank, self._size = board, rank, size
        self._progress = progress
        self._silent_beats = seconds / BEAT_SECONDS
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write that this rank ends normally."""
        self._end.set()
        self._thread.join()
        self._write(ENDED)

    def absent(self, collective: int) -> str:
        """Return the ranks that are gone, and those that have not begun a collective."""
        before = [self._read(rank) for rank in range(self._size)]
        time.sleep(2.5 * BEAT_SECONDS)
        absent = []
        for rank, line in enumerate(before):
            now = self._read(rank)
            if rank == self._rank or now is None:
                continue
            if now in (line, ENDED):
                absent.append(f"rank {rank} is gone or stopped, {_last_step(now)}")
            elif _numbers(now)[2] < collective:
                absent.append(f"rank {rank} is busy elsewhere, {_last_step(now)}")
        return ", ".join(absent) or "all ranks are there"

    def _watch(self) -> None:
        following, before = (self._rank + 1) % self._size, None
        # Counted in beats: a rank that was stopped together with the others blames none of them.
        beats = silent = 0
        while not self._end.wait(BEAT_SECONDS):
            beats += 1
            self._write(" ".join(map(str, (beats, *self._progress()))))
            line = self._read(following)
            silent = silent + 1 if line == before and line not in (None, ENDED) else 0
            before = line
            if line is not None and silent > self._silent_beats:
                _end_run(
                    f"rank {following} of {self._size} has given no sign of life for "
                    f"{silent * BEAT_SECONDS:.0f} s (it is stopped, or its host is gone), "
                    f"{_last_step(line)}; the same command resumes from the last restore point"
                )
            if self._launcher not in (None, os.getppid()):
                os.kill(os.getpid(), signal.SIGTERM)
                self._end.wait(LAST_STEP_SECONDS)
                _end_run(f"rank {self._rank}: torchrun is gone")

    def _write(self, line: str) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self._board.write(self._rank, line)

    def _read(self, rank: int) -> str | None:
        try:
            return self._board.read(rank)
        except (RuntimeError, OSError):
            return None


def _numbers(line: str) -> list[int]:
    return [int(word) for word in line.split()] or [0, 0, 0]


def _last_step(line: str) -> str:
    return "done" if line == ENDED else f"its last step was {_numbers(line)[1]}"


def _end_run(why: str) -> NoReturn:
    """Exit from this thread: the main one may wait for the missing rank, out of reach."""
    print(f"error: {why}", file=sys.stderr, flush=True)
    os._exit(1)
