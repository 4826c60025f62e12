"""The sources of a feature database: the extractors' files, or another database."""

from pathlib import Path

import numpy as np

from data.prepare.extraction import extraction_of, read_feature_meta
from data.prepare.feature_files import FeatureFileError, load_parts, read_paths, require_usable
from data.prepare.feature_parts import PUBLISHED, extractor_of
from data.stores.frame_counts import COUNTS_FILE, counts_path, version_and_interval
from data.stores.lmdb_io import FeatureDb
from utils.errors import UserError
from utils.files import modified


class FileFeatures:
    """Files of the extractors.

    Args:
        info_file: what ``collect_video_feature_paths.py`` wrote.
        interval: seconds per frame.

    Raises:
        UserError: it is missing or damaged, or the files were made for another interval.
    """

    def __init__(self, info_file: str | Path, interval: float) -> None:
        self.path = Path(info_file)
        self._paths = read_paths(self.path)
        self.frames = {vid: paths.frames for vid, paths in self._paths.items()}  # T of every video
        files = (file for paths in self._paths.values() for file in paths.files)
        parts = {extractor_of(part) for paths in self._paths.values() for part in paths.parts}
        made_by = extraction_of(files, interval) or {}
        # Their provenance; None where it is not recorded.
        self.extraction = {part: made_by[part] for part in made_by if part in parts} or None
        first = next(iter(self._paths.values()), None)
        self.version = "_".join(first.parts if first else PUBLISHED)  # name of a database of them
        # Numbers of frames are kept by interval, as VALUE's are.
        self.own_counts = first is not None and first.is_value

    def load(self, vid: str) -> np.ndarray:
        """Return features (T, D) in their own precision.

        Raises:
            FeatureFileError: they are damaged, or no longer those that were listed.
        """
        return np.concatenate(load_parts(self._paths[vid]), axis=1)

    def widths(self, vid: str) -> dict[str, int] | None:
        """Return {part: width} in the order in which parts are joined; None: not recorded.

        Raises:
            FeatureFileError: as for :meth:`load`.
        """
        paths = self._paths[vid]
        loaded = zip(paths.parts, load_parts(paths), strict=True)
        return {part: features.shape[1] for part, features in loaded}

    def modified(self) -> int:
        """Return when they were listed or written last, in nanoseconds since the epoch."""
        return modified(self.path)


class StoredFeatures:
    """Another database, of any format and precision, with the interface of FileFeatures."""

    def __init__(self, db: FeatureDb) -> None:
        self._db = db
        self.path = db.path
        stored = set(db.keys())
        self.frames = {vid: count for vid, count in db.id2nframe.items() if vid in stored}
        self._meta = read_feature_meta(db.path)
        self.extraction = self._meta.extraction
        self.version, _ = version_and_interval(db.path)
        counts = counts_path(db.path.parent, db.interval)
        self.own_counts = counts != db.path.parent / COUNTS_FILE

    def load(self, vid: str) -> np.ndarray:
        """See :meth:`FileFeatures.load`."""
        try:
            features = self._db.read_stored(vid, np.array)[: self.frames[vid]]
        except UserError as error:
            raise FeatureFileError(str(error)) from None
        require_usable(features)
        return features

    def widths(self, vid: str) -> dict[str, int] | None:
        """See :meth:`FileFeatures.widths`."""
        return self._meta.parts

    def modified(self) -> int:
        """See :meth:`FileFeatures.modified`."""
        return max(map(modified, self.path.iterdir()))


FeatureSource = FileFeatures | StoredFeatures
