"""SIGINT and SIGTERM end every command with one line, exit code 130 or 143, and no process left.

The first signal raises :class:`Stopped` in the main thread, so that blocks can clean up; within
:func:`postponed_signals` it is only recorded. A second one ends the process at once, as does the
first while modules are still being imported, which takes seconds.
"""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from utils.processes import close_bars, is_other_rank, is_rank, leave_group

# A terminal's Ctrl-C reaches a command twice if its parent forwards it: these count as one.
SAME_SIGNAL_SECONDS = 1.0
WORKERS_END_SECONDS = 5.0
REPOSITORY = Path(__file__).resolve().parents[1]


class Stopped(BaseException):
    """The process was asked to end by a signal; ``advice`` says what to do next."""

    def __init__(self, number: int, advice: str = "") -> None:
        self.number = number
        self.reported = False  # by another process
        stopped = f"stopped by {signal.Signals(number).name}"
        super().__init__(f"{stopped}; {advice}" if advice else stopped)

    @property
    def exit_code(self) -> int:
        """Exit code in a shell's convention."""
        return 128 + self.number


class _State:
    """Signals received, and how to handle the next one."""

    number: int | None = None
    since = 0.0
    in_main = False
    postponed = False
    advice = ""
    programs: tuple[subprocess.Popen, ...] = ()


_state = _State()


def _on_signal(number: int, frame: FrameType | None) -> None:
    first, now = _state.number is None, time.monotonic()
    if first:
        _state.number, _state.since = number, now
    if not _state.in_main or (not first and now - _state.since > SAME_SIGNAL_SECONDS):
        _exit_at_once(Stopped(number))
    if first and not _state.postponed:
        raise Stopped(number, _state.advice)


def _exit_at_once(stopped: Stopped) -> NoReturn:
    for program in _state.programs:
        program.kill()
    if _reports():
        os.write(sys.stderr.fileno(), f"{stopped}\n".encode())
    os._exit(stopped.exit_code)


def _reports() -> bool:
    """Return whether this process, and no other, tells the user that it was stopped."""
    return not is_other_rank() and multiprocessing.parent_process() is None


def _install() -> dict[signal.Signals, Any]:
    """Handle both signals unless they are ignored, as in background jobs of shell scripts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in handled:
        signal.signal(number, _on_signal)
    return handled


def stoppable(run: Callable[..., None]) -> Callable[..., None]:
    """Make signals raise :class:`Stopped` within a command, and end it."""

    @functools.wraps(run)
    def wrapped(*arguments: object) -> None:
        global _state
        outer, _state = _state, _State()
        _state.in_main = True
        handlers = _install()
        try:
            run(*arguments)
        except Stopped as stopped:
            end_stopped(stopped)
        finally:
            _state = outer
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return wrapped


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Only record the first signal, for :func:`received_signal`."""
    with _changed_state(postponed=True):
        yield


@contextmanager
def answered_signals(advice: str) -> Iterator[None]:
    """Within :func:`postponed_signals`, let a signal raise :class:`Stopped` with this advice."""
    if _state.number is not None:
        raise Stopped(_state.number, advice)
    with _changed_state(postponed=False, advice=advice):
        yield


@contextmanager
def _changed_state(**values: object) -> Iterator[None]:
    before = {name: getattr(_state, name) for name in values}
    vars(_state).update(values)
    try:
        yield
    finally:
        vars(_state).update(before)


def received_signal() -> int | None:
    """Return the number of the recorded signal."""
    return _state.number


def end_stopped(stopped: Stopped) -> NoReturn:
    """Print what stopped this process, end its workers and exit."""
    if _reports() and not stopped.reported:
        close_bars()
        print(stopped, file=sys.stderr, flush=True)
    end_workers()
    sys.stdout.flush()
    # A normal exit may wait for other ranks, and for threads that are still working.
    if is_rank() or any(not thread.daemon for thread in threading.enumerate()[1:]):
        os._exit(stopped.exit_code)
    sys.exit(stopped.exit_code)


def end_workers() -> None:
    """Terminate the worker processes of this one and wait for them."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(WORKERS_END_SECONDS)


def run_program(command: Sequence[str]) -> int:
    """Run a program and return its exit code; if a signal ends this process, end it first."""
    with subprocess.Popen(command) as program:
        _state.programs += (program,)
        try:
            return program.wait()
        except Stopped as stopped:
            program.send_signal(signal.SIGTERM)
            stopped.reported = program.wait() > 128
            raise


def _in_worker() -> None:
    """Reset signals in a forked process, which its parent ends."""
    if signal.getsignal(signal.SIGTERM) is _on_signal:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        leave_group()


os.register_at_fork(after_in_child=_in_worker)
_main_file = Path(getattr(sys.modules["__main__"], "__file__", None) or "/").resolve()
_is_command = _main_file.parent in (REPOSITORY, REPOSITORY / "scripts")
if _is_command and threading.current_thread() is threading.main_thread():
    _install()
