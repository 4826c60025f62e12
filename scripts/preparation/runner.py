"""Run the steps of a plan, several at a time, each after those it needs."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from scripts.preparation.graph import Graph, Reason, Step, Why
from utils.errors import UserError, as_user_error
from utils.files import check_output
from utils.locks import FileLock, HeldError
from utils.signals import Stopped, end_workers

LOCK = ".prepare_data.lock"


class Runner:
    """Runs a plan once.

    If a step fails, those that need it do not run; all others do.

    Args:
        graph: all steps.
        plan: those to run, of :meth:`Graph.plan`.
        jobs: how many at a time.
        fatal: an error that every further step would raise; it ends the run at once.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Mapping[str, Reason],
        jobs: int,
        fatal: type[UserError],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._jobs = jobs
        self._fatal = fatal
        self._pool = ThreadPoolExecutor(jobs)
        # The deepest first: an archive is unpacked before the next one is downloaded.
        self._ranks = {name: -level for level, names in enumerate(graph.levels) for name in names}
        self._waiting = {name: graph.needs[name] & plan.keys() for name in plan}
        self._running: dict[Future, str] = {}
        self._done: set[str] = set()
        self._failed: dict[str, Exception] = {}

    def run(self) -> None:
        """Run all steps.

        Raises:
            UserError: names the steps that failed, after a line for each.
        """
        try:
            while self._waiting or self._running:
                self._start_ready()
                if not self._running:
                    break  # all others wait for steps that failed
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    self._finish(self._running.pop(future), future)
        except Stopped:
            end_workers()  # while the folder is still locked
            raise
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._remove_temporary()
        self._remove_empty_folders()
        if self._failed:
            raise self._verdict()

    def _start_ready(self) -> None:
        ready = [name for name, needs in self._waiting.items() if needs <= self._done]
        ready.sort(key=self._ranks.__getitem__)  # stable: within a level, in the plan's order
        for name in ready[: self._jobs - len(self._running)]:
            del self._waiting[name]
            self._running[self._pool.submit(self._do, name)] = name

    def _do(self, name: str) -> None:
        step, reason = self._graph[name], self._plan[name]
        current = step.reason() if reason.why is Why.AFTER else reason
        if current is None:
            _print_line(f"{name}: current")
            return
        _print_line(f"{name}: {step.what} ({current.text})")
        start = time.monotonic()
        step.action(current.rebuild)
        _print_line(f"{name}: done ({time.monotonic() - start:.0f} s)")

    def _finish(self, name: str, future: Future) -> None:
        error = future.exception()
        if error is None:
            self._done.add(name)
            self._remove_temporary()
            return
        known = as_user_error(error) if isinstance(error, Exception) else None
        if isinstance(error, self._fatal) or known is None:
            raise error
        self._failed[name] = known
        print(f"failed: {name}: {' '.join(str(known).split())}", file=sys.stderr, flush=True)

    def _temporary(self) -> list[Step]:
        return [self._graph[name] for name in self._graph.order if self._graph[name].temporary]

    def _remove_temporary(self) -> None:
        """Remove temporary outputs of steps whose users are all done."""
        for step in self._temporary():
            needed_by = self._graph.needed_by[step.name]
            if all(other in self._done or other not in self._plan for other in needed_by):
                for path in step.outputs:
                    path.unlink(missing_ok=True)

    def _remove_empty_folders(self) -> None:
        """Remove folders of temporary outputs; at the end only, as other steps may write there."""
        for path in [path for step in self._temporary() for path in step.outputs]:
            for folder in (path.parent, path.parent.parent):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _verdict(self) -> UserError:
        names = ", ".join(self._failed)
        left = f"; {', '.join(self._waiting)} could not be started" if self._waiting else ""
        return UserError(
            f"{len(self._failed)} of {len(self._plan)} steps failed: {names}{left}; fix what the "
            "lines above say and run the same command again: it continues where it stopped"
        )


def _print_line(line: str) -> None:
    """Print a line by one call, as other threads print, too."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Wait until no other process prepares data in ``folder``; a kill releases the lock."""
    check_output(folder / LOCK)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire()
    except HeldError as holder:
        _print_line(f"waiting for another process that prepares data in {folder} ({holder})")
        lock.acquire(timeout=math.inf)
    try:
        yield
    finally:
        lock.release()
