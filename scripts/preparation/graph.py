"""Steps, their inputs and outputs, and which of them have to run, and why."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from toposort import toposort

from utils.errors import UserError
from utils.files import modified


class Why(Enum):
    """Why a step has to run."""

    FORCED = "forced"
    MISSING = "missing"
    DAMAGED = "damaged"
    OLDER = "older"
    OTHERWISE = "made otherwise"
    NEEDED = "needed"  # makes a temporary input of a step that runs
    AFTER = "after"  # an input of it has to be made; whether it has to run is known then


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step has to run, also as text."""

    why: Why
    text: str

    @property
    def rebuild(self) -> bool:
        """Whether existing outputs are replaced."""
        return self.why in (Why.FORCED, Why.OLDER, Why.DAMAGED)


@dataclass(frozen=True)
class Step:
    """A step of the preparation."""

    name: str  # of its result, below the storage folder
    what: str  # what it does, in a few words
    # Called with True to replace existing outputs, which it must write atomically.
    action: Callable[[bool], object]
    outputs: tuple[Path, ...]  # files and folders; the first one's date counts
    inputs: tuple[Path, ...] = ()  # files and folders that they are made from
    check: Callable[[], object] | None = None  # raises UserError for damaged outputs; cheap
    otherwise: Callable[[], str | None] | None = None  # how outputs were made, if not by this step
    temporary: bool = False  # the outputs are removed once the steps that need them are done
    hint: str = ""  # how to get a missing input

    def reason(self) -> Reason | None:
        """Return why it has to run at present; None if its outputs are current."""
        for path in self.outputs:
            if not path.exists():
                return Reason(Why.MISSING, f"{path.name} is missing")
        if self.check is not None:
            try:
                self.check()
            except UserError as error:
                return Reason(Why.DAMAGED, str(error))
        if self.otherwise is not None and (difference := self.otherwise()):
            return Reason(Why.OTHERWISE, f"{difference}; --force {self.name} replaces it")
        made = last_change(self.outputs[0])
        for path in self.inputs:
            if path.exists() and last_change(path) > made:
                return Reason(Why.OLDER, f"{path} is newer")
        return None


def last_change(path: Path) -> int:
    """Return the time of the last change of a file or a folder's content, in nanoseconds."""
    inner = path.rglob("*") if path.is_dir() else ()
    return max(modified(each) for each in (path, *inner) if each.exists())


class Graph:
    """Steps by name, in the order of their dependencies.

    Args:
        steps: a step needs those whose outputs are among its inputs.

    Raises:
        ValueError: two steps have one name or output, or steps need each other.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        steps = list(steps)
        self._steps = {step.name: step for step in steps}
        makers = {path: step.name for step in steps for path in step.outputs}
        if len(self._steps) < len(steps) or len(makers) < sum(len(s.outputs) for s in steps):
            raise ValueError("two steps have one name or output")
        self._makers = makers
        self.needs: dict[str, set[str]] = {  # names of the steps that a step needs
            step.name: {makers[path] for path in step.inputs if path in makers} for step in steps
        }
        names = list(self._steps)
        # Names; the steps of a level need only those of earlier levels.
        self.levels = [sorted(level, key=names.index) for level in toposort(self.needs)]

    def __getitem__(self, name: str) -> Step:
        return self._steps[name]

    def __len__(self) -> int:
        return len(self._steps)

    @cached_property
    def order(self) -> list[str]:
        """All names, each after those it needs."""
        return [name for level in self.levels for name in level]

    @cached_property
    def needed_by(self) -> dict[str, list[str]]:
        """For each step, the names of the steps that need it."""
        return {
            name: [other for other in self.order if name in self.needs[other]]
            for name in self.order
        }

    def select(self, patterns: Iterable[str]) -> set[str]:
        """Return the names that match one of the patterns (``*``, ``?``).

        Raises:
            UserError: a pattern matches none.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            matches = {name for name in self.order if fnmatchcase(name, pattern)}
            if not matches:
                near = difflib.get_close_matches(pattern, self.order, n=1, cutoff=0.0)
                raise UserError(
                    f"there is no step {pattern!r}; did you mean {near[0]!r}? --graph lists all"
                )
            chosen |= matches
        return chosen

    def only(self, names: Iterable[str]) -> "Graph":
        """Return the graph of the named steps and those they need."""
        kept: set[str] = set()
        for name in reversed(self.order):
            if name in names or kept.intersection(self.needed_by[name]):
                kept.add(name)
        return Graph(step for name, step in self._steps.items() if name in kept)

    def require_inputs(self) -> None:
        """Raise UserError for an input that does not exist and that no step makes."""
        for step in self._steps.values():
            for path in step.inputs:
                if path not in self._makers and not path.exists():
                    raise UserError(f"{step.name} needs {path}, which does not exist{step.hint}")

    def plan(self, forced: Iterable[str] = ()) -> dict[str, Reason]:
        """Return which steps have to run at present, in order, and why.

        Args:
            forced: names of steps that run in any case.
        """
        forced = set(forced)
        plan: dict[str, Reason] = {}
        for name in self.order:
            reason = self._reason(name, name in forced, plan)
            if reason is not None:
                plan[name] = reason
        for name in reversed(self.order):
            user = next((other for other in self.needed_by[name] if other in plan), None)
            step = self._steps[name]
            if user and step.temporary and name not in plan and step.reason() is not None:
                plan[name] = Reason(Why.NEEDED, f"{user} needs it")
        return {name: plan[name] for name in self.order if name in plan}

    def _reason(self, name: str, forced: bool, plan: Mapping[str, Reason]) -> Reason | None:
        if forced:
            return Reason(Why.FORCED, "forced")
        again = [need for need in sorted(self.needs[name]) if need in plan]
        for need in again:
            if self._steps[need].temporary:
                return Reason(Why.FORCED, f"{need} is {plan[need].text}")
        step = self._steps[name]
        own = None if step.temporary else step.reason()
        if own is None and again:
            return Reason(Why.AFTER, f"{again[0]} may change")
        return own

    def dot(self) -> str:
        """Return the graph in Graphviz's language."""
        lines = ["digraph {", "  rankdir=LR; node [shape=box];"]
        for name in self.order:
            lines.append(f'  "{name}" [tooltip="{self._steps[name].what}"];')
            lines += [f'  "{need}" -> "{name}";' for need in sorted(self.needs[name])]
        return "\n".join([*lines, "}"])

    def listing(self) -> str:
        """Return one line per step, indented by level, with the steps it needs."""
        lines = []
        for level, names in enumerate(self.levels):
            for name in names:
                needs = ", ".join(sorted(self.needs[name]))
                after = f"  ← {needs}" if needs else ""
                lines.append(f"{'  ' * level}{name}: {self._steps[name].what}{after}")
        return "\n".join(lines)
