#!/usr/bin/env python
"""Check the databases of a training run, and print a table of the problems.

python scripts/check_data.py --config config/train-tvr-8gpu.json --storage $PATH_TO_STORAGE
python scripts/check_data.py --script train_vcmr --config … --vfeat_db /video/tv --fix-list bad.json

Takes the options of the training script in addition to its own, and opens what they name: queries
of all splits, subtitles, captions, features, lists of videos. An error would stop training or
evaluation, or make its results wrong; a warning would not. Exit code 0: no errors; 1: errors; 2: a
mistake in the command. scripts/drop_ids.py takes the --fix-list.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import pretraining, training, value
from config.groups import TrainingOptions
from config.model_config import ModelConfig
from config.parsing import parse_options
from config.storage import require_reachable
from config.values import field_hints
from data.check.checkup import full_check, quick_check
from data.check.databases import open_databases
from data.check.report import Report
from data.prepare.work import work_parser
from utils.errors import UserError, run_main
from utils.files import check_output, read_json, write_json

SCRIPTS: dict[str, type[TrainingOptions]] = {
    "train_vcmr": training.VcmrOptions,
    "train_vr": training.VrOptions,
    "train_videoQA": training.VideoQaOptions,
    "train_violin": training.ViolinOptions,
    "train_tvc": training.TvcOptions,
    "pretrain": pretraining.PretrainOptions,
    "train_all_multitask": value.ValueOptions,
}


def script_of(config: dict) -> str:
    """Return the script that has the task of a config.

    Raises:
        UserError: none has.
    """
    if value.is_value(config):
        return "train_all_multitask"
    for name, cls in SCRIPTS.items():
        if config.get("task") in get_args(field_hints(cls).get("task")):
            return name
    if "targets" in config:  # recipes of other tasks may have that key too
        return "pretrain"
    raise UserError(f"give the --script that trains: {', '.join(SCRIPTS)}")


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; return also the options of the training script."""
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--script", choices=SCRIPTS, help="that trains (default: by the config's task)")
    add("--config", metavar="FILE.json", help="options of that script")
    add("--quick", action="store_true", help="only the checks at the start of training")
    add("--json", metavar="FILE", help="write all checks, with all ids")
    add("--fix-list", metavar="FILE", help="write the ids to leave out, for scripts/drop_ids.py")
    given, rest = parser.parse_known_args(argv)
    if given.config:
        rest = ["--config", given.config, *rest]
    return given, rest


def write_fix_list(report: Report, path: str) -> None:
    """Write the ids to leave out, and print the problems that remain."""
    drops = report.broken_records()
    drops.save(path)
    records = sum(map(len, drops.records.values()))
    print(f"{path}: {len(drops.videos)} video(s) and {records} record(s) to leave out")
    for found in report.undroppable():
        print(f"leaving ids out does not fix: {found.line()}")


def main(argv: list[str] | None = None) -> None:
    """Print the table; exits with 1 if there are errors."""
    given, rest = parse_arguments(argv)
    check_output(*(path for path in (given.json, given.fix_list) if path is not None))
    config = read_json(given.config, dict[str, Any]) if given.config else {}
    options = parse_options(SCRIPTS[given.script or script_of(config)], rest)
    vocab_size = ModelConfig.from_json(options.model_config).f_config.num_words
    require_reachable(options, options.storage)
    data = open_databases(options, vocab_size)
    report = quick_check(data) if given.quick else full_check(data, given.workers)
    print(report.table())
    if given.json is not None:
        write_json(given.json, report.to_json(), indent=1)
    if given.fix_list is not None:
        write_fix_list(report, given.fix_list)
    if report.errors:
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
