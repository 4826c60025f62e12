"""Numbers of frames of a feature database: ``id2nframe.json``, or rows that are counted once.

Feature databases are also handed on without that file.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from data.stores.build_folder import is_database
from data.stores.records import ID2NFRAME
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.logger import LOGGER

COUNTS_FILE = "id2nframe.json"


def frame_counts(
    database: Path,
    vids: Callable[[], Iterable[str]],
    count: Callable[[str], int],
    spare_folder: Path | None,
) -> dict[str, int]:
    """Return {video: frames} of a feature database.

    They are read from ``id2nframe.json`` beside it. Where that is missing, rows are counted, and
    kept there for the next time, or else in ``spare_folder``: where the database's folder cannot
    be written, or has databases of other intervals, whose numbers would be others.

    Args:
        database: its own folder.
        vids: gives its videos.
        count: gives the number of a video's rows, or raises UserError.
        spare_folder: None: nowhere else.

    Raises:
        UserError: a file is damaged.
    """
    beside = database.parent / COUNTS_FILE
    if beside.is_file():
        return read_json(beside, ID2NFRAME)
    spare = None
    if spare_folder is not None:
        digest = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:12]
        spare = spare_folder / f"id2nframe_{digest}.json"
        if spare.is_file():
            counts = read_json(spare, ID2NFRAME)
            if counts.keys() == set(vids()):
                return counts
    counts = _count(database, list(vids()), count)
    places = [] if _has_other_intervals(database) else [beside]
    places += [] if spare is None else [spare]
    kept = next((place for place in places if _keep(counts, place)), None)
    LOGGER.warning(
        "%s has no %s: counted the frames of %d videos, %s",
        database.parent,
        COUNTS_FILE,
        len(counts),
        f"kept in {kept}" if kept else "which can be kept nowhere and is done at every start",
    )
    return counts


def _count(database: Path, vids: list[str], count: Callable[[str], int]) -> dict[str, int]:
    """Rows per video; videos whose record is damaged are left out, with a warning."""
    # Every rank counts; one of them shows its progress.
    quiet = None if LOGGER.isEnabledFor(logging.WARNING) else True
    counts, damaged = {}, []
    for vid in tqdm(vids, desc=f"frames in {database.name}", disable=quiet):
        try:
            counts[vid] = count(vid)
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        LOGGER.warning("%d videos are left out: %s", len(damaged), "; ".join(damaged[:3]))
    return counts


def _has_other_intervals(database: Path) -> bool:
    """Whether the folder has databases that may have other numbers of frames."""
    there = filter(is_database, database.parent.glob("*_*"))
    return any(_interval(path) != _interval(database) for path in there)


def _interval(database: Path) -> float | str:
    """The interval in a database's name; the name itself if there is none."""
    name = database.name.removesuffix("_compressed").removesuffix("_safetensors")
    try:
        return float(name.rpartition("_")[2])
    except ValueError:
        return name


def _keep(counts: dict[str, int], place: Path) -> bool:
    """Whether the counts could be written."""
    try:
        write_json(place, counts)
    except OSError:
        return False
    return True
