"""Download the published databases of a task, or make them from raw files.

python scripts/prepare_data.py --dataset tvr --storage $PATH_TO_STORAGE
python scripts/prepare_data.py --dataset tvr --storage $PATH_TO_STORAGE --from raw \
    --ann_dir $PATH_TO_STORAGE/ann --feature_dir $PATH_TO_STORAGE/features

Steps whose results exist, intact and newer than their inputs, are skipped: so the same command
continues after a kill, and does nothing when all is done. Each result appears whole or not at all.
See docs/DATA.md.

Downloads come from $HERO_BLOB_URL: a server, or a local folder of the same layout.
"""

import argparse
import sys
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.storage import default_storage
from config.value import TASKS
from data.prepare.download import RetryPolicy
from data.prepare.mirror import PUBLISHED_ADDRESS, SourceGoneError, open_mirror
from data.prepare.work import add_toker, positive, work_parser
from scripts.preparation import raw
from scripts.preparation.datasets import VALUE, catalogue
from scripts.preparation.graph import Graph, Reason, Step
from scripts.preparation.published import published_steps
from scripts.preparation.runner import Runner, sole_use
from utils.errors import UserError, run_main
from utils.files import check_output, named_path

PRETRAINED = "pretrained"
NAMES = tuple(catalogue().datasets)
FOLDERS = ("txt_db", "video_db", "pretrained", "finetune")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = work_parser(f"{__doc__}\nWith --from raw:\n\n{raw.__doc__}")
    add = parser.add_argument
    add(
        "--dataset",
        required=True,
        nargs="+",
        choices=(*NAMES, VALUE, PRETRAINED),
        metavar="NAME",
        help=f"one or more of {', '.join(NAMES)}; {VALUE}: all of VALUE's, as it has them; "
        f"{PRETRAINED}: only HERO's weights",
    )
    add(
        "--benchmark",
        choices=(VALUE,),
        help="data sets of HERO in VALUE's form: its splits, and features every 1.5 seconds, "
        "uncompressed",
    )
    add(
        "--storage",
        type=named_path,
        default=default_storage(),
        help="folder of txt_db, video_db, pretrained and finetune (default: $HERO_STORAGE)",
    )
    add(
        "--from",
        dest="origin",
        choices=("download", "raw"),
        default="download",
        help="published databases, or raw files (default: %(default)s)",
    )
    add_raw_files(parser.add_argument_group("with --from raw"))
    add_downloads(parser.add_argument_group("with --from download"))
    add_steps(parser.add_argument_group("steps"))
    options = parser.parse_args(argv)
    if VALUE in options.dataset:
        options.benchmark = VALUE
        others = [name for name in options.dataset if name not in (VALUE, *TASKS)]
        options.dataset = [*TASKS, *others]
    options.sets = catalogue(options.benchmark is not None)
    _check(options)
    return options


def add_raw_files(group: argparse._ActionsContainer) -> None:
    """Add the options of raw files and databases."""
    add = group.add_argument
    add("--txt_db", type=Path, help="text databases (default: <storage>/txt_db)")
    add("--video_db", type=Path, help="features (default: <storage>/video_db)")
    add("--ann_dir", type=Path, help="annotation files")
    add(
        "--feature_dir",
        type=Path,
        help="per-video feature files, or a feature database; without: no features are made",
    )
    add("--only_available", action="store_true", help=argparse.SUPPRESS)  # the only behaviour now
    add_toker(group)


def add_downloads(group: argparse._ActionsContainer) -> None:
    """Add the options of downloads."""
    add = group.add_argument
    add("--asr", action="store_true", help="also recognised speech (DiDeMo, MSR-VTT)")
    add(
        "--max_gb",
        type=positive,
        default=64.0,
        help="of a download whose size the server does not announce (default: %(default)g)",
    )
    add(
        "--max_hours",
        type=positive,
        default=24.0,
        help="of one download; the next run continues it (default: %(default)g)",
    )


def add_steps(group: argparse._ActionsContainer) -> None:
    """Add the options that select steps."""
    add = group.add_argument
    add("--jobs", type=int, default=1, help="steps that run at a time (default: %(default)s)")
    add(
        "--only", nargs="+", metavar="STEP", help="only these steps (* and ? match) and their needs"
    )
    add("--force", nargs="*", metavar="STEP", help="run these steps (default: all) in any case")
    add("--dry-run", action="store_true", help="show which steps would run, and why")
    add(
        "--graph",
        nargs="?",
        const="list",
        choices=("list", "dot"),
        help="show all steps, as a list or in Graphviz's language",
    )


