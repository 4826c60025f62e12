"""A folder of extracted features: which videos it is made from, by what, and what it lacks.

<folder>/extraction.json                       {extractor: {model, weights, weights_sha256,
                                               interval, width}}: what made the files
<folder>/<extractor>_features/<sub>/<vid>.npz  "features" (T, D) float32, and "made_by": the
                                               extractor's entry in extraction.json at that time
<folder>/failed.json                           {file: why it could not be decoded}
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.prepare.feature_files import FeatureFileError, load_features
from data.stores.records import Id, Width
from data.video_pool import VIDEO_SUFFIXES
from utils.decoding import Finite, check, decode_json
from utils.errors import RecordError, UserError
from utils.files import atomic_write, check_output, modified, read_json, write_json

EXTRACTION_FILE, FAILED_FILE = "extraction.json", "failed.json"
META_FILE = "meta.json"  # of a feature database; "extraction" is what EXTRACTION_FILE said
TOP_FOLDER = "videos"  # of features whose videos lie in no folder of their own


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video; ``folder`` is where its features go below ``<extractor>_features``."""

    vid: str
    path: Path
    folder: str


def find_videos(video_dir: str | Path) -> list[VideoFile]:
    """All videos below a folder, by name. A video is called as its file, without the ending.

    Folders within folders become one: ``a/b/x.mp4`` goes to ``a_b``.

    Raises:
        UserError: there are none, or two of one name.
    """
    video_dir = Path(video_dir)
    if not video_dir.is_dir():
        raise UserError(f"{video_dir} is no folder; --video_dir must hold the videos")
    videos: dict[str, VideoFile] = {}
    for path in sorted(video_dir.rglob("*")):
        hidden = path.name.startswith(".")
        if hidden or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        folder = "_".join(path.relative_to(video_dir).parts[:-1]) or TOP_FOLDER
        other = videos.setdefault(path.stem, VideoFile(path.stem, path, folder))
        if other.path != path:
            raise UserError(
                f"{other.path} and {path} would both be video {path.stem!r}; rename one of them"
            )
    if not videos:
        raise UserError(f"{video_dir} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    return [videos[vid] for vid in sorted(videos)]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made an extractor's features.

    Attributes:
        model: the network.
        weights: name of their file; None: untrained.
        weights_sha256: of that file.
        interval: seconds of video that a feature covers.
        width: D.
    """

    model: str
    weights: str | None
    weights_sha256: str | None
    interval: float
    width: int

    def differences(self, other: dict[str, Any]) -> list[str]:
        """How a recorded entry differs. A file of weights may be renamed, but not changed."""
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


class FeatureFolder:
    """Takes features, one file a video and extractor, each whole or absent.

    Args:
        folder: made if it is not there.
        made_by: of each extractor that is to run.
        force: replace what other weights or another interval made.

    Raises:
        OSError: it cannot be written.
        UserError: it holds features of these extractors that were made otherwise, or of another
            interval.
    """

    def __init__(self, folder: str | Path, made_by: dict[str, Provenance], force: bool) -> None:
        self.folder = Path(folder)
        self._made_by = made_by
        self._failed: dict[str, str] = {}
        check_output(self.folder / EXTRACTION_FILE, self.folder / FAILED_FILE)
        known = read_extraction(self.folder) or {}
        if not force:
            self._check_unchanged(known)
        self._check_interval(known)
        entries = {name: dataclasses.asdict(made_by[name]) for name in made_by}
        if any(known.get(name) != entry for name, entry in entries.items()):
            write_json(self.folder / EXTRACTION_FILE, {**known, **entries}, indent=2)

    def _check_unchanged(self, known: dict[str, dict[str, Any]]) -> None:
        mend = "choose another --output, or pass --force to extract them anew"
        for name, provenance in self._made_by.items():
            there = self.folder / f"{name}_features"
            if name not in known and any(there.glob("*/*.npz")):
                raise UserError(f"{there} holds features and nothing says what made them; {mend}")
            if name in known and (differences := provenance.differences(known[name])):
                raise UserError(f"{there} was made with {'; '.join(differences)}; {mend}")

    def _check_interval(self, known: dict[str, dict[str, Any]]) -> None:
        interval = next(iter(self._made_by.values())).interval
        for name, entry in known.items():
            if name not in self._made_by and entry["interval"] != interval:
                raise UserError(
                    f"the {name} features in {self.folder} cover {entry['interval']:g} seconds "
                    f"each, not {interval:g}: all kinds must agree; extract all --models"
                )

    def check(self, videos: Iterable[VideoFile]) -> None:
        """See, before the work, that features of videos can be written.

        Raises:
            OSError: they cannot.
        """
        one_of_folder = {video.folder: video for video in videos}
        for extractor in self._made_by:
            check_output(*(self.path(video, extractor) for video in one_of_folder.values()))

    def path(self, video: VideoFile, extractor: str) -> Path:
        """Where the features of a video lie."""
        return self.folder / f"{extractor}_features" / video.folder / f"{video.vid}.npz"

    def has(self, video: VideoFile) -> bool:
        """Whether all features of a video are there, newer than it, whole, and made like these."""
        return all(self._is_good(video, extractor) for extractor in self._made_by)

    def _is_good(self, video: VideoFile, extractor: str) -> bool:
        path, provenance = self.path(video, extractor), self._made_by[extractor]
        if not path.is_file() or modified(path) < modified(video.path):
            return False
        try:
            features = load_features(path)
        except FeatureFileError:
            return False
        return features.shape[1] == provenance.width and not provenance.differences(_made_by(path))

    def write(self, video: VideoFile, features: dict[str, np.ndarray]) -> None:
        """Keep the features (T, D) of each extractor."""
        for extractor, of_video in features.items():
            made_by = json.dumps(dataclasses.asdict(self._made_by[extractor]))
            path = self.path(video, extractor)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez(file, features=of_video.astype(np.float32), made_by=made_by)

    def fail(self, video: VideoFile, reason: str) -> None:
        """Note that a video cannot be used; it is tried again next time."""
        self._failed[str(video.path)] = reason
        self.write_failed()

    def write_failed(self) -> None:
        """Write failed.json, or remove that of an earlier run."""
        path = self.folder / FAILED_FILE
        if self._failed:
            write_json(path, self._failed, indent=4)
        else:
            path.unlink(missing_ok=True)


def _made_by(path: Path) -> dict[str, Any]:
    """What a file says of its making; nothing for a file of another program."""
    try:
        with np.load(path, allow_pickle=False) as entries:
            return decode_json(str(entries["made_by"]), dict) if "made_by" in entries else {}
    except Exception:  # NumPy and zipfile raise all sorts: whatever it says, it is not ours
        return {}


def extraction_of(feature_files: Iterable[str], interval: float) -> dict[str, Any] | None:
    """What made feature files, from the folder of features that they lie in.

    Args:
        feature_files: ``<folder>/<extractor>_features/<sub>/<vid>.npz``.
        interval: seconds that a feature is said to cover.

    Raises:
        UserError: it was another interval, or files of different making are mixed.
    """
    folders = sorted({Path(path).parent.parent.parent for path in feature_files})
    found = [(folder, read_extraction(folder)) for folder in folders]
    for folder, extraction in found:
        for name, entry in (extraction or {}).items():
            if entry["interval"] != interval:
                raise UserError(
                    f"the {name} features in {folder} cover {entry['interval']:g} seconds each; "
                    f"pass --frame_length {entry['interval']:g}, or extract them anew"
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
    """What a feature database says of itself; nothing where it has no ``meta.json``.

    Raises:
        UserError: it is damaged, or says something else.
    """
    path = database / META_FILE
    return read_json(path, FeatureMeta) if path.is_file() else FeatureMeta()


def database_extraction(database: Path) -> dict[str, Any] | None:
    """What made the features of a database; None where it does not say."""
    return read_feature_meta(database).extraction


def database_parts(database: Path) -> dict[str, int] | None:
    """{part: width} of a database's features in order; None where it does not say."""
    return read_feature_meta(database).parts
