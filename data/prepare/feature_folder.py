"""A folder of extracted features: which videos it has, of what, and what it lacks.

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
    save_features,
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
    """Takes features, one file a video and extractor, each whole or absent.

    Args:
        folder: made if it is not there.
        made_by: of each extractor that is to run.
        force: replace what other weights or another interval made.
        problems: what is wrong with videos; None: <folder>/failed.json tells.
        of_value: its files lie as VALUE's: ``clip-vit/<vid>.npz``.

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
            there = self._of(name)
            if name not in known and part_files(there):
                raise UserError(f"{there} holds features and nothing says what made them; {fix}")
            if name in known and (differences := provenance.differences(known[name])):
                raise UserError(f"{there} was made with {'; '.join(differences)}; {fix}")

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
        """Return where the features of a video lie."""
        folder = self._of(extractor)
        return (folder if self._of_value else folder / video.folder) / f"{video.vid}.npz"

    def settle(self, video: VideoFile) -> bool:
        """Return whether all features of a video are there, whole, of this very file and made like
        these.

        Those of a video that was moved are moved likewise. Earlier ones, which do not say which
        file they are of, count if they are newer than it, and say so from now on.

        Raises:
            OSError: the features cannot be written.
            VideoError: the video cannot be read.
        """
        settled = [self._settle(video, extractor) for extractor in self._made_by]
        kept = [made_of for made_of in settled if made_of is not None]
        if len(kept) < len(settled):
            return False
        for made_of in kept:
            if made_of.problem is not None:
                self.note(video, Problem(made_of.problem, made_of.seconds, used=True))
        return True

    def _settle(self, video: VideoFile, extractor: str) -> MadeOf | None:
        path = self.path(video, extractor)
        kind = self._of(extractor)
        elsewhere = [file for file in self._files.get(video.vid, ()) if kind in file.parents]
        for place in [path] if path.is_file() else elsewhere:
            made_by, made_of = read_making(place)
            if not self._is_like(place, extractor, made_by) or not _is_of(place, made_of, video):
                continue
            self._move(video.vid, place, path)
            if made_of is None or made_of.origin != video.origin:
                made_of = _with_source(made_of, video)
                _note_source(path, made_by, made_of)
            return made_of
        return None

    def _is_like(self, path: Path, extractor: str, made_by: dict[str, Any]) -> bool:
        """Return whether a feature file is whole and would be made like this now."""
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
            save_features(path, of_video.astype(np.float32), made_by, made_of)
            if path not in self._files[video.vid]:
                self._files[video.vid].append(path)

    def note(self, video: VideoFile, problem: Problem) -> None:
        """Note what is wrong with a video. One that cannot be used is tried again next time."""
        self.problems.note(video.path, problem)

    def fail(self, video: VideoFile, problem: Problem) -> None:
        """Note that a video cannot be used, and drop features of an earlier file of its name."""
        self.note(video, problem)
        for path in list(self._files.get(video.vid, ())):
            with suppress(VideoError):  # it cannot be read now: nobody knows
                if not _is_of(path, read_making(path)[1], video):
                    path.unlink()
                    self._files[video.vid].remove(path)

    # --- Videos that are gone ---------------------------------------------------------------------

    def gone(self, found: FoundVideos) -> dict[str, list[Path]]:
        """{video: feature files} that no file below ``found.top`` belongs to any more.

        Those that say that they are of a video of another folder are left alone. Where a folder
        could not be read nobody knows.
        """
        if found.unread:
            return {}
        folder_of = {video.vid: video.folder for video in found.videos}
        unusable = found.names() - folder_of.keys()
        gone: dict[str, list[Path]] = defaultdict(list)
        for vid in sorted(self._files.keys() - unusable):
            for path in self._files[vid]:
                is_right = self._of_value or path.parent.name == folder_of.get(vid)
                if not (vid in folder_of and is_right) and _is_from(path, found.origin):
                    gone[vid].append(path)
        return dict(gone)

    def prune(self, found: FoundVideos, most: bool) -> dict[str, list[Path]]:
        """Delete the features of videos that are gone; return which (see :meth:`gone`).

        Args:
            found: the videos there are.
            most: also if more than half of the videos are gone.

        Raises:
            UserError: more than half are, or a folder could not be read.
        """
        if found.unread:
            raise UserError(
                f"{shown(found.unread[0])} cannot be read, so nobody knows which videos are gone: "
                "fix its permissions, or leave out --prune"
            )
        gone = self.gone(found)
        there = len(self._files.keys() & found.names())
        lost = len(gone.keys() - found.names())
        if 2 * lost > lost + there and not most:
            raise UserError(
                f"{lost} of {lost + there} videos that {self.folder} has features of are gone from "
                f"{found.top}, such as {next(iter(gone))!r}: is it the right folder, and mounted? "
                "--prune_most drops their features all the same"
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
    """What the operating system refuses of a video is a VideoError."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"it cannot be read ({error.strerror or error})") from None


def _is_of(path: Path, made_of: MadeOf | None, video: VideoFile) -> bool:
    """Return whether a feature file is of this very video file; by its date where it does not
    say."""
    with reading_video():
        if made_of is None:
            return modified(path) >= modified(video.path)
        return made_of.fits(video.path)


def _with_source(made_of: MadeOf | None, video: VideoFile) -> MadeOf:
    if made_of is not None:
        return msgspec.structs.replace(made_of, origin=video.origin)
    with reading_video():
        return MadeOf(fingerprint(video.path), video.origin)


def _is_from(path: Path, origin: str) -> bool:
    """Return whether a feature file is of a video of this folder, or does not say of which."""
    _, made_of = read_making(path)
    return made_of is None or made_of.origin == origin


def _note_source(path: Path, made_by: dict[str, Any], made_of: MadeOf) -> None:
    """Let a feature file say which video it is of; its date stays, as its features do."""
    known = path.stat()
    save_features(path, load_features(path), made_by, made_of)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
