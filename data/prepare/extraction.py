"""What made features, and of which videos: the records of a folder of them and of a database.

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
    width: int  # D

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Return how a recorded entry differs. A file of weights may be renamed, but not
        changed."""
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
    """{extractor: provenance} of a folder of features; None where nothing is recorded.

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
            f"{path} must tell of each extractor its model, weights, interval, width: {error}"
        ) from None
    return extraction


class MadeOf(msgspec.Struct, frozen=True):
    """The video file that features were made from; ``made_of`` of a feature file."""

    file: Fingerprint  # what it is known by
    origin: str  # the folder that was searched for it
    problem: str | None = None  # what is wrong with it although it is used; None if all is well
    seconds: Finite = 0.0  # how much of it is used then

    def fits(self, path: Path) -> bool:
        """Return whether the file is the same. A damaged one may have been fixed between its
        ends."""
        if self.problem is not None and path.stat().st_mtime_ns != self.file.modified:
            return False
        return self.file.fits(path)


def save_features(
    path: Path, features: np.ndarray, made_by: dict[str, Any], made_of: MadeOf
) -> None:
    """Write a feature file with features (T, D), atomically."""
    source = msgspec.json.encode(made_of).decode()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, made_by=json.dumps(made_by), made_of=source)


def read_making(path: Path) -> tuple[dict[str, Any], MadeOf | None]:
    """Return what a feature file says of what made it, and of which video; {} and None if
    nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            made_by = decode_json(_read_text(archive, "made_by") or "", dict)
            made_of = _read_text(archive, "made_of")
    except Exception:  # NumPy and zipfile raise all sorts: whatever it says, it is not ours
        return {}, None
    with suppress(RecordError):
        return made_by, decode_json(made_of, MadeOf) if made_of else None
    return made_by, None


def _read_text(archive: zipfile.ZipFile, name: str) -> str | None:
    """A text in a feature file; None if there is none."""
    member = f"{name}.npy"
    if member not in archive.namelist():
        return None
    info = archive.getinfo(member)
    if info.file_size > _MAX_TEXT_BYTES:
        raise ValueError(f"{info.file_size} bytes, which no such text has")
    with archive.open(info) as entry:
        return str(np.lib.format.read_array(entry, allow_pickle=False))


def extraction_of(feature_files: Iterable[str], interval: float) -> dict[str, Any] | None:
    """Return what made feature files, from the folder of features that they lie in.

    Args:
        feature_files: in the folders of their kinds (:mod:`data.prepare.feature_parts`).
        interval: seconds that a feature is said to cover.

    Raises:
        UserError: it was another interval, or files of different making are mixed.
    """
    folders = sorted({folder_of(Path(path)).parent for path in feature_files})
    found = [(folder, read_extraction(folder)) for folder in folders]
    for folder, extraction in found:
        for name, entry in (extraction or {}).items():
            if entry["interval"] != interval:
                raise UserError(
                    f"the {name} features in {folder} cover {entry['interval']:g} seconds each; "
                    f"pass --frame_length {entry['interval']:g}, or extract them again"
                )
        if extraction != found[0][1]:
            raise UserError(
                f"features in {found[0][0]} and {folder} were made by different networks or weights"
            )
    return found[0][1] if found else None


class FeatureMeta(msgspec.Struct):
    """``meta.json`` of a feature database; None where it does not say, as published ones."""

    interval: Finite | None = None
    width: Width | None = None
    dtype: str | None = None
    parts: dict[Id, Width] | None = None
    extraction: dict[Id, dict[str, Any]] | None = None


def read_feature_meta(database: Path) -> FeatureMeta:
    """Return what a feature database says of itself; nothing where it has no ``meta.json``.

    Raises:
        UserError: it is damaged, or says something else.
    """
    path = database / META_FILE
    return read_json(path, FeatureMeta) if path.is_file() else FeatureMeta()


def database_extraction(database: Path) -> dict[str, Any] | None:
    """Return what made the features of a database; None where it does not say."""
    return read_feature_meta(database).extraction


def database_parts(database: Path) -> dict[str, int] | None:
    """{part: width} of a database's features in order; None where it does not say."""
    return read_feature_meta(database).parts
