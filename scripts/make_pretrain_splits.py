"""Choose the videos to pre-train and to validate on.

python scripts/make_pretrain_splits.py --name tv --output txt_db/pretrain_splits \
    --sub_txt_db txt_db/tv_subtitles.db --vfeat_db video_db/tv --exclude txt_db/tvr_val.db

Writes <name>_train.json and <name>_val.json: JSON lists of the videos that have subtitles and
features. With several --vfeat_db (shards) there is one training list for each:
<name>_train_0.json, <name>_train_1.json, … The same options give the same lists.
"""

import argparse
import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.work import not_negative, script_parser
from data.stores.build_folder import is_database
from data.stores.frame_counts import COUNTS_FILE
from data.stores.lmdb_environment import LmdbReader
from data.stores.lmdb_io import TextDb
from data.stores.records import ID2NFRAME
from data.stores.safetensors_io import SafetensorsReader
from data.video_pool import feature_name, named_videos
from utils.errors import UserError, run_main
from utils.files import check_output, named_path, read_json, write_json
from utils.names import text_names


def split_videos(
    vids: Iterable[str], val_share: float, seed: int, clips: bool = False
) -> tuple[set[str], set[str]]:
    """Return training and validation videos.

    Args:
        vids: all videos.
        val_share: share to validate on, at least one video.
        seed: of the random choice.
        clips: videos are clips ``<video>.<n>``: those of one video stay together.

    Raises:
        UserError: one of the two would be empty.
    """
    groups: dict[str, list[str]] = {}
    for vid in sorted(vids):
        groups.setdefault(vid.rpartition(".")[0] if clips else vid, []).append(vid)
    names = list(groups)
    count = max(1, round(val_share * len(names)))
    if count >= len(names):
        raise UserError(
            f"{len(names)} videos cannot be split into training and validation "
            f"(--val_share {val_share:g}): do --sub_txt_db and --vfeat_db belong together?"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    val = {vid for index in order[:count] for vid in groups[names[index]]}
    return {vid for members in groups.values() for vid in members} - val, val


def shard_videos(folder: Path) -> list[str]:
    """Return the videos of a data set: of its ``id2nframe.json``, or else of its database.

    Raises:
        UserError: it has neither.
    """
    if (folder / COUNTS_FILE).is_file():
        return list(read_json(folder / COUNTS_FILE, ID2NFRAME))
    for database in sorted(filter(is_database, folder.glob("*"))):
        in_lmdb = (database / "data.mdb").exists()
        return list((LmdbReader if in_lmdb else SafetensorsReader)(database).keys())
    raise UserError(f"{folder} has neither {COUNTS_FILE} nor a feature database; fix --vfeat_db")


def excluded_videos(paths: Iterable[str], known: Container[str]) -> set[str]:
    """Return the videos that other data sets name.

    Args:
        paths: JSON lists of videos, or query databases.
        known: names of the feature databases.

    Raises:
        UserError: a file is neither, or a database names no videos.
    """
    vids: set[str] = set()
    for path in paths:
        if Path(path).is_dir():
            listed = named_videos(TextDb(path), known)
            if not listed:
                raise UserError(f"{path} names no videos to exclude: give a list of them instead")
        else:
            listed = read_json(path)
            listed = list(listed.values()) if isinstance(listed, Mapping) else listed
            listed = [feature_name(vid, known) for vid in text_names(listed, path)]
        vids.update(listed)
    return vids


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--name", required=True, help="of the corpus, e.g. tv")
    add("--output", required=True, type=named_path, help="folder of the lists")
    add("--sub_txt_db", required=True, help="subtitle database")
    add("--vfeat_db", required=True, nargs="+", type=Path, help="features, in one or more shards")
    add("--exclude", nargs="*", default=[], help="videos to leave out: JSON lists, query databases")
    add("--val_share", type=float, default=0.02, help="to validate on (default: %(default)s)")
    add("--clips", action="store_true", help="keep the clips of a video, <video>.<n>, together")
    add("--seed", type=not_negative, default=42)
    options = parser.parse_args(argv)
    if not 0 < options.val_share < 1:
        raise UserError(f"--val_share must be between 0 and 1, not {options.val_share:g}")
    return options


def main(argv: list[str] | None = None) -> dict[str, int]:
    """Write the lists; return how many videos each has."""
    options = parse_arguments(argv)
    several = len(options.vfeat_db) > 1
    endings = [f"_{number}" * several for number in range(len(options.vfeat_db))]
    names = [f"{options.name}_{part}.json" for part in ("val", *(f"train{e}" for e in endings))]
    check_output(*(options.output / name for name in names))
    shards = [shard_videos(folder) for folder in options.vfeat_db]
    featured = {vid for shard in shards for vid in shard}
    usable = featured.intersection(TextDb(options.sub_txt_db).keys())
    usable -= excluded_videos(options.exclude, featured)
    train, val = split_videos(usable, options.val_share, options.seed, options.clips)
    lists = [sorted(val), *(sorted(train.intersection(shard)) for shard in shards)]
    for name, vids in zip(names, lists, strict=True):
        write_json(options.output / name, vids)
        print(f"{options.output / name}: {len(vids)} videos")
    return dict(zip(names, map(len, lists), strict=True))


if __name__ == "__main__":
    run_main(main)
