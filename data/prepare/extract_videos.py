"""Extract and keep the features of videos; a bad file does not stop the others."""

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
    """The result of extracting a video's features."""

    video: VideoFile
    problem: Problem | None  # what is wrong with it; None: nothing

    @property
    def used(self) -> bool:
        """Whether its features were kept."""
        return self.problem is None or self.problem.used


def choose_videos(
    videos: Iterable[VideoFile], folder: FeatureFolder, force: bool
) -> list[VideoFile]:
    """Return the videos to extract; note in the folder those that cannot be read.

    Args:
        videos: all videos.
        folder: of the features.
        force: take also videos that have features in the folder.

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
            folder.note(video, Problem(str(error), error.seconds))
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

    Of a long video during which an earlier process was killed, only the rest is extracted.

    Args:
        videos: those of :func:`choose_videos`.
        extractor: of the features.
        sampling: the frames of a window that it gets.
        folder: of the features.
        batch_size: windows per call of the extractor.
        workers: processes that decode; 1: this one alone.

    Yields:
        The result of each video, as soon as it is known.

    Raises:
        OSError: the folder cannot be written.
        UserError: a decoding process was killed, by an unknown video.
    """
    waiting = {video.path: video for video in videos}
    while waiting:
        batch = list(waiting.values())
        starts = [folder.unfinished.resume(video) for video in batch]
        try:
            for piece in decode_videos(batch, sampling, batch_size, workers, starts):
                video = batch[piece.video]
                if piece.frames is not None:
                    folder.unfinished.add(video, extractor(piece.frames), piece.intact)
                    continue
                outcome = _finish(folder, video, piece.problem)
                del waiting[video.path]
                yield outcome
        except DecoderDiedError as death:  # the other videos are tried again
            for video in (batch[index] for index in death.videos):
                if waiting.pop(video.path, None) is not None:
                    folder.unfinished.drop(video)
                    problem = Problem(_DIED)
                    folder.fail(video, problem)
                    yield Outcome(video, problem)


def _finish(folder: FeatureFolder, video: VideoFile, problem: Problem | None) -> Outcome:
    """Keep a video's features if it can be used, and note what is wrong with it."""
    features, is_unchanged = folder.unfinished.finish(video)
    if problem is None or problem.used:
        try:
            with reading_video():
                file = fingerprint(video.path)
            _require_usable(features, is_unchanged)
            wrong = (None, 0.0) if problem is None else (problem.reason, problem.amount)
            folder.write(video, features, MadeOf(file, video.origin, *wrong))
        except VideoError as error:
            problem = Problem(str(error), error.seconds)
    folder.unfinished.drop(video)
    if problem is not None:
        (folder.note if problem.used else folder.fail)(video, problem)
    return Outcome(video, problem)


def _require_usable(features: dict[str, np.ndarray], is_unchanged: bool) -> None:
    if not is_unchanged:
        raise VideoError("it was changed while it was read; run again when it is complete")
    if not features:
        raise VideoError("it has no frames")
    if not all(np.isfinite(values).all() for values in features.values()):
        raise VideoError("its features are not finite; try without --half")
