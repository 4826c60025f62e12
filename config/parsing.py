"""Build checked options from the command line, a JSON file and a run's folder."""

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from config.groups import TrainingOptions
from config.options import (
    Options,
    family_option_names,
    option_groups,
    options_to_dict,
    show,
)
from config.original import (
    EVALUATION_BATCH_SIZES,
    FIXED_OPTIONS,
    FLAGS_WITHOUT_EFFECT,
    IGNORED_KEYS,
    NEGATED_KEYS,
    json_names,
    warn_of_other_defaults,
)
from config.shared_model import CONFIG, SharedModel
from config.storage import (
    default_storage,
    elsewhere_hint,
    from_container,
    to_container,
    usable_storage,
)
from config.values import (
    convert,
    convert_words,
    describe,
    field_hints,
    is_structured,
    nearest,
    required_fields,
)
from utils.errors import UserError, brief, shorten
from utils.files import read_json
from utils.logger import LOGGER

LISTS = "train_datasets"  # a key of all configs of training by VALUE's rules
OWN_CONFIGS = Path(__file__).resolve().parent
OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(cls: type[OptionsT], argv: list[str] | None = None) -> OptionsT:
    """Read a script's options: command line before ``--config`` JSON before run before default.

    Args:
        cls: the script's options class. One that evaluates a run (``cls.RUN_FOLDER``) also reads
            the options that the run was trained with.
        argv: words of the command line; None: those of the process.

    Raises:
        UserError: an unknown option (names the nearest one), a value of the wrong type or range,
            or a required option without a value.
    """
    given = vars(_build_parser(cls).parse(argv))
    unused = [n for n in FLAGS_WITHOUT_EFFECT.get(cls, ()) if given.pop(n, None) is not None]
    if unused:
        LOGGER.warning("no effect in this script: %s", ", ".join(f"--{name}" for name in unused))
    config_file = given.pop("config", None)
    values = read_config(cls, config_file) if config_file else {}
    flags = _convert_flags(cls, given)
    for typed, other in (("bf16", "fp16"), ("fp16", "bf16")):
        if flags.get(typed):
            values[other] = False
    values |= flags
    if "storage" not in values and (storage := default_storage()):
        values["storage"] = storage
    if cls.RUN_FOLDER is not None:
        return _evaluation_options(cls, values, cls.RUN_FOLDER)
    opts = _build(cls, values)
    if config_file and not Path(config_file).resolve().is_relative_to(OWN_CONFIGS):
        warn_of_other_defaults(opts, values, config_file)  # it may be one of the original
    return opts


def read_config(cls: type[Options], path: str | Path) -> dict[str, Any]:
    """Return the option values of a ``--config`` file.

    Keys that only another training script or the original has are logged and left out.

    Raises:
        UserError: the file is no JSON object, a key is unknown or a value of the wrong type.
    """
    raw = read_json(path, dict[str, Any])
    _check_rules(cls, raw, str(path))
    _check_keys(cls, raw, str(path))
    return _convert_mapping(cls, raw, str(path))


def load_run_options(
    cls: type[OptionsT], run_dir: str | Path, overrides: Mapping[str, Any] | None = None
) -> OptionsT:
    """Return the options of a finished run (its ``log/hps.json``), changed by ``overrides``.

    Runs of other versions load too: unknown keys are logged and ignored, absent ones keep their
    defaults. ``cls.from_run`` selects what a run may set. If no storage folder is given, it is the
    run's own, where that exists.

    Raises:
        UserError: the file is missing, a value does not fit, or a required option is absent.
    """
    given = overrides or {}
    run_dir = from_container(str(run_dir), given.get("storage"))
    path = Path(run_dir) / "log" / "hps.json"
    if not path.is_file():
        hint = elsewhere_hint(run_dir, given.get("storage"))
        problem = f"{path} does not exist; {run_dir} must be the --output_dir of a training"
        raise UserError(f"{problem}; {hint}" if hint else problem)
    saved = read_json(path, dict[str, Any])
    unknown = sorted(saved.keys() - family_option_names(TrainingOptions) - json_names(cls).keys())
    if unknown:
        LOGGER.warning("%s: unknown keys are ignored: %s", path, shorten(", ".join(unknown)))
    overrides = {**given, cls.RUN_FOLDER or "output_dir": run_dir}
    return _build_upon(cls, saved, overrides, path)


