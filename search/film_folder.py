"""Films of a folder, with the subtitles beside them, as an index reads them."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np

from data.prepare.extract_videos import choose_videos, extract_videos
from data.prepare.extraction import Provenance, read_making
from data.prepare.feature_files import FeatureFileError, load_features
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import FoundVideos, VideoFile
from data.prepare.problems import Problem, Problems
from data.prepare.subtitle_encoding import require_encodings
from data.prepare.subtitle_files import read_subtitles
from data.prepare.subtitle_matching import match_subtitles
from data.prepare.video_frames import Sampling
from model.extractors.extractor import FeatureExtractor
from search.indexing import Failure, Material
from search.store import Film, Line
from utils.decoding import decode_json
from utils.errors import RecordError, UserError
from utils.fingerprints import Fingerprint, fingerprint

FEATURES_FOLDER = "features"  # in the index's


class _Known(msgspec.Struct, frozen=True):
    """What a film of the index was made from; ``encodings`` those of its subtitles asked for."""

    film: Fingerprint
    subtitles: Fingerprint | None = None
    encodings: tuple[str, ...] = ()


class FilmFolder:
    """The films of a folder (:class:`search.indexing.FilmSource`); features are kept on the disk.

    Args:
        found: the films.
        index: the index's folder, which takes the features too; it must be locked.
        extractor: of the features.
        made_by: {extractor: what will have made its features}, in the order in which they join.
        problems: where what is wrong is noted.
        language: of the subtitles; None: a subtitle file is called as its film.
        encodings: of subtitles that are not UTF-8.
        batch_size: windows that the extractor sees at once.
        workers: processes that decode.

    Raises:
        UserError: ``language`` is none, or features are there that were made otherwise.
    """

    def __init__(
        self,
        found: FoundVideos,
        index: Path,
        extractor: FeatureExtractor,
        made_by: dict[str, Provenance],
        problems: Problems,
        *,
        language: str | None = None,
        encodings: Sequence[str] = (),
        batch_size: int = 8,
        workers: int = 1,
    ) -> None:
        require_encodings(encodings)
        self.place = str(found.top)
        self.problems = problems
        self.extractors: Mapping[str, Mapping[str, Any]] = {n: asdict(made_by[n]) for n in made_by}
        self._found = found
        self._extractor, self._names = extractor, list(made_by)
        interval = next(iter(made_by.values())).interval
        self._sampling = Sampling(interval, extractor.times, whole=extractor.whole)
        self._encodings = tuple(encodings)
        self._sizes = {"batch_size": batch_size, "workers": workers}
        self._videos = {self._name(video.path): video for video in found.videos}
        self.files = {name: video.path.absolute() for name, video in self._videos.items()}
        self._name_of = {video.path: name for name, video in self._videos.items()}
        problems.note_unusable(found.unusable)
        self.matches = match_subtitles(found.top, [video.vid for video in found.videos], language)
        for path, reason in self.matches.failed.items():
            self._note_subtitles(path, reason)
        self._folder = FeatureFolder(index / FEATURES_FOLDER, made_by, False, problems)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._found.top))

    def _note_subtitles(self, path: Path, reason: str) -> None:
        if not self.problems.has_failed(path):
            self.problems.note(path, Problem(reason))

    def may_be_there(self, name: str) -> bool:
        """See :class:`search.indexing.FilmSource`: in a folder that cannot be read, or one of
        several of its name."""
        path = self._found.top / name
        unread = any(path.is_relative_to(folder) for folder in self._found.unread)
        return unread or path in self._found.unusable

    def is_same(self, film: Film) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        video = self._videos[film.name]
        try:
            known = decode_json(film.source, _Known)
        except RecordError:
            return False
        subtitles = self.matches.files.get(video.vid)
        if known.encodings != self._encodings:
            return False
        try:
            if subtitles is None or known.subtitles is None:
                same_words = subtitles is known.subtitles
            else:
                same_words = known.subtitles.fits(subtitles)
            if same_words and known.film.fits(video.path):
                if film.note is not None:
                    self.problems.note(video.path, Problem(film.note, film.seconds, used=True))
                return True
        except OSError as error:  # nobody knows: what there is stays
            self.fail(film.name, f"it cannot be read ({error.strerror})")
            return True
        return False

    def read(self, names: Sequence[str]) -> Iterator[Material | Failure]:
        """See :class:`search.indexing.FilmSource`: films whose features are there come first."""
        videos = [self._videos[name] for name in names]
        wanted = choose_videos(videos, self._folder, force=False)
        self._folder.check(wanted)
        to_come = {video.path for video in wanted}
        for video in videos:
            if video.path not in to_come:
                yield self._material(video)
        outcomes = extract_videos(
            wanted, self._extractor, self._sampling, self._folder, **self._sizes
        )
        for outcome in outcomes:
            yield self._material(outcome.video)

    def _material(self, video: VideoFile) -> Material | Failure:
        """A film whose features are kept, or that has failed."""
        name = self._name_of[video.path]
        if self.problems.has_failed(video.path):
            return Failure(name)
        paths = [self._folder.path(video, extractor) for extractor in self._names]
        try:
            features = np.concatenate([load_features(path) for path in paths], axis=1)
            made_of = read_making(paths[0])[1]
            if made_of is None:
                raise FeatureFileError(f"{paths[0]} does not tell what film they are of")
        except FeatureFileError as error:
            self.fail(name, f"its features are damaged ({error}): run again")
            return Failure(name)
        subtitles, lines = self._spoken(video)
        source = _Known(made_of.file, subtitles, self._encodings)
        return Material(
            name=name,
            features=features.astype(np.float32, copy=False),
            lines=lines,
            seconds=film_seconds(video.path, len(features), self._sampling.interval),
            file=self.files[name],
            note=made_of.problem,
            source=msgspec.json.encode(source).decode(),
        )

    def _spoken(self, video: VideoFile) -> tuple[Fingerprint | None, list[Line]]:
        """The film's subtitle file and its lines; none where it cannot be used."""
        path = self.matches.files.get(video.vid)
        if path is None:
            return None, []
        try:
            known = fingerprint(path)
            subtitles = read_subtitles(path, *self._encodings)
        except (OSError, UserError) as error:
            self._note_subtitles(path, str(error).removeprefix(f"{path}: "))
            return None, []
        if subtitles.notes:
            self.problems.note(path, Problem("; ".join(subtitles.notes), 0.0, used=True))
        lines = [
            Line(cue.start, cue.end, html.unescape(cue.text).strip()) for cue in subtitles.cues
        ]
        return known, lines

    def fail(self, name: str, reason: str) -> None:
        """See :class:`search.indexing.FilmSource`."""
        self.problems.note(self._videos[name].path, Problem(reason))

    def drop_gone(self) -> None:
        """See :class:`search.indexing.FilmSource`."""
        if not self._found.unread:
            self._folder.prune(self._found, most=True)


def film_seconds(path: Path, frames: int, interval: float) -> float:
    """Return how long a film is: what its header says, as far as its frames bear that out.

    Args:
        path: its file.
        frames: of ``interval`` seconds that it has; the last one may be shorter.
    """
    longest = frames * interval
    try:
        with av.open(f"file:{os.fspath(path)}", metadata_errors="replace") as container:
            told = (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        told = 0.0
    return min(told, longest) if told > longest - interval else longest
