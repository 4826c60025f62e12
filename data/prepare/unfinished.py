"""Features of videos that are not finished, so that a kill in a long one loses a moment's work.

<folder>/unfinished/<vid>/<first>.npz  the features of some windows from number <first> on, by
                                       extractor, with "made_by" and "made_of" as in feature files
"""

import dataclasses
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.prepare.extraction import MadeOf, Provenance, read_making
from data.prepare.find_videos import VideoFile
from utils.files import atomic_write
from utils.fingerprints import file_state, fingerprint

FOLDER = "unfinished"
EVERY_SECONDS = 20.0  # what a video has so far is kept

Part = dict[str, np.ndarray]
"""{extractor: (B, D) float32} of windows that follow each other."""
_DAMAGED = "it is damaged"  # what is wrong shows when it is read to its end


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video was read before."""

    windows: int = 0  # that are there
    sound: bool = True  # all of it could be decoded up to there


class UnfinishedFeatures:
    """Collects the parts of videos, and keeps them on the disk from time to time.

    Args:
        folder: of the features.
        made_by: of each extractor.
    """

    def __init__(self, folder: Path, made_by: dict[str, Provenance]) -> None:
        self._folder = folder / FOLDER
        self._made_by = made_by
        self._parts: dict[str, list[Part]] = defaultdict(list)
        self._kept: dict[str, int] = defaultdict(int)  # parts that are on the disk
        self._since: dict[str, float] = {}
        self._states: dict[str, tuple[int, ...]] = {}
        self._damaged: set[str] = set()

    def resume(self, video: VideoFile) -> Progress:
        """Take up what an earlier process kept of this very video."""
        self._states[video.vid] = file_state(video.path)
        self._since.pop(video.vid, None)
        self._damaged.discard(video.vid)
        self._parts[video.vid] = list(self._read(video))
        self._kept[video.vid] = len(self._parts[video.vid])
        if not self._parts[video.vid]:
            self._remove(video.vid)
        return Progress(self._windows(video.vid), video.vid not in self._damaged)

    def _read(self, video: VideoFile) -> Iterator[Part]:
        """Parts in order, up to the first that is not there or cannot be used; notes damage."""
        at = 0
        while (path := self._path(video.vid, at)).is_file():
            part = self._load(path, video)
            if part is None:
                return
            at += len(next(iter(part.values())))
            yield part

    def _load(self, path: Path, video: VideoFile) -> Part | None:
        made_by, made_of = read_making(path)
        try:
            if made_by != self._making() or made_of is None or not made_of.fits(video.path):
                return None
            with np.load(path, allow_pickle=False) as entries:
                part = {name: entries[name] for name in self._made_by}
        except Exception:  # whatever zipfile and NumPy trip over, it is made again
            return None
        if made_of.problem is not None:
            self._damaged.add(video.vid)
        return part

    def _path(self, vid: str, at: int) -> Path:
        return self._folder / vid / f"{at}.npz"

    def _making(self) -> dict[str, Any]:
        return {name: dataclasses.asdict(made_by) for name, made_by in self._made_by.items()}

    def _windows(self, vid: str, parts: int | None = None) -> int:
        """Return how many windows the first so many parts have."""
        return sum(len(next(iter(part.values()))) for part in self._parts[vid][:parts])

    def add(self, video: VideoFile, part: Part, sound: bool = True) -> None:
        """Take the next part of a video.

        Args:
            sound: all of the video could be decoded so far.

        Raises:
            OSError: it cannot be kept.
        """
        now = time.monotonic()
        if not sound:
            self._damaged.add(video.vid)
        self._parts[video.vid].append(part)
        if now - self._since.setdefault(video.vid, now) >= EVERY_SECONDS:
            self._keep(video)
            self._since[video.vid] = now

    def _keep(self, video: VideoFile) -> None:
        """Write what is not on the disk yet, unless the video has changed meanwhile."""
        vid = video.vid
        try:
            of_video = fingerprint(video.path)
        except OSError:  # the end will tell
            return
        if file_state(video.path) != self._states[vid]:
            return
        new = self._joined(self._parts[vid][self._kept[vid] :])
        made_by = json.dumps(self._making())
        problem = _DAMAGED if vid in self._damaged else None
        made_of = msgspec.json.encode(MadeOf(of_video, video.origin, problem)).decode()
        arrays: dict[str, Any] = {**new, "made_by": made_by, "made_of": made_of}
        path = self._path(vid, self._windows(vid, self._kept[vid]))
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        self._kept[vid] = len(self._parts[vid])

    @staticmethod
    def _joined(parts: list[Part]) -> Part:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def finish(self, video: VideoFile) -> tuple[Part, bool]:
        """Return all of a video, {} if there is nothing, and whether the video is still as it was.

        It is no longer held here; what is on the disk stays until :meth:`drop`.
        """
        self._since.pop(video.vid, None)
        self._kept.pop(video.vid, None)
        self._damaged.discard(video.vid)
        parts = self._parts.pop(video.vid, [])
        same = self._states.pop(video.vid) == file_state(video.path)
        return (self._joined(parts) if parts else {}), same

    def drop(self, video: VideoFile) -> None:
        """Delete what is kept of a video: it is finished, or cannot be used."""
        self._remove(video.vid)

    def drop_others(self, vids: Collection[str]) -> None:
        """Delete what is kept of videos that are not among these."""
        for folder in self._folder.glob("*"):
            if folder.name not in vids:
                self._remove(folder.name)

    def _remove(self, vid: str) -> None:
        folder = self._folder / vid
        if folder.is_dir():
            shutil.rmtree(folder)
