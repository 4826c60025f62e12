"""The base of every options class: how fields are declared, and checked in every instance."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, dataclass_transform

from config.storage import to_container
from utils.errors import UserError, shorten


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
        default: value when neither command line nor JSON gives one; without it, required.
        help: one line for ``--help``.
        rule: range of the value, or of each item of a list.
        aliases: other names that the command line and JSON files may use.
        affects_result: whether a resumed run that changes it could have another result.
    """
    metadata = {"help": help, "rule": rule, "aliases": aliases, "affects_result": affects_result}
    return _field(default, metadata)


def redefault(group: type, name: str, default: Any, *, aliases: tuple[str, ...] = ()) -> Any:
    """Declare an option of ``group`` with another default, and further names.

    A subclass of the group needs this only for further names: a plain value is a default there.
    """
    metadata = dict(group.__dataclass_fields__[name].metadata)  # type: ignore[attr-defined]
    metadata["aliases"] += aliases
    return _field(default, metadata)


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Options:
    """Values of one script's options; an instance that exists is resolved and checked.

    A subclass becomes a dataclass without a decorator. It changes an inherited default by
    ``name: type = value``; the type may be wider (``str | None``), for which type checkers need
    ``# type: ignore[assignment]``.
    """

    RUN_FOLDER: ClassVar[str | None] = None  # the option that names a finished run to read
    RESULTS_IN_RUN: ClassVar[bool] = False  # whether results are written to that run
    VALUE: ClassVar[bool] = False  # whether the run follows VALUE's rules

    def __init_subclass__(cls) -> None:
        """Make a dataclass; options that it declares again keep help, rule and aliases."""
        groups = [base.__dataclass_fields__ for base in cls.__mro__[1:] if is_dataclass(base)]
        for name in inspect.get_annotations(cls):
            inherited = next((group[name] for group in groups if name in group), None)
            default = cls.__dict__.get(name, MISSING)
            if inherited is not None and not isinstance(default, Field):
                setattr(cls, name, _field(default, inherited.metadata))
        dataclass(frozen=True, kw_only=True)(cls)

    @property
    def run_folder(self) -> Path:
        """Folder of the run that is read or written."""
        return Path(getattr(self, self.RUN_FOLDER or "output_dir"))

    def __post_init__(self) -> None:
        self.resolve()
        self.check()

    @classmethod
    def class_for(cls, saved: Mapping[str, Any]) -> type[Self]:
        """Return the class that reads a run with these saved options: this one or a subclass."""
        return cls

    @classmethod
    def from_run(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that a run's saved options provide where ``given`` has none."""
        return dict(saved)

    def resolve(self) -> None:
        """Compute values that follow from others; groups extend it."""

    def check(self) -> None:
        """Check ranges; groups extend it with rules that involve several options.

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
    """Return a value as it is typed on a command line."""
    if value is None:
        return "null"
    return shorten(" ".join(map(str, value)) if isinstance(value, list) else value)


def option_names(cls: type[Options]) -> dict[str, str]:
    """Return every accepted spelling → the option's name."""
    names = {declared.name: declared.name for declared in fields(cls)}
    for declared in fields(cls):
        names.update(dict.fromkeys(declared.metadata["aliases"], declared.name))
    return names


def family_option_names(base: type[Options]) -> set[str]:
    """Return every spelling that ``base`` or one of its subclasses accepts."""
    names = set(option_names(base))
    return names.union(*map(family_option_names, base.__subclasses__()))


def option_groups(cls: type[Options]) -> dict[type, list[Field]]:
    """Return the fields of a class by the class that first declared them, base groups first."""
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, Options)]
    groups: dict[type, list[Field]] = {base: [] for base in bases}
    for declared in fields(cls):
        owner = next(base for base in bases if declared.name in inspect.get_annotations(base))
        groups[owner].append(declared)
    return {group: members for group, members in groups.items() if members}


def options_to_dict(opts: Options) -> dict[str, Any]:
    """Return the JSON form of all values (``log/hps.json``), with the container's paths."""
    return to_container(asdict(opts), getattr(opts, "storage", None))
