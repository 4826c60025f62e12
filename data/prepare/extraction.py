"""The provenance of features: what made them, and of which videos, in folders and databases.

<folder>/extraction.json                       {extractor: {model, weights, weights_sha256,
                                               interval, width}}: what made the files
<folder>/<extractor>_features/<sub>/<vid>.npz  "features" (T, D) float32; "made_by": the
                                               extractor's entry in extraction.json at that time;
                                               "made_of": the video file (:class:`MadeOf`);
                                               or as VALUE's (:mod:`data.prepare.feature_parts`)
"""

import dataclasses
import json
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.prepare.feature_parts import folder_of
from data.stores.records import Id, Width
from utils.decoding import Finite, check, decode_json
from utils.errors import RecordError, UserError
from utils.files import atomic_write, read_json
from utils.fingerprints import Fingerprint

EXTRACTION_FILE = "extraction.json"
_MAX_TEXT_BYTES = 1 << 20  # of what a feature file says of itself
META_FILE = "meta.json"  # of a feature database; "extraction" is what EXTRACTION_FILE said


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made an extractor's features."""

    model: str  # the network
    weights: str | None  # name of their file; None: untrained
    weights_sha256: str | None  # of that file
    interval: float  # seconds of video that a feature covers
    width: int  # D of the features (T, D)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Return how a recorded entry differs; a file of weights may have another name."""
        own = dataclasses.asdict(self)
        del own["weights"]
        return [
            f"{name} {other.get(name)}, not {value}"
            for name, value in own.items()
            if other.get(name) != value
        ]


class _Extractor(msgspec.Struct):
    """The entry of an extractor; more may be known of it."""

    interval: Finite


def read_extraction(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return {extractor: provenance} of a folder of features; None where nothing is recorded.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / EXTRACTION_FILE
    if not path.is_file():
        return None
    extraction = read_json(path, dict[Id, dict[str, Any]])
    try:
        check(extraction, dict[Id, _Extractor])
    except RecordError as error:
        raise UserError(
            f"{path} must hold each extractor's model, weights, interval, width: {error}"
        ) from None
    return extraction


class MadeOf(msgspec.Struct, frozen=True):
    """The video file that features were made from; ``made_of`` of a feature file."""

    file: Fingerprint
    origin: str  # the folder that was searched for it
    problem: str | None = None  # what is wrong with a file that is used; None: nothing
    seconds: Finite = 0.0  # how much of it is used then

    def fits(self, path: Path) -> bool:
        """Return whether the file is the same; a damaged one may have been fixed in its middle."""
        if self.problem is not None and path.stat().st_mtime_ns != self.file.modified:
            return False
        return self.file.fits(path)


def save_arrays(
    path: Path, arrays: dict[str, np.ndarray], made_by: dict[str, Any], made_of: MadeOf
) -> None:
    """Write arrays with their provenance, atomically; of a feature file: ``features`` (T, D)."""
    source = msgspec.json.encode(made_of).decode()
    content: dict[str, Any] = {**arrays, "made_by": json.dumps(made_by), "made_of": source}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


def read_making(path: Path) -> tuple[dict[str, Any], MadeOf | None]:
    """Return a feature file's ``made_by`` and ``made_of``; {} and None where they are missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            made_by = decode_json(_read_text(archive, "made_by") or "", dict)
            made_of = _read_text(archive, "made_of")
    except Exception:  # NumPy and zipfile raise anything for a damaged file
        return {}, None
    with suppress(RecordError):
        return made_by, decode_json(made_of, MadeOf) if made_of else None
    return made_by, None


def _read_text(archive: zipfile.ZipFile, name: str) -> str | None:
    """Return a text in a feature file; None if there is none."""
    member = f"{name}.npy"
    if member not in archive.namelist():
        return None
    if (size := archive.getinfo(member).file_size) > _MAX_TEXT_BYTES:
        raise ValueError(f"{size} bytes, which no such text has")
    with archive.open(member) as entry:
        return str(np.lib.format.read_array(entry, allow_pickle=False))


def extraction_of(feature_files: Iterable[str], interval: float) -> dict[str, Any] | None:
    """Return the provenance of feature files, recorded in the folder that they lie in.

    Args:
        feature_files: in the folders of their kinds (:mod:`data.prepare.feature_parts`).
        interval: seconds that a feature covers according to the user.

    Raises:
        UserError: it is another interval, or files of different provenance are mixed.
    """
    folders = sorted({folder_of(Path(path)).parent for path in feature_files})
    first = read_extraction(folders[0]) if folders else None
    for folder in folders:
        extraction = read_extraction(folder)
        for name, entry in (extraction or {}).items():
            if entry["interval"] != interval:
                raise UserError(
                    f"the {name} features in {folder} cover {entry['interval']:g} seconds each; "
                    f"pass --frame_length {entry['interval']:g}, or extract them again"
                )
        if extraction != first:
            raise UserError(
                f"features in {folders[0]} and {folder} were made by different networks or weights"
            )
    return first


class FeatureMeta(msgspec.Struct):
    """``meta.json`` of a feature database; published ones have none."""

    interval: Finite | None = None  # seconds
    width: Width | None = None
    dtype: str | None = None
    parts: dict[Id, Width] | None = None  # widths, in the order in which parts are joined
    extraction: dict[Id, dict[str, Any]] | None = None  # {extractor: provenance}


def read_feature_meta(database: Path) -> FeatureMeta:
    """Return ``meta.json`` of a feature database; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = database / META_FILE
    return read_json(path, FeatureMeta) if path.is_file() else FeatureMeta()
