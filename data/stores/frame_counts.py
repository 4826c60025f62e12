"""Frame counts of a feature database, from a file or counted once.

They are next to the database, in ``id2nframe_<interval>.json`` (VALUE's) or ``id2nframe.json``, for
all versions of the features. Some published feature databases come without such a file.
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


def own_counts_path(folder: Path, interval: float) -> Path:
    """Return ``folder``/``id2nframe_1.5.json``."""
    return folder / f"id2nframe_{interval:g}.json"


def counts_path(folder: Path, interval: float) -> Path:
    """Return the file of frame counts: the interval's own where there is one."""
    own = own_counts_path(folder, interval)
    return own if own.is_file() else folder / COUNTS_FILE


def frame_counts(
    database: Path,
    interval: float,
    vids: Callable[[], Iterable[str]],
    count: Callable[[str], int],
    spare_folder: Path | None,
) -> dict[str, int]:
    """Return {video: frames} of a feature database.

    They are read from the file next to it. If that is missing, rows are counted and saved there, or
    in ``spare_folder`` where the database's folder cannot be written or has databases of other
    intervals, whose counts would differ.

    Args:
        database: its own folder.
        interval: seconds per frame.
        vids: returns its videos.
        count: returns the number of a video's rows, or raises UserError.
        spare_folder: None: counts are saved nowhere else.

    Raises:
        UserError: a file is damaged.
    """
    file = counts_path(database.parent, interval)
    if file.is_file():
        return read_json(file, ID2NFRAME)
    own = version_and_interval(database)[1]
    others = {version_and_interval(path)[1] for path in _databases(database.parent)} - {own}
    candidates = [] if others else [file]
    if spare_folder is not None:
        digest = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:12]
        spare = spare_folder / f"id2nframe_{digest}.json"
        if spare.is_file():
            counts = read_json(spare, ID2NFRAME)
            if counts.keys() == set(vids()):
                return counts
        candidates.append(spare)
    counts = _count(database, list(vids()), count)
    saved = next((path for path in candidates if _saved(counts, path)), None)
    LOGGER.warning(
        "%s has no %s: counted the frames of %d videos, %s",
        *(database.parent, COUNTS_FILE, len(counts)),
        f"kept in {saved}" if saved else "which can be kept nowhere and is done at every start",
    )
    return counts


def _count(database: Path, vids: list[str], count: Callable[[str], int]) -> dict[str, int]:
    """Return rows per video; videos whose record is damaged are left out, with a warning."""
    # Every rank counts; rank 0 shows the progress.
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


def merged_counts(
    database: Path, path: Path, found: dict[str, int], recount: bool
) -> dict[str, int]:
    """Return the frame counts of a folder's databases with those of a new database.

    Versions of one interval may differ by a frame at the end of a video: the lesser is kept.

    Args:
        database: the new database.
        path: file of the counts so far; it may be missing.
        found: counts of the new database.
        recount: they replace the counts so far.

    Raises:
        UserError: they contradict counts that may be of another interval.
    """
    others = [version_and_interval(other) for other in _databases(database.parent) - {database}]
    known = read_json(path, ID2NFRAME) if path.is_file() and (others or not recount) else {}
    differ = [vid for vid, count in found.items() if known.get(vid, count) != count]
    if not differ or recount:
        return known | found
    own, vid = version_and_interval(database), differ[0]
    several = any(other[0] != own[0] for other in others)
    of_interval = several and {other[1] for other in others} == {own[1]}
    if path.name == COUNTS_FILE and not of_interval:
        raise UserError(
            f"{path} says {known[vid]} frames of {vid!r}, the features have {found[vid]}: was it "
            "made for another interval? Choose another --dataset, or pass --force"
        )
    LOGGER.warning(
        "%d videos (first: %s) have other numbers of frames than in %s: the lesser is kept",
        *(len(differ), vid, path),
    )
    return known | {vid: min(count, known.get(vid, count)) for vid, count in found.items()}


def _databases(folder: Path) -> set[Path]:
    return set(filter(is_database, folder.glob("[!.]*_*")))


def version_and_interval(database: Path) -> tuple[str, float | str]:
    """Return a database's version and interval by its name; both are the name if it has none."""
    name = database.name.removesuffix("_compressed").removesuffix("_safetensors")
    version, _, interval = name.rpartition("_")
    try:
        return version, float(interval)
    except ValueError:
        return name, name


def _saved(counts: dict[str, int], path: Path) -> bool:
    try:
        write_json(path, counts)
    except OSError:
        return False
    return True
