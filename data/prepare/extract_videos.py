"""Decode videos, let networks see them, and keep what they make: one bad file stops nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data.prepare.extraction import MadeOf
from data.prepare.feature_folder import FeatureFolder, reading_video
from data.prepare.find_videos import VideoFile
from data.prepare.problems import Problem
from data.prepare.video_files import VideoError
from data.prepare.video_frames import Sampling
from data.prepare.video_windows import DecoderDiedError, decode_videos
from utils.fingerprints import fingerprint

Extractor = Callable[[np.ndarray], dict[str, np.ndarray]]
"""{extractor: (B, D) float32} of windows (B, K, S, S, 3) uint8."""
_DIED = (
    "the process that decoded it was killed, by a fault of the decoder or as memory ran out: "
    "re-encode it, or run again with fewer --workers"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a video."""

    video: VideoFile  # which
    problem: Problem | None  # what is wrong with it; None if all is well

    @property
    def used(self) -> bool:
        """Whether its features are kept."""
        return self.problem is None or self.problem.used


def choose_videos(
    videos: Iterable[VideoFile], folder: FeatureFolder, force: bool
) -> list[VideoFile]:
    """Those whose features are not in the folder yet; those that cannot be read are noted there.

    Args:
        videos: all there are.
        folder: of the features.
        force: take also those that are there.

    Raises:
        OSError: the folder cannot be written.
    """
    wanted = []
    for video in videos:
        try:
            if force or not folder.settle(video):
                with reading_video(), video.path.open("rb"):
                    wanted.append(video)
        except VideoError as error:
            folder.note(video, Problem(str(error), error.seconds, used=False))
    return wanted


def extract_videos(
    videos: list[VideoFile],
    extractor: Extractor,
    sampling: Sampling,
    folder: FeatureFolder,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Outcome]:
    """Extract and keep the features of videos, and note what is wrong with them.

    Of a long video that an earlier process was killed in, only the rest is extracted.

    Args:
        videos: those of :func:`choose_videos`.
        extractor: of the features.
        sampling: the frames that it sees of a window.
        folder: where they go.
        batch_size: windows that it sees at once.
        workers: processes that decode; 1: this one alone.

    Yields:
        What became of each, as soon as it is known.

    Raises:
        OSError: the folder cannot be written.
        UserError: a decoding process was killed, and nobody knows by which video.
    """
    waiting = {video.path: video for video in videos}
    while waiting:
        some = list(waiting.values())
        try:
            for outcome in _extract_once(some, extractor, sampling, folder, batch_size, workers):
                del waiting[outcome.video.path]
                yield outcome
        except DecoderDiedError as death:
            for video in (some[place] for place in death.places):
                if waiting.pop(video.path, None) is not None:
                    folder.unfinished.drop(video)
                    problem = Problem(_DIED, 0.0, used=False)
                    folder.fail(video, problem)
                    yield Outcome(video, problem)


def _extract_once(
    videos: list[VideoFile],
    extractor: Extractor,
    sampling: Sampling,
    folder: FeatureFolder,
    batch_size: int,
    workers: int,
) -> Iterator[Outcome]:
    """See :func:`extract_videos`; DecoderDiedError where that tries the others again."""
    starts = [folder.unfinished.resume(video) for video in videos]
    for piece in decode_videos(videos, sampling, batch_size, workers, starts):
        video = videos[piece.place]
        if piece.frames is not None:
            folder.unfinished.add(video, extractor(piece.frames), piece.sound)
        else:
            yield _finish(folder, video, piece.problem)


def _finish(folder: FeatureFolder, video: VideoFile, problem: Problem | None) -> Outcome:
    """Keep a video's features if it can be used, and note what is wrong with it."""
    features, same = folder.unfinished.finish(video)
    if problem is None or problem.used:
        try:
            _keep(folder, video, features, same, problem)
        except VideoError as error:
            problem = Problem(str(error), error.seconds, used=False)
    folder.unfinished.drop(video)
    if problem is not None:
        (folder.note if problem.used else folder.fail)(video, problem)
    return Outcome(video, problem)


def _keep(
    folder: FeatureFolder,
    video: VideoFile,
    features: dict[str, np.ndarray],
    same: bool,
    problem: Problem | None,
) -> None:
    """Write the features of a video.

    Args:
        same: the video has not changed while it was read.

    Raises:
        OSError: the folder cannot be written.
        VideoError: they cannot be used, or nobody knows of which file they are.
    """
    with reading_video():
        file = fingerprint(video.path)
    if not same:
        raise VideoError("it was changed while it was read; run again when it is complete")
    if not features:
        raise VideoError("it has no frames")
    if not all(np.isfinite(values).all() for values in features.values()):
        raise VideoError("its features are not finite; try without --half")
    wrong = (None, 0.0) if problem is None else (problem.reason, problem.seconds)
    folder.write(video, features, MadeOf(file, video.origin, *wrong))
