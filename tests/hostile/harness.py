"""Run a script in this process as the command line does, and hold it to what a mistake may do."""

import hashlib
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from utils.errors import run_main

SECONDS = 20  # of computing that a command may take to refuse its input
WAITING = 0.02  # seconds of computing in SECONDS: less, and a command waits for what never comes
MEMORY_BYTES = 3 << 30  # that it may take beyond what the process has
LINE_CHARACTERS = 600  # of the one line
ANY_LINE_CHARACTERS = 2000  # of everything else that is said
# What a command that fails may leave: what a run said, locks, lists of what was wrong, parts of
# downloads to go on from.
_MAY_CHANGE = {"log", ".downloads"}
_MAY_COME = (".lock", ".failed.json")


@dataclass
class Place:
    """Where a case happens.

    Attributes:
        folder: of its files.
        environment: variables that the command is to see.
        stack: closed when the command has ended.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def path(self, name: str) -> Path:
        """A path within the folder, whose parents are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file."""
        path = self.path(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


Make = Callable[[Place], list[object]]
Reader = TypeVar("Reader")
Mutation = TypeVar("Mutation")


def spread(
    mutations: Iterable[Mutation], readers: Sequence[Reader], share: int
) -> Iterator[tuple[Reader, Mutation]]:
    """Pair each mutation with ``share`` of the readers, in turn: where one piece of code decodes
    what all of them read, not each has to see everything."""
    turns = cycle(readers)
    for mutation in mutations:
        for reader in islice(turns, share):
            yield reader, mutation


@dataclass(frozen=True)
class Case:
    """Bad input, and what must be said of it.

    Attributes:
        reader: what is read.
        mutation: what is wrong with it.
        script: module whose ``main`` is run.
        make: writes the files; returns the words of the command line.
        words: that must be in the one line.
        code: exit code; 0: the data are usable, and ``words`` must be in the warnings.
        check: of a command that succeeds: sees that what it wrote is right.
        told: what must have been printed besides.
    """

    reader: str
    mutation: str
    script: str
    make: Make
    words: tuple[str, ...]
    code: int = 2
    check: Callable[[Path], None] | None = None
    told: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.script.removeprefix('scripts.')}: {self.reader}: {self.mutation}"


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``raised`` is what came out of it, if anything did."""

    code: int
    raised: BaseException | None


class StillRunningError(Exception):
    """A command takes longer than it may."""


def run_command(script: str, arguments: list[object], environment: dict[str, str]) -> Outcome:
    """Run a script's ``main`` as its command line does, within limits of time and memory."""
    module = importlib.import_module(script)
    words = [str(argument) for argument in arguments]
    with patch.dict(os.environ, environment), _limited():
        try:
            run_main(lambda: module.main(words))
        except SystemExit as stopped:
            return Outcome(stopped.code or 0, None)
        except Exception as error:
            return Outcome(1, error)
    return Outcome(0, None)


@contextmanager
def _limited() -> Iterator[None]:
    """Limit time and memory of what runs in the block."""

    began = last = time.process_time()

    def stop(*_: object) -> None:
        nonlocal last
        before, last = last, time.process_time()
        if last - began < SECONDS and last - before > WAITING:
            signal.alarm(SECONDS)  # it is the machine that is busy
            return
        raise StillRunningError(f"after {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def contents(folder: Path) -> dict[str, str]:
    """{path: checksum} of all that a command must not touch when it fails."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _MAY_CHANGE.isdisjoint(name.parts) and not path.name.endswith(_MAY_COME):
            found[str(name)] = _checksum(path)
    return found


def _checksum(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"


def check_case(case: Case, folder: Path, read_output: Callable[[], tuple[str, str]]) -> None:
    """Run a case and assert all that must hold.

    Args:
        case: the case.
        folder: an empty one.
        read_output: gives what has been written to stdout and stderr.
    """
    place = Place(folder)
    with place.stack:
        arguments = case.make(place)
        before = contents(folder)
        read_output()
        outcome = run_command(case.script, arguments, place.environment)
        printed, said = read_output()
    sys.stderr.write(said)  # for the report of a failure
    if outcome.raised is not None:
        raise AssertionError(f"a traceback: {outcome.raised!r:.500}") from outcome.raised
    lines = [line for part in said.split("\n") for line in part.split("\r")]
    errors = [line for line in lines if line.startswith("error: ")]
    assert outcome.code == case.code, f"exit code {outcome.code}, said {errors or said[-600:]!r}"
    assert "Traceback" not in said
    longest = max(map(len, [*lines, *printed.splitlines()]))
    assert longest <= ANY_LINE_CHARACTERS, f"a line of {longest} characters"
    untold = [word for word in case.told if word not in printed + said]
    assert not untold, f"{untold} not in {(printed + said)[-1500:]!r}"
    if case.code == 2:
        assert len(errors) == 1
        _check_line(errors[0], case.words)
        _check_untouched(before, contents(folder))
        return
    assert not errors
    for word in case.words:
        assert word in printed + said, f"{word!r} is not in {(printed + said)[-1500:]!r}"
    if case.check is not None:
        case.check(folder)


def _check_line(line: str, words: tuple[str, ...]) -> None:
    assert len(line) <= LINE_CHARACTERS, f"{len(line)} characters: {line[:LINE_CHARACTERS]}"
    assert line.isprintable(), f"unprintable characters: {line!r}"
    missing = [word for word in words if word not in line]
    assert not missing, f"{missing} not in {line!r}"


def _check_untouched(before: dict[str, str], after: dict[str, str]) -> None:
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    # A folder that is made before anything is written into it loses nothing.
    changed = {name for name in changed if (before.get(name), after.get(name)) != (None, "no file")}
    assert not changed, f"written, changed or deleted: {sorted(changed)}"


def damaged_file(arrange: Make, file: str, damage: Callable[[Path], object]) -> Make:
    """A sound world with one file damaged."""

    def make(place: Place) -> list[object]:
        arguments = arrange(place)
        damage(place.folder / file)
        return arguments

    return make
