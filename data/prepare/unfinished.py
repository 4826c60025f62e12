"""Features of unfinished videos, saved so that a kill during a long one loses only seconds.

<folder>/unfinished/<vid>/<first>.npz  the features of some windows from number <first> on, by
                                       extractor, with "made_by" and "made_of" as in feature files
"""

import dataclasses
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare.extraction import MadeOf, Provenance, read_making, save_arrays
from data.prepare.find_videos import VideoFile
from utils.fingerprints import file_state, fingerprint

FOLDER = "unfinished"
EVERY_SECONDS = 20.0  # between two saves of a video

Part = dict[str, np.ndarray]
"""{extractor: (B, D) float32} of consecutive windows."""
_DAMAGED = "it is damaged"  # the reason is known when it is read to its end


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video was read before."""

    windows: int = 0
    intact: bool = True  # all of it could be decoded up to there


class UnfinishedFeatures:
    """Collects the parts of videos, and saves them at intervals.

    Args:
        folder: of the features.
        made_by: of each extractor.
    """

    def __init__(self, folder: Path, made_by: dict[str, Provenance]) -> None:
        self._folder = folder / FOLDER
        self._made_by = made_by
        self._parts: dict[str, list[Part]] = defaultdict(list)
        self._saved: dict[str, int] = defaultdict(int)  # parts that are on the disk
        self._since: dict[str, float] = {}
        self._states: dict[str, tuple[int, ...]] = {}
        self._damaged: set[str] = set()

    def resume(self, video: VideoFile) -> Progress:
        """Load what an earlier process saved of this very video."""
        self._states[video.vid] = file_state(video.path)
        self._since.pop(video.vid, None)
        self._damaged.discard(video.vid)
        self._parts[video.vid] = list(self._read(video))
        self._saved[video.vid] = len(self._parts[video.vid])
        if not self._parts[video.vid]:
            self.drop(video)
        return Progress(self._windows(video.vid), video.vid not in self._damaged)

    def _read(self, video: VideoFile) -> Iterator[Part]:
        """Yield parts in order, up to the first that is missing or cannot be used."""
        at = 0
        while (part := self._load(self._path(video.vid, at), video)) is not None:
            at += len(next(iter(part.values())))
            yield part

    def _load(self, path: Path, video: VideoFile) -> Part | None:
        made_by, made_of = read_making(path)
        try:
            if made_by != self._making() or made_of is None or not made_of.fits(video.path):
                return None
            with np.load(path, allow_pickle=False) as entries:
                part = {name: entries[name] for name in self._made_by}
        except Exception:  # zipfile and NumPy raise anything for a damaged file
            return None
        if made_of.problem is not None:
            self._damaged.add(video.vid)
        return part

    def _path(self, vid: str, at: int) -> Path:
        return self._folder / vid / f"{at}.npz"

    def _making(self) -> dict[str, Any]:
        return {name: dataclasses.asdict(made_by) for name, made_by in self._made_by.items()}

    def _windows(self, vid: str, parts: int | None = None) -> int:
        """Return the number of windows of the first ``parts`` parts."""
        return sum(len(next(iter(part.values()))) for part in self._parts[vid][:parts])

    def add(self, video: VideoFile, part: Part, intact: bool = True) -> None:
        """Add the next part of a video.

        Args:
            intact: all of the video could be decoded so far.

        Raises:
            OSError: it cannot be saved.
        """
        now = time.monotonic()
        if not intact:
            self._damaged.add(video.vid)
        self._parts[video.vid].append(part)
        if now - self._since.setdefault(video.vid, now) >= EVERY_SECONDS:
            self._save(video)
            self._since[video.vid] = now

    def _save(self, video: VideoFile) -> None:
        """Write what is not on the disk yet, unless the video has changed meanwhile."""
        vid = video.vid
        try:
            file = fingerprint(video.path)
        except OSError:  # shows when the video is finished
            return
        if file_state(video.path) != self._states[vid]:
            return
        made_of = MadeOf(file, video.origin, _DAMAGED if vid in self._damaged else None)
        path = self._path(vid, self._windows(vid, self._saved[vid]))
        new = self._joined(self._parts[vid][self._saved[vid] :])
        save_arrays(path, new, self._making(), made_of)
        self._saved[vid] = len(self._parts[vid])

    @staticmethod
    def _joined(parts: list[Part]) -> Part:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def finish(self, video: VideoFile) -> tuple[Part, bool]:
        """Return all parts of a video as one, {} if none, and whether the file is unchanged.

        They are no longer held in memory; files remain until :meth:`drop`.
        """
        self._since.pop(video.vid, None)
        self._saved.pop(video.vid, None)
        self._damaged.discard(video.vid)
        parts = self._parts.pop(video.vid, [])
        is_unchanged = self._states.pop(video.vid) == file_state(video.path)
        return (self._joined(parts) if parts else {}), is_unchanged

    def drop(self, video: VideoFile) -> None:
        """Delete what is saved of a video: it is finished, or cannot be used."""
        _remove(self._folder / video.vid)

    def drop_others(self, vids: Collection[str]) -> None:
        """Delete what is saved of videos that are not among these."""
        for folder in self._folder.glob("*"):
            if folder.name not in vids:
                _remove(folder)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
