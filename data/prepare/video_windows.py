"""The frames of many videos, decoded by several processes while a model computes."""

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from data.prepare.find_videos import VideoFile
from data.prepare.unfinished import Progress
from data.prepare.video_frames import Problem, Sampling, VideoError, read_windows
from utils.errors import UserError, shorten
from utils.processes import dead_workers, follow_parent, noted_reading

PIECES_AHEAD = 2  # that a process decodes before they are asked for
PIECE_BYTES = 64 << 20  # of large pictures fewer windows are held at a time


@dataclass(frozen=True, slots=True)
class Piece:
    """Some windows of a video, in order."""

    place: int  # of the video in the list
    frames: np.ndarray | None  # (B, K, height, width, 3) uint8; None in the last piece
    sound: bool = True  # all of the video could be decoded so far
    # what is wrong with the video; only in the last piece, None if all is well
    problem: Problem | None = None


class _Decoder(IterableDataset):
    """Each process takes the next video that nobody has taken."""

    def __init__(
        self,
        videos: list[VideoFile],
        sampling: Sampling,
        batch_size: int,
        threads: int,
        starts: Sequence[Progress],
    ) -> None:
        self._videos = videos
        self._starts = starts
        self._sampling = sampling
        self._batch_size = batch_size
        self._threads = threads
        self._taken = multiprocessing.Value("l", 0)

    def __iter__(self) -> Iterator[Piece]:
        while (place := self._take()) < len(self._videos):
            yield from self._pieces(place)

    def _take(self) -> int:
        with self._taken.get_lock():
            place = self._taken.value
            self._taken.value += 1
        return place

    def _pieces(self, place: int) -> Iterator[Piece]:
        start = self._starts[place]
        sampling = replace(self._sampling, first=start.windows, enter=start.sound)
        path, damage = self._videos[place].path, set()
        windows = read_windows(path, sampling, self._threads, lambda: damage.add(place))
        at_end, problem = False, None
        with noted_reading(str(place)):  # should its decoder kill this process
            while not at_end:
                batch, at_end, problem = _next_windows(windows, self._batch_size)
                if batch:
                    yield Piece(place, np.stack(batch), not damage)
        yield Piece(place, None, problem=problem)


def _next_windows(
    windows: Generator[np.ndarray, None, Problem | None], size: int
) -> tuple[list[np.ndarray], bool, Problem | None]:
    """At most ``size`` windows, whether there are no more, and what is wrong with the video."""
    batch: list[np.ndarray] = []
    try:
        while len(batch) < size and sum(window.nbytes for window in batch) < PIECE_BYTES:
            batch.append(next(windows))
    except StopIteration as end:
        return batch, True, end.value
    except VideoError as error:
        return batch, True, Problem(str(error), error.seconds, used=False)
    except Exception as error:  # whatever a decoder raises is about this file alone
        said = shorten(f"{type(error).__name__}: {error}")
        return batch, True, Problem(f"it cannot be decoded ({said})", 0.0, used=False)
    return batch, False, None


class DecoderDiedError(Exception):
    """Processes that decoded were killed, most likely by what they read.

    Attributes:
        places: of the videos that they were reading.
    """

    def __init__(self, places: list[int]) -> None:
        super().__init__(f"videos {places}")
        self.places = places


def decode_videos(
    videos: list[VideoFile],
    sampling: Sampling,
    batch_size: int,
    workers: int,
    starts: Sequence[Progress] | None = None,
) -> Iterator[Piece]:
    """Pieces of all videos. Those of one video come in order, those of several are mixed.

    A few pieces a process are held at a time, however long the videos are.

    Args:
        batch_size: windows of a piece.
        workers: processes; 1: this one alone, with FFmpeg's own threads.
        starts: how far each video was read before; None: not at all.

    Raises:
        DecoderDiedError: a process was killed; the videos it had not finished come no more.
        UserError: the same, and nobody knows what it was reading.
    """
    if not videos:
        return
    alone = workers <= 1
    starts = [Progress()] * len(videos) if starts is None else starts
    decoder = _Decoder(videos, sampling, batch_size, 0 if alone else 1, starts)
    loader = DataLoader(
        decoder,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=0 if alone else min(workers, len(videos)),
        prefetch_factor=None if alone else PIECES_AHEAD,
        worker_init_fn=_start_worker,
        in_order=False,
        multiprocessing_context=None if alone else "fork",
    )
    try:
        with _deaths_while_waiting(iter(loader)) as pieces:
            yield from pieces
    except RuntimeError as error:
        dead = dead_workers(error)
        if not dead:
            raise
        if places := [int(place) for place in dead.values() if place is not None]:
            raise DecoderDiedError(places) from None
        raise UserError(
            "a decoding process was killed (out of memory?); run again with fewer --workers or a "
            "smaller --batch_size"
        ) from None


@contextmanager
def _deaths_while_waiting(pieces: Iterator[Piece]) -> Iterator[Iterator[Piece]]:
    """Let the loader say only where it is asked for a piece that a worker died.

    Its own signal handler would raise that anywhere, in whatever the main thread does then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield pieces
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield pieces
    finally:
        signal.signal(signal.SIGCHLD, before)


def _unchanged(piece: Any) -> Any:  # of a loader without batches: one piece
    return piece


def _start_worker(_: int) -> None:
    follow_parent()
