"""The base of every options class: how fields are declared, and checked in every instance."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from config.storage import to_container
from utils.errors import UserError, shorten

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rule:
    """A range that a value must lie in; ``text`` completes "must be …"."""

    text: str
    holds: Callable[[Any], bool]


POSITIVE = Rule("greater than 0", lambda value: value > 0)
NOT_NEGATIVE = Rule("0 or more", lambda value: value >= 0)
SEED = Rule("from 0 to 4294967295", lambda value: 0 <= value < 2**32)
FRACTION = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
PROBABILITY = Rule("from 0 to 1", lambda value: 0 <= value <= 1)
POSITIVE_OR_OFF = Rule("greater than 0, or -1 (off)", lambda value: value > 0 or value == -1)
PROBABILITY_OR_OFF = Rule("from 0 to 1, or -1 (off)", lambda value: 0 <= value <= 1 or value == -1)
STEP_OR_NEVER = Rule("0 or more, or -1 (never)", lambda value: value >= 0 or value == -1)


def option(
    default: Any = MISSING,
    *,
    help: str,
    rule: Rule | None = None,
    aliases: tuple[str, ...] = (),
    affects_result: bool = True,
) -> Any:
    """Declare a field of an options class.

    Args:
        default: value when neither command line nor JSON has it; without one it is required.
        help: one line for ``--help``.
        rule: range of the value, or of each one in a list.
        aliases: other names that the command line and JSON files may use.
        affects_result: whether a restarted run that changes it could end elsewhere.
    """
    metadata = {"help": help, "rule": rule, "aliases": aliases, "affects_result": affects_result}
    return _field(default, metadata)


def redefault(group: type, name: str, default: Any, *, aliases: tuple[str, ...] = ()) -> Any:
    """Declare a group's field again with another default, and further names.

    A field may be wider here: its option need not be given, as where None stands for "not read" or
    for a default that :meth:`Options.resolve` finds. Type checkers, which see in the class a form
    of the group, then need ``# type: ignore[assignment]``: the group's own methods know both.
    """
    metadata = dict(next(each for each in fields(group) if each.name == name).metadata)
    metadata["aliases"] += aliases
    return _field(default, metadata)


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Values of one script's options; an instance that exists is resolved and checked."""

    RUN_FOLDER: ClassVar[str | None] = None  # the option that names a finished run to read
    RESULTS_IN_RUN: ClassVar[bool] = False  # and whether results are written there
    VALUE: ClassVar[bool] = False  # whether it is a run by VALUE's rules

    @property
    def run_folder(self) -> Path:
        """Folder of the run that is read, or made."""
        return Path(getattr(self, self.RUN_FOLDER or "output_dir"))

    def __post_init__(self) -> None:
        self.resolve()
        self.check()

    @classmethod
    def class_for(cls, saved: Mapping[str, Any]) -> type[Self]:
        """The class that reads a run with these saved options: this one, or a form of it."""
        return cls

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the saved options of a run may set, next to the ``given`` ones."""
        return dict(saved)

    def resolve(self) -> None:
        """Fill in values that follow from others; groups extend it."""

    def check(self) -> None:
        """Check ranges; groups extend it with what involves several options.

        Raises:
            UserError: names the option, its value and the rule.
        """
        for declared in fields(self):
            rule = declared.metadata["rule"]
            value = getattr(self, declared.name)
            if rule is None or value is None:
                continue
            items = value if isinstance(value, list) else [value]
            self.require(all(map(rule.holds, items)), declared.name, rule.text)

    def require(self, holds: bool, name: str, rule: str) -> None:
        """Raise a UserError that reads "option NAME = VALUE must be RULE" unless ``holds``."""
        if not holds:
            raise UserError(f"option {name} = {show(getattr(self, name))} must be {rule}")


def show(value: Any) -> str:
    """A value as one types it on a command line."""
    if value is None:
        return "null"
    return shorten(" ".join(map(str, value)) if isinstance(value, list) else value)


def once_per_class(
    make: Callable[[type[Options]], Result],
) -> Callable[[type[Options]], Result]:
    """Let a function of an options class compute once what it returns.

    For type checkers, ``functools.cache`` takes no class whose instances have a hash of their own.
    """
    made: dict[type[Options], Result] = {}

    @wraps(make)
    def look_up(cls: type[Options]) -> Result:
        if cls not in made:
            made[cls] = make(cls)
        return made[cls]

    return look_up


@once_per_class
def option_names(cls: type[Options]) -> dict[str, str]:
    """Every accepted spelling → the option's name."""
    names = {declared.name: declared.name for declared in fields(cls)}
    for declared in fields(cls):
        names.update(dict.fromkeys(declared.metadata["aliases"], declared.name))
    return names


def family_option_names(base: type[Options]) -> set[str]:
    """Every spelling that ``base`` or a class made from it accepts."""
    names = set(option_names(base))
    return names.union(*map(family_option_names, base.__subclasses__()))


def option_groups(cls: type[Options]) -> dict[type, list[Field]]:
    """Fields of a class by the class that first declared them, base groups first."""
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, Options)]
    groups: dict[type, list[Field]] = {base: [] for base in bases}
    for declared in fields(cls):
        owner = next(base for base in bases if declared.name in inspect.get_annotations(base))
        groups[owner].append(declared)
    return {group: members for group, members in groups.items() if members}


def options_to_dict(opts: Options) -> dict[str, Any]:
    """The JSON form of all values (``log/hps.json``); paths below ``storage`` as the container
    has them."""
    storage = getattr(opts, "storage", None)
    return to_container(asdict(opts), storage)
