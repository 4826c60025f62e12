"""SIGINT and SIGTERM end every command: one line, exit code 130 or 143, nothing left running.

The first signal raises :class:`Stopped` in the main thread, so that every block that has something
to put in order does; within :func:`postponed_signals` it waits to be asked for. A second one ends
at once. So does the first while modules are still being imported, which takes seconds.
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

# A terminal's Ctrl-C reaches a command and the one that started it and passes it on: one wish.
SAME_WISH_SECONDS = 1.0
WORKERS_END_SECONDS = 5.0
REPOSITORY = Path(__file__).resolve().parents[1]


class Stopped(BaseException):
    """The process is asked to end.

    Args:
        number: of the signal.
        advice: what to do next.

    Attributes:
        said: whether the user knows already.
    """

    def __init__(self, number: int, advice: str = "") -> None:
        self.number, self.said = number, False
        stopped = f"stopped by {signal.Signals(number).name}"
        super().__init__(f"{stopped}; {advice}" if advice else stopped)

    @property
    def exit_code(self) -> int:
        """As a shell has it."""
        return 128 + self.number


class _State:
    """What has come, and what is to be done when something comes."""

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
    if not _state.in_main or (not first and now - _state.since > SAME_WISH_SECONDS):
        _end_at_once(Stopped(number))
    if first and not _state.postponed:
        raise Stopped(number, _state.advice)


def _end_at_once(stopped: Stopped) -> NoReturn:
    for program in _state.programs:
        program.kill()
    if _speaks():
        os.write(sys.stderr.fileno(), f"{stopped}\n".encode())
    os._exit(stopped.exit_code)


def _speaks() -> bool:
    """Return whether no other process says what stops this one."""
    return not is_other_rank() and multiprocessing.parent_process() is None


def _install() -> dict[signal.Signals, Any]:
    """Handle both signals, unless they are ignored, as a shell has it for jobs of scripts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in handled:
        signal.signal(number, _on_signal)
    return handled


def stoppable(run: Callable[..., None]) -> Callable[..., None]:
    """Let signals raise :class:`Stopped` within a command, and end it then as they ask."""

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
    """Let the first signal wait until :func:`received_signal` is asked."""
    with _changed_state(postponed=True):
        yield


@contextmanager
def answered_signals(advice: str) -> Iterator[None]:
    """Within :func:`postponed_signals`, let a signal end a long part of the work at once.

    Args:
        advice: what the user does next.
    """
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
    """The number of the signal that asks this process to end."""
    return _state.number


def end_stopped(stopped: Stopped) -> NoReturn:
    """Say what stopped this process, end its workers and exit."""
    if _speaks() and not stopped.said:
        close_bars()
        print(stopped, file=sys.stderr, flush=True)
    end_workers()
    sys.stdout.flush()
    # An orderly exit may wait for other ranks, and for threads that go on with their work.
    if is_rank() or any(not thread.daemon for thread in threading.enumerate()[1:]):
        os._exit(stopped.exit_code)
    sys.exit(stopped.exit_code)


def end_workers() -> None:
    """End the worker processes of this one and wait for their ends."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(WORKERS_END_SECONDS)


def run_program(command: Sequence[str]) -> int:
    """Run a program and return its exit code; where a signal ends this process, end it first."""
    with subprocess.Popen(command) as program:
        _state.programs += (program,)
        try:
            return program.wait()
        except Stopped as stopped:
            program.send_signal(signal.SIGTERM)
            stopped.said = program.wait() > 128
            raise


def _in_worker() -> None:
    """In a forked process: signals are its parent's, which ends it."""
    if signal.getsignal(signal.SIGTERM) is _on_signal:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        leave_group()


os.register_at_fork(after_in_child=_in_worker)
_main_file = getattr(sys.modules["__main__"], "__file__", None)
_is_command = _main_file and Path(_main_file).resolve().parent in (
    REPOSITORY,
    REPOSITORY / "scripts",
)
if _is_command and threading.current_thread() is threading.main_thread():
    _install()