def changed_options(old: Mapping[str, Any], new: Options) -> list[str]:
    """Return the differences that could change a resumed run's result, as ``name: old → new``.

    Options that the saved values ``old`` lack had their defaults.
    """
    current = options_to_dict(new)
    old = to_container(dict(old), current.get("storage"))
    relevant = [declared for declared in fields(new) if declared.metadata["affects_result"]]
    before = {declared.name: old.get(declared.name, _default(declared)) for declared in relevant}
    return [
        f"{name}: {show(value)} → {show(current[name])}"
        for name, value in before.items()
        if value is not MISSING and value != current[name]
    ]


def _evaluation_options(cls: type[OptionsT], values: dict[str, Any], folder: str) -> OptionsT:
    """Return options of a run or an exported model, changed by ``values``.

    Args:
        folder: name of the option that names the run.
    """
    paths = from_container(values, values.get("storage"))
    model = SharedModel.find(paths.get("checkpoint"), paths.get(folder, ""))
    if model and not cls.class_for(model.config["options"]).RESULTS_IN_RUN:
        values = {folder: str(model.folder)} | values
    _require(cls, values, [folder])
    if model is None:
        return load_run_options(cls, values[folder], values)
    own = {"toker": model.toker} if "toker" in field_hints(cls) else {}
    return _build_upon(cls, {**model.config["options"], **own}, values, model.folder / CONFIG)


def _build_upon(
    cls: type[OptionsT], saved: Mapping[str, Any], given: Mapping[str, Any], source: Path
) -> OptionsT:
    """Return given options, completed by the ``saved`` ones of the file ``source``."""
    cls = cls.class_for(saved)
    inherited = cls.from_run(saved, given)
    inherited["storage"] = usable_storage(saved.get("storage"))
    chosen = {key: value for key, value in inherited.items() if value is not None}
    return _build(cls, {**_convert_mapping(cls, chosen, str(source)), **given})


