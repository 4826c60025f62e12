"""Films of a folder, with the subtitles next to them, as an index reads them."""

from __future__ import annotations

import html
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import msgspec
import numpy as np
import torch

from data.prepare.extract_videos import choose_videos, extract_videos
from data.prepare.extraction import Provenance, read_making
from data.prepare.feature_files import FeatureFileError, load_features
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import FoundVideos, VideoFile
from data.prepare.problems import Problem, Problems
from data.prepare.subtitle_encoding import require_encodings
from data.prepare.subtitle_files import Subtitles, read_subtitles
from data.prepare.subtitle_matching import match_subtitles
from data.prepare.video_frames import Sampling
from engine.extractors import build_extractors, check_extractors
from model.extractors.extractor import FeatureExtractor
from search.indexing import FilmSource, Material, require_width
from search.records import Film, Line, NewFilm
from search.scorer import OwnFeatures, Scorer
from utils.decoding import decode_json
from utils.errors import RecordError, UserError
from utils.fingerprints import Fingerprint, fingerprint

FEATURES_FOLDER = "features"  # in the index's


class _Source(msgspec.Struct, frozen=True):
    """What a film of the index was made from; ``encodings`` are those allowed for subtitles."""

    film: Fingerprint
    subtitles: Fingerprint | None = None
    encodings: tuple[str, ...] = ()


class FilmFolder(FilmSource):
    """The films of a folder; their features are kept on the disk.

    Args:
        found: the films.
        index: folder of the index, where features are kept too; it must be locked.
        made_by: {extractor: provenance of its features}, in the order of concatenation.
        problems: takes the problems of files.
        language: of the subtitles; None: subtitle files have the names of their films.
        encodings: of subtitles that are not UTF-8.
        batch_size: windows per forward pass of the extractor.
        workers: processes that decode.

    Raises:
        UserError: ``language`` is unknown, or the folder has features of other extractors.
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
        self.path = str(found.top)
        self.problems = problems
        self._found = found
        self._extractor, self._names = extractor, list(made_by)
        interval = next(iter(made_by.values())).interval
        self._sampling = Sampling(interval, extractor.times, whole=extractor.whole)
        self._encodings = tuple(encodings)
        self._sizes = {"batch_size": batch_size, "workers": workers}
        self._names_of = {
            video.path: str(video.path.relative_to(found.top)) for video in found.videos
        }
        self._videos = {self._names_of[video.path]: video for video in found.videos}
        self.files = {name: video.path.absolute() for name, video in self._videos.items()}
        problems.note_unusable(found.unusable)
        self.matches = match_subtitles(found.top, [video.vid for video in found.videos], language)
        for path, reason in self.matches.failed.items():
            self._note_subtitles(path, reason)
        self._folder = FeatureFolder(index / FEATURES_FOLDER, made_by, False, problems)

    def _note_subtitles(self, path: Path, reason: str) -> None:
        if not self.problems.has_failed(path):
            self.problems.note(path, Problem(reason))

    def may_exist(self, name: str) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        path = self._found.top / name
        unread = any(path.is_relative_to(folder) for folder in self._found.unread)
        return unread or path in self._found.unusable  # such as several of the same name

    def is_unchanged(self, film: Film) -> bool:
        """See :class:`search.indexing.FilmSource`."""
        video = self._videos[film.name]
        subtitles = self.matches.files.get(video.vid)
        try:
            source = decode_json(film.source, _Source)
            if subtitles is None or source.subtitles is None:
                same = subtitles is source.subtitles
            else:
                same = source.subtitles.fits(subtitles)
            same = same and source.encodings == self._encodings and source.film.fits(video.path)
        except RecordError:
            return False
        except OSError as error:  # it may have changed or not: it stays
            self.fail(film.name, f"it cannot be read ({error.strerror})")
            return True
        if same and film.note is not None:
            self.problems.note(video.path, Problem(film.note, film.seconds, used=True))
        return same

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Material | None]]:
        """See :class:`search.indexing.FilmSource`: films whose features are kept come first."""
        videos = [self._videos[name] for name in names]
        wanted = choose_videos(videos, self._folder, force=False)
        self._folder.check(wanted)
        to_extract = {video.path for video in wanted}
        for video in videos:
            if video.path not in to_extract:
                yield self._names_of[video.path], self._material(video)
        to = self._folder
        for outcome in extract_videos(wanted, self._extractor, self._sampling, to, **self._sizes):
            yield self._names_of[outcome.video.path], self._material(outcome.video)

    def _material(self, video: VideoFile) -> Material | None:
        """Return a film whose features are kept; None if it failed."""
        if self.problems.has_failed(video.path):
            return None
        name = self._names_of[video.path]
        paths = [self._folder.path(video, extractor) for extractor in self._names]
        try:
            features = np.concatenate([load_features(path) for path in paths], axis=1)
            made_of = read_making(paths[0])[1]
            if made_of is None:
                raise FeatureFileError(f"{paths[0]} does not tell what film they are of")
        except FeatureFileError as error:
            self.fail(name, f"its features are damaged ({error}): run again")
            return None
        subtitles, lines = self._read_lines(video)
        film = NewFilm(
            name=name,
            seconds=film_seconds(video.path, len(features), self._sampling.interval),
            lines=lines,
            file=self.files[name],
            note=made_of.problem,
            source=msgspec.json.encode(_Source(made_of.file, subtitles, self._encodings)).decode(),
        )
        return Material(film, features.astype(np.float32, copy=False))

    def _read_lines(self, video: VideoFile) -> tuple[Fingerprint | None, list[Line]]:
        """Return the film's subtitle file and its lines; none where it cannot be used."""
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
        return known, subtitle_lines(subtitles)

    def fail(self, name: str, reason: str) -> None:
        """Note why a film cannot be used."""
        self.problems.note(self._videos[name].path, Problem(reason))

    def prune(self) -> None:
        """See :class:`search.indexing.FilmSource`."""
        if not self._found.unread:
            self._folder.prune(self._found, most=True)


def build_networks(
    options: Namespace, scorer: Scorer, device: torch.device
) -> tuple[FeatureExtractor, dict[str, Provenance]]:
    """Return what extracts the features that a model reads, and {extractor: provenance}.

    Args:
        options: of :func:`engine.extractors.add_extractors`.

    Raises:
        UserError: they cannot be built, or the model reads features of another width.
    """
    if isinstance(scorer, OwnFeatures):
        return scorer.extraction(options.half)
    check_extractors(options)
    extractor, made_by = build_extractors(options, scorer.maker.interval, device)
    widths = {name: made.width for name, made in made_by.items()}
    require_width(scorer, sum(widths.values()), widths)
    return extractor, made_by


def subtitle_lines(subtitles: Subtitles) -> list[Line]:
    """Return the cues of a subtitle file as spoken lines."""
    return [Line(cue.start, cue.end, html.unescape(cue.text).strip()) for cue in subtitles.cues]


def film_seconds(path: Path, frames: int, interval: float) -> float:
    """Return the length of a film: that in its header, if it ends in the last of its ``frames``."""
    longest = frames * interval
    try:
        with av.open(f"file:{os.fspath(path)}", metadata_errors="replace") as container:
            seconds = (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError, ValueError):
        seconds = 0.0
    return min(seconds, longest) if seconds > longest - interval else longest
