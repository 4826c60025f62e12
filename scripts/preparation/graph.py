"""Steps, what they make and need, and which of them have to run, and why."""

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
    ASKED_FOR = "asked for"  # makes what another step needs now, and nobody keeps
    AFTER = "after"  # a step that it needs has to run; whether it has, too, shows then


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step has to run, and a line that says it."""

    why: Why
    text: str

    @property
    def rebuild(self) -> bool:
        """Whether what is there is to be replaced."""
        return self.why in (Why.FORCED, Why.OLDER, Why.DAMAGED)


@dataclass(frozen=True)
class Step:
    """Something to be done once."""

    name: str  # what it makes, below the storage folder
    what: str  # a few words that say what it does
    # does it; called with True when what is there is to be replaced. What it makes appears whole or
    # not at all
    action: Callable[[bool], object]
    outputs: tuple[Path, ...]  # files and folders it makes; the first tells when
    inputs: tuple[Path, ...] = ()  # what they are made from
    # raises :class:`UserError` if the outputs that are there are of no use; cheap
    check: Callable[[], object] | None = None
    # says how the outputs that are there were made, if not as this step would
    otherwise: Callable[[], str | None] | None = None
    temporary: bool = False  # the outputs are removed once the steps that need them are done
    hint: str = ""  # how to come by an input that is not there

    def reason(self) -> Reason | None:
        """Return why it has to run as things stand; None if its outputs are current."""
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
    """Return when a file, or anything in a folder, was changed last, in nanoseconds."""
    inner = path.rglob("*") if path.is_dir() else ()
    return max(modified(each) for each in (path, *inner) if each.exists())


class Graph:
    """Steps by name, in an order in which they can be done.

    Args:
        steps: a step needs those whose outputs are among its inputs.

    Attributes:
        levels: names; the steps of a level need only those of earlier levels.
        needs: for each step, the names of those it needs.

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
        self.needs: dict[str, set[str]] = {
            step.name: {makers[path] for path in step.inputs if path in makers} for step in steps
        }
        places = {name: place for place, name in enumerate(self._steps)}
        self.levels = [sorted(level, key=places.__getitem__) for level in toposort(self.needs)]

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
        """For each step, the names of those that need it."""
        return {
            name: [other for other in self.order if name in self.needs[other]]
            for name in self.order
        }

    def select(self, patterns: Iterable[str]) -> set[str]:
        """Names that match one of the patterns (``*``, ``?``).

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
        """The steps named, and those they need."""
        kept: set[str] = set()
        for name in reversed(self.order):
            if name in names or kept.intersection(self.needed_by[name]):
                kept.add(name)
        return Graph(step for name, step in self._steps.items() if name in kept)

    def require_inputs(self) -> None:
        """See that whatever no step makes is there.

        Raises:
            UserError: it is not.
        """
        for step in self._steps.values():
            for path in step.inputs:
                if path not in self._makers and not path.exists():
                    raise UserError(f"{step.name} needs {path}, which does not exist{step.hint}")

    def plan(self, forced: Iterable[str] = ()) -> dict[str, Reason]:
        """Return which steps have to run as things stand, in order, and why.

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
            asking = next((other for other in self.needed_by[name] if other in plan), None)
            step = self._steps[name]
            if asking and step.temporary and name not in plan and step.reason() is not None:
                plan[name] = Reason(Why.ASKED_FOR, f"{asking} needs it")
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
        """The graph in Graphviz's language."""
        lines = ["digraph {", "  rankdir=LR; node [shape=box];"]
        for name in self.order:
            lines.append(f'  "{name}" [tooltip="{self._steps[name].what}"];')
            lines += [f'  "{need}" -> "{name}";' for need in sorted(self.needs[name])]
        return "\n".join([*lines, "}"])

    def listing(self) -> str:
        """One line a step, indented by level, with what it needs."""
        lines = []
        for level, names in enumerate(self.levels):
            for name in names:
                needs = ", ".join(sorted(self.needs[name]))
                after = f"  ← {needs}" if needs else ""
                lines.append(f"{'  ' * level}{name}: {self._steps[name].what}{after}")
        return "\n".join(lines)