def _build(cls: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    _require(cls, values, required_fields(cls))
    opts = cls(**values)
    for name, value in FIXED_OPTIONS.items():
        if getattr(opts, name, value) != value:
            LOGGER.warning("no effect in this script: --no_%s", name)
    return opts


def _require(cls: type[Options], values: Mapping[str, Any], names: list[str]) -> None:
    missing = [name for name in names if values.get(name) is None]
    if missing:
        flags = ", ".join(f"--{name}" for name in missing)
        raise UserError(f"missing options: {flags} (on the command line or in the --config file)")


def _check_rules(cls: type[Options], raw: Mapping[str, Any], source: str) -> None:
    """Refuse a config of the other rules' training scripts, and name those scripts."""
    if not issubclass(cls, TrainingOptions):
        return
    if LISTS in raw and not cls.VALUE:
        scripts = "train_retrieval.py, train_qa.py, train_captioning.py or train_all_multitask.py"
        raise UserError(f"{source} lists data sets ({LISTS}), as VALUE does: {scripts} runs it")
    if "no_fp16" in raw and not cls.VALUE:
        LOGGER.warning(
            "%s has no_fp16, as VALUE's files do, but lists no data sets (%s): it is trained by "
            "HERO's rules",
            *(source, LISTS),
        )
    if cls.VALUE and "task" in raw and LISTS not in raw:
        raise UserError(
            f"{source} lists no data sets ({LISTS}) but names one task: the scripts train_vcmr.py, "
            "train_vr.py, train_videoQA.py, train_violin.py and train_tvc.py run such"
        )


def _check_keys(cls: type[Options], raw: Mapping[str, Any], source: str) -> None:
    """Refuse unknown keys and options given twice; log keys without effect."""
    names = json_names(cls)
    elsewhere = family_option_names(TrainingOptions) | IGNORED_KEYS
    unused = [key for key in raw if key not in names]
    for key in unused:
        if key not in elsewhere:
            hint = nearest(key, names) or "--help lists the options"
            raise UserError(f"{source}: unknown option {brief(key)}; {hint}")
    if unused:
        LOGGER.warning("%s: no effect in this script: %s", source, shorten(", ".join(unused)))
    chosen = _chosen_keys(cls, raw)
    for key in (key for key in raw if key in names):
        taken = chosen[names[key]]
        if _plain_value(raw, key) == _plain_value(raw, taken):
            continue
        if names[key] not in EVALUATION_BATCH_SIZES:
            raise UserError(f"{source}: {taken} and {key} are one option; keep one of them")
        both = taken, show(raw[taken]), key, show(raw[key])
        LOGGER.warning("%s: %s %s is taken, not %s %s", source, *both)


def _chosen_keys(cls: type[Options], raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the key that each option is read from: its own name before its aliases."""
    names = json_names(cls)
    return {names[key]: key for key in reversed(names) if key in raw}


def _plain_value(raw: Mapping[str, Any], key: str) -> Any:
    """Return the value that a key of parsed JSON gives its option."""
    value = raw[key]
    return not value if key in NEGATED_KEYS and isinstance(value, bool) else value


def _convert_mapping(cls: type[Options], raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Convert the entries of parsed JSON that are options of ``cls``."""
    hints = field_hints(cls)
    values: dict[str, Any] = {}
    for name, key in _chosen_keys(cls, raw).items():
        try:
            values[name] = convert(_plain_value(raw, key), hints[name])
        except ValueError as error:
            raise UserError(f"{source}: option {key}: {error}") from None
    return values


def _convert_flags(cls: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert what argparse collected: words, or a boolean for a switch."""
    hints = field_hints(cls)
    values = {}
    for name, words in given.items():
        try:
            values[name] = words if isinstance(words, bool) else convert_words(words, hints[name])
        except ValueError as error:
            raise UserError(f"option --{name}: {error}") from None
    return values


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UserErrors, which name the nearest flag."""

    def parse(self, words: list[str] | None) -> argparse.Namespace:
        """Parse words; None: those of the process."""
        known, extra = self.parse_known_args(words)
        if extra:
            flag = next((word for word in extra if word.startswith("--")), extra[0])
            hint = nearest(flag.partition("=")[0], self._option_string_actions)
            self.error(f"unknown argument {flag}; {hint or '--help lists the options'}")
        return known

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _build_parser(cls: type[Options]) -> _Parser:
    parser = _Parser(
        usage="%(prog)s [--config FILE.json] [--OPTION VALUE …]",
        description="The command line beats the --config file, which beats the defaults.",
        epilog="A switch --X is turned off by --no_X; null stands for no value.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE.json", help="read options from a JSON file")
    hints = field_hints(cls)
    for group, members in option_groups(cls).items():
        section = parser.add_argument_group((group.__doc__ or "").strip())
        for declared in members:
            _add_flag(section, declared, hints[declared.name])
    for name in FLAGS_WITHOUT_EFFECT.get(cls, ()):
        parser.add_argument(f"--{name}", nargs="*", help=argparse.SUPPRESS)
    return parser


def _add_flag(section: Any, declared: Field, hint: Any) -> None:
    names = [declared.name, *declared.metadata["aliases"]]
    flags = [f"--{name}" for name in names]
    rule, default = declared.metadata["rule"], _default(declared)
    facts = [describe(hint)] if rule is None else [describe(hint), rule.text]
    facts.append("required" if default is MISSING else f"default: {show(default)}")
    text = f"{declared.metadata['help']} [{'; '.join(facts)}]".replace("%", "%%")
    if hint is bool or bool in get_args(hint):
        section.add_argument(*flags, dest=declared.name, action="store_true", help=text)
        off = [f"--no_{name}" for name in names]
        section.add_argument(*off, dest=declared.name, action="store_false", help=argparse.SUPPRESS)
        return
    count = "+" if str(hint).startswith("list") and not is_structured(hint) else 1
    section.add_argument(*flags, dest=declared.name, nargs=count, metavar="X", help=text)


def _default(declared: Field) -> Any:
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default