def _check(options: argparse.Namespace) -> None:
    if options.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, not {options.jobs}")
    if options.origin == "download":
        if options.storage is None:
            raise UserError("--storage is missing: the folder that downloads go to")
        raw_only = ("ann_dir", "feature_dir", "txt_db", "video_db")
        given = [f"--{name}" for name in raw_only if getattr(options, name) is not None]
        if given:
            raise UserError(f"{', '.join(given)} needs --from raw")
        return
    if PRETRAINED in options.dataset:
        raise UserError(f"{PRETRAINED} weights are downloaded, not made from raw files")
    if options.storage is None and options.txt_db is None:
        raise UserError("--storage is missing: the folder that databases go to")
    if options.ann_dir is None or not options.ann_dir.is_dir():
        raise UserError(f"{options.ann_dir} is no folder; --ann_dir must hold the annotations")
    if options.feature_dir is not None and not options.feature_dir.is_dir():
        raise UserError(f"--feature_dir {options.feature_dir} is no folder")


def download_steps(options: argparse.Namespace) -> list[Step]:
    """Return the steps that download published databases.

    Raises:
        UserError: a data set's databases are not HERO's published ones, and no mirror is named.
    """
    limits = RetryPolicy(
        seconds=options.max_hours * 3600, most_bytes=max(1, int(options.max_gb * 10**9))
    )
    mirror, datasets = open_mirror(retry=limits), options.sets.datasets
    unpublished = [
        name for name in options.dataset if name != PRETRAINED and not datasets[name].published
    ]
    if unpublished and mirror.address == PUBLISHED_ADDRESS:
        raise UserError(
            f"the databases of {', '.join(unpublished)} are not among HERO's published files: make "
            "them with --from raw, or set HERO_BLOB_URL to a mirror that has them"
        )
    return published_steps(options.dataset, options.storage, mirror, options.asr, options.sets)


def raw_files(options: argparse.Namespace) -> raw.RawFiles:
    """Return the raw files and the folders of the databases."""
    txt_db = options.txt_db or options.storage / "txt_db"
    return raw.RawFiles(
        annotations=options.ann_dir,
        features=options.feature_dir,
        txt_db=txt_db,
        video_db=options.video_db or (options.storage or txt_db.parent) / "video_db",
        toker=options.toker,
        workers=max(1, options.workers // options.jobs),
        sets=options.sets,
    )


def show_plan(graph: Graph, plan: dict[str, Reason]) -> None:
    """Print which steps would run, and why."""
    rows = [
        (name, "run" if name in plan else "skip", plan[name].text if name in plan else "current")
        for name in graph.order
        if name in plan or not graph[name].temporary
    ]
    print(tabulate(rows, headers=("step", "", "why")))


def prepare(graph: Graph, options: argparse.Namespace) -> None:
    """Run what has to run."""
    forced = graph.order if options.force == [] else graph.select(options.force or [])
    graph.require_inputs()
    if options.dry_run:
        show_plan(graph, graph.plan(forced))
        return
    folder = options.storage or options.txt_db
    if options.force == []:
        print(f"--force without a STEP: all {len(forced)} run again: {', '.join(forced)}")
    with sole_use(folder):
        plan = graph.plan(forced)
        outputs = [path for name in plan for path in graph[name].outputs]
        check_output(*{path.parent / "any": None for path in outputs})
        Runner(graph, plan, options.jobs, fatal=SourceGoneError).run()
    if options.origin == "download":
        for name in FOLDERS:  # the container needs all of them
            (folder / name).mkdir(exist_ok=True)
    made = [name for name in plan if not graph[name].temporary]
    if made:
        print(f"{len(made)} results in {folder}: {', '.join(made)}")
    else:
        print(f"nothing to do: all is in {folder} already, intact and current")


def main(argv: list[str] | None = None) -> None:
    """Show or run the steps."""
    options = parse_arguments(argv)
    if options.origin == "download":
        steps, missing = download_steps(options), []
    else:
        files = raw_files(options)
        steps = raw.raw_steps(options.dataset, files)
        missing = raw.missing_files(options.dataset, files, steps)
    graph = Graph(steps)
    if options.only:
        graph = graph.only(graph.select(options.only))
    if options.graph:
        print(graph.dot() if options.graph == "dot" else graph.listing())
        return
    if missing and not options.only:
        print("\n".join(missing))
    prepare(graph, options)


if __name__ == "__main__":
    run_main(main)
