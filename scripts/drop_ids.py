#!/usr/bin/env python
"""Copy databases without the videos, queries and captions of a list.

python scripts/drop_ids.py --list bad.json --output clean_txt_db txt_db/tvr_*.db \\
    txt_db/tv_subtitles.db

Takes query, subtitle and caption databases, JSON lists of videos (pretrain_splits/*.json) and JSON
lines that name a video (tvc_val_release.jsonl). Copies keep their names and leave the originals
alone. The list is {"videos": [names], "records": {database: [ids]}}, as scripts/check_data.py
--fix-list writes it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.check.broken_databases import BrokenRecords, check_copy, drop_from
from data.prepare.work import add_force, script_parser
from utils.errors import run_main
from utils.files import named_path
from utils.logger import LOGGER


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("databases", nargs="+", type=Path, help="databases, lists and annotations to copy")
    add("--list", required=True, help="names and ids to leave out")
    add("--output", required=True, help="folder of the copies")
    add_force(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the copies."""
    options = parse_arguments(argv)
    drops, any_dropped = BrokenRecords.load(options.list), False
    output = named_path(options.output)
    copies = {database: output / database.name for database in options.databases}
    for database, target in copies.items():
        check_copy(database, target, options.force)
    for database, target in copies.items():
        dropped = drop_from(database, target, drops, options.force)
        print(f"{target}: {dropped}")
        any_dropped |= dropped.any
    if not any_dropped:
        LOGGER.warning(
            "nothing that %s names (%d videos, %d records) was found: is it of other databases?",
            *(options.list, len(drops.videos), sum(map(len, drops.records.values()))),
        )


if __name__ == "__main__":
    run_main(main)
