"""Where a feature database is made from: the extractors' files, or another database."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.prepare.extraction import database_extraction, extraction_of
from data.prepare.feature_files import FeatureFileError, load_joined, read_paths
from data.stores.lmdb_io import FeatureDb
from utils.errors import UserError


class FeatureSource(Protocol):
    """Features by video.

    Attributes:
        frames: T of every video.
        extraction: what made them; None where nothing says so.
        path: of the file or database, for messages.
    """

    frames: dict[str, int]
    extraction: dict[str, Any] | None
    path: Path

    def load(self, vid: str) -> np.ndarray:
        """Features (T, D) in their own precision.

        Raises:
            FeatureFileError: they are damaged, or no longer those that were found.
        """

    def modified(self) -> float:
        """When they were found or written last, in seconds since the epoch."""


class FileFeatures:
    """Files of both extractors (:class:`FeatureSource`).

    Args:
        info_file: what ``collect_video_feature_paths.py`` wrote.
        interval: seconds per frame.

    Raises:
        UserError: it is missing or damaged, or the files were made for another interval.
    """

    def __init__(self, info_file: str | Path, interval: float) -> None:
        self.path = Path(info_file)
        self._paths = read_paths(self.path)
        self.frames = {vid: paths.frames for vid, paths in self._paths.items()}
        files = (file for paths in self._paths.values() for file in (paths.resnet, paths.slowfast))
        self.extraction = extraction_of(files, interval)

    def load(self, vid: str) -> np.ndarray:
        """See :class:`FeatureSource`."""
        return load_joined(self._paths[vid])

    def modified(self) -> float:
        """See :class:`FeatureSource`."""
        return self.path.stat().st_mtime


class StoredFeatures:
    """Another database (:class:`FeatureSource`), whatever its format and precision."""

    def __init__(self, db: FeatureDb) -> None:
        self._db = db
        self.path = db.path
        stored = set(db.keys())
        self.frames = {vid: count for vid, count in db.id2nframe.items() if vid in stored}
        self.extraction = database_extraction(db.path)

    def load(self, vid: str) -> np.ndarray:
        """See :class:`FeatureSource`."""
        try:
            return self._db.read_stored(vid, np.array)[: self.frames[vid]]
        except UserError as error:
            raise FeatureFileError(str(error)) from None

    def modified(self) -> float:
        """See :class:`FeatureSource`."""
        return max(file.stat().st_mtime for file in self.path.iterdir())
