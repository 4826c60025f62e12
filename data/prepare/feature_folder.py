"""A folder of extracted features: which videos it has features of, and which it lacks.

See :mod:`data.prepare.extraction` for its files, and :mod:`data.prepare.problems` for failed.json.
"""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.prepare.extraction import (
    EXTRACTION_FILE,
    MadeOf,
    Provenance,
    read_extraction,
    read_making,
    save_arrays,
)
from data.prepare.feature_files import FeatureFileError, load_features
from data.prepare.feature_parts import extracted_folder, part_files
from data.prepare.find_videos import FoundVideos, VideoFile, shown
from data.prepare.problems import FAILED_FILE, Problem, Problems
from data.prepare.unfinished import UnfinishedFeatures
from data.prepare.video_files import VideoError
from utils.errors import UserError
from utils.files import check_output, modified, write_json
from utils.fingerprints import fingerprint


class FeatureFolder:
    """Keeps features, one file per video and extractor, each written atomically.

    Args:
        folder: created if it does not exist.
        made_by: of each extractor that will run.
        force: replace features of other weights or another interval.
        problems: what is wrong with videos; None: of <folder>/failed.json.
        of_value: files are named as VALUE's: ``clip-vit/<vid>.npz``.

    Raises:
        OSError: it cannot be written.
        UserError: it holds features of these extractors that were made otherwise, or of another
            interval.
    """

    def __init__(
        self,
        folder: str | Path,
        made_by: dict[str, Provenance],
        force: bool,
        problems: Problems | None = None,
        of_value: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.problems = problems or Problems(self.folder / FAILED_FILE)
        self._made_by = made_by
        self._of_value = of_value
        check_output(self.folder / EXTRACTION_FILE, self.problems.path)
        known = read_extraction(self.folder) or {}
        if not force:
            self._check_unchanged(known)
        self._check_interval(known)
        entries = {name: dataclasses.asdict(made_by[name]) for name in made_by}
        if any(known.get(name) != entry for name, entry in entries.items()):
            write_json(self.folder / EXTRACTION_FILE, {**known, **entries}, indent=2)
        self.unfinished = UnfinishedFeatures(self.folder, made_by)
        self._files: dict[str, list[Path]] = defaultdict(list)  # of all kinds, by video
        for name in {**known, **entries}:
            for path in part_files(self._of(name)):
                self._files[path.stem].append(path)

    def _of(self, extractor: str) -> Path:
        return extracted_folder(self.folder, extractor, self._of_value)

    def _check_unchanged(self, known: dict[str, dict[str, Any]]) -> None:
        fix = "choose another --output, or pass --force to extract them again"
        for name, provenance in self._made_by.items():
            folder = self._of(name)
            if name not in known and part_files(folder):
                raise UserError(f"{folder} holds features and nothing says what made them; {fix}")
            if name in known and (differences := provenance.differences(known[name])):
                raise UserError(f"{folder} was made with {'; '.join(differences)}; {fix}")

    def _check_interval(self, known: dict[str, dict[str, Any]]) -> None:
        interval = next(iter(self._made_by.values())).interval
        for name, entry in known.items():
            if name not in self._made_by and entry["interval"] != interval:
                raise UserError(
                    f"the {name} features in {self.folder} cover {entry['interval']:g} seconds "
                    f"each, not {interval:g}: all kinds must agree; extract all --models"
                )

    def check(self, videos: Iterable[VideoFile]) -> None:
        """Raise OSError, before the work, if features of these videos cannot be written."""
        one_of_folder = {video.folder: video for video in videos}
        for extractor in self._made_by:
            check_output(*(self.path(video, extractor) for video in one_of_folder.values()))

    def path(self, video: VideoFile, extractor: str) -> Path:
        """Return the path of a video's features."""
        folder = self._of(extractor)
        return (folder if self._of_value else folder / video.folder) / f"{video.vid}.npz"

    def settle(self, video: VideoFile) -> bool:
        """Return whether all features of a video exist, intact, of this very file and made alike.

        Those of a video that was moved are moved likewise. Earlier ones without a record of their
        file count if they are newer than it; the record is added.

        Raises:
            OSError: the features cannot be written.
            VideoError: the video cannot be read.
        """
        settled = list(filter(None, (self._settle(video, name) for name in self._made_by)))
        if len(settled) < len(self._made_by):
            return False
        for made_of in settled:
            if made_of.problem is not None:
                self.note(video, Problem(made_of.problem, made_of.seconds, used=True))
        return True

    def _settle(self, video: VideoFile, extractor: str) -> MadeOf | None:
        path = self.path(video, extractor)
        kind = self._of(extractor)
        elsewhere = [file for file in self._files.get(video.vid, ()) if kind in file.parents]
        for file in [path] if path.is_file() else elsewhere:
            made_by, made_of = read_making(file)
            if not self._is_like(file, extractor, made_by) or not _is_of(file, made_of, video):
                continue
            self._move(video.vid, file, path)
            if made_of is None or made_of.origin != video.origin:
                made_of = _with_source(made_of, video)
                _note_source(path, made_by, made_of)
            return made_of
        return None

    def _is_like(self, path: Path, extractor: str, made_by: dict[str, Any]) -> bool:
        """Return whether a feature file is intact and was made as new ones would be."""
        provenance = self._made_by[extractor]
        try:
            width = load_features(path).shape[1]
        except FeatureFileError:
            return False
        return width == provenance.width and not provenance.differences(made_by)

    def _move(self, vid: str, path: Path, to: Path) -> None:
        if path != to:
            to.parent.mkdir(parents=True, exist_ok=True)
            path.rename(to)
            self._files[vid][self._files[vid].index(path)] = to

    def write(self, video: VideoFile, features: dict[str, np.ndarray], made_of: MadeOf) -> None:
        """Keep the features (T, D) of each extractor."""
        for extractor, of_video in features.items():
            path = self.path(video, extractor)
            made_by = dataclasses.asdict(self._made_by[extractor])
            save_arrays(path, {"features": of_video.astype(np.float32)}, made_by, made_of)
            if path not in self._files[video.vid]:
                self._files[video.vid].append(path)

    def note(self, video: VideoFile, problem: Problem) -> None:
        """Note what is wrong with a video. One that failed is tried again next time."""
        self.problems.note(video.path, problem)

    def fail(self, video: VideoFile, problem: Problem) -> None:
        """Note that a video failed, and delete features of an earlier file of its name."""
        self.note(video, problem)
        for path in list(self._files.get(video.vid, ())):
            with suppress(VideoError):  # it cannot be read: unknown
                if not _is_of(path, read_making(path)[1], video):
                    path.unlink()
                    self._files[video.vid].remove(path)

    def gone(self, found: FoundVideos) -> dict[str, list[Path]]:
        """Return {video: feature files} whose video no longer exists below ``found.top``.

        Features recorded as of a video of another folder are left out, and so are all if a folder
        could not be read.
        """
        if found.unread:
            return {}
        folder_of = {video.vid: video.folder for video in found.videos}
        unusable = found.names() - folder_of.keys()
        gone: dict[str, list[Path]] = defaultdict(list)
        for vid in sorted(self._files.keys() - unusable):
            for path in self._files[vid]:
                is_right = self._of_value or path.parent.name == folder_of.get(vid)
                made_of = read_making(path)[1]
                is_from_here = made_of is None or made_of.origin == found.origin
                if not (vid in folder_of and is_right) and is_from_here:
                    gone[vid].append(path)
        return dict(gone)

    def prune(self, found: FoundVideos, most: bool) -> dict[str, list[Path]]:
        """Delete the features of videos that are gone; return which (see :meth:`gone`).

        Args:
            found: the videos that exist.
            most: also if more than half of the videos are gone.

        Raises:
            UserError: more than half are, or a folder could not be read.
        """
        if found.unread:
            raise UserError(
                f"{shown(found.unread[0])} cannot be read, so it is unknown which videos are gone: "
                "fix its permissions, or leave out --prune"
            )
        gone = self.gone(found)
        present = len(self._files.keys() & found.names())
        lost = len(gone.keys() - found.names())
        if lost > present and not most:
            raise UserError(
                f"{lost} of {lost + present} videos that {self.folder} has features of are gone "
                f"from {found.top}, such as {next(iter(gone))!r}: is it the right folder, and "
                "mounted? --prune_most deletes their features anyway"
            )
        self.unfinished.drop_others(found.names())
        for vid, paths in gone.items():
            for path in paths:
                path.unlink()
                self._files[vid].remove(path)
                with suppress(OSError):  # others are in it
                    path.parent.rmdir()
        return gone


@contextmanager
def reading_video() -> Iterator[None]:
    """Raise VideoError where the operating system refuses to read a video."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"it cannot be read ({error.strerror or error})") from None


def _is_of(path: Path, made_of: MadeOf | None, video: VideoFile) -> bool:
    """Return whether a feature file is of this very video file; without a record, by its date."""
    with reading_video():
        if made_of is None:
            return modified(path) >= modified(video.path)
        return made_of.fits(video.path)


def _with_source(made_of: MadeOf | None, video: VideoFile) -> MadeOf:
    if made_of is not None:
        return msgspec.structs.replace(made_of, origin=video.origin)
    with reading_video():
        return MadeOf(fingerprint(video.path), video.origin)


def _note_source(path: Path, made_by: dict[str, Any], made_of: MadeOf) -> None:
    """Record in a feature file which video it is of, and keep its date, as its features."""
    known = path.stat()
    save_arrays(path, {"features": load_features(path)}, made_by, made_of)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
