"""The frames of many videos, decoded by several processes while a model computes."""

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from data.prepare.find_videos import VideoFile
from data.prepare.unfinished import Progress
from data.prepare.video_frames import Problem, Sampling, VideoError, read_windows
from utils.errors import UserError, shorten
from utils.processes import dead_workers, follow_parent, noted_reading

PIECES_AHEAD = 2  # that a process decodes in advance
PIECE_BYTES = 64 << 20  # large pictures make pieces of fewer windows


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive windows of a video."""

    video: int  # its index
    frames: np.ndarray | None  # (B, K, height, width, 3) uint8; None in the last piece
    intact: bool = True  # all of the video could be decoded so far
    problem: Problem | None = None  # in the last piece: what is wrong with the video


@dataclass(eq=False)
class _Decoder(IterableDataset):
    """The pieces of all videos; each process takes the next video that none has taken."""

    videos: list[VideoFile]
    sampling: Sampling
    batch_size: int
    threads: int
    starts: Sequence[Progress]
    taken: Any = field(default_factory=lambda: multiprocessing.Value("l", 0))  # videos so far

    def __iter__(self) -> Iterator[Piece]:
        while (index := self._take()) < len(self.videos):
            yield from self._pieces(index)

    def _take(self) -> int:
        with self.taken.get_lock():
            self.taken.value += 1
            return self.taken.value - 1

    def _pieces(self, index: int) -> Iterator[Piece]:
        start = self.starts[index]
        sampling = replace(self.sampling, first=start.windows, enter=start.intact)
        path, damaged = self.videos[index].path, threading.Event()
        windows = read_windows(path, sampling, self.threads, damaged.set)
        at_end, problem = False, None
        with noted_reading(str(index)):  # should its decoder kill this process
            while not at_end:
                batch, at_end, problem = _next_windows(windows, self.batch_size)
                if batch:
                    yield Piece(index, np.stack(batch), not damaged.is_set())
        yield Piece(index, None, problem=problem)


def _next_windows(
    windows: Generator[np.ndarray, None, Problem | None], size: int
) -> tuple[list[np.ndarray], bool, Problem | None]:
    """Return at most ``size`` windows, whether they are the last, and the video's problem."""
    batch: list[np.ndarray] = []
    try:
        while len(batch) < size and sum(window.nbytes for window in batch) < PIECE_BYTES:
            batch.append(next(windows))
    except StopIteration as end:
        return batch, True, end.value
    except VideoError as error:
        return batch, True, Problem(str(error), error.seconds)
    except Exception as error:  # of a decoder: about this file alone
        reason = shorten(f"{type(error).__name__}: {error}")
        return batch, True, Problem(f"it cannot be decoded ({reason})")
    return batch, False, None


class DecoderDiedError(Exception):
    """Decoding processes were killed, most likely by the videos that they were reading."""

    def __init__(self, videos: list[int]) -> None:
        super().__init__(f"videos {videos}")
        self.videos = videos  # indices


def decode_videos(
    videos: list[VideoFile],
    sampling: Sampling,
    batch_size: int,
    workers: int,
    starts: Sequence[Progress] | None = None,
) -> Iterator[Piece]:
    """Yield pieces of all videos; those of one video in order, those of several interleaved.

    Memory holds a few pieces per process, however long the videos are.

    Args:
        batch_size: windows of a piece.
        workers: processes; 1: this one alone, with FFmpeg's own threads.
        starts: how far each video was read before; None: not at all.

    Raises:
        DecoderDiedError: a process was killed; its videos remain unfinished.
        UserError: the same, by an unknown video.
    """
    if not videos:
        return
    alone = workers <= 1
    starts = [Progress()] * len(videos) if starts is None else starts
    decoder = _Decoder(videos, sampling, batch_size, 0 if alone else 1, starts)
    loader = DataLoader(
        decoder,
        batch_size=None,
        collate_fn=_identity,  # of one piece: there are no batches
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
        if indices := [int(index) for index in dead.values() if index is not None]:
            raise DecoderDiedError(indices) from None
        raise UserError(
            "a decoding process was killed (out of memory?); run again with fewer --workers or a "
            "smaller --batch_size"
        ) from None


@contextmanager
def _deaths_while_waiting(pieces: Iterator[Piece]) -> Iterator[Iterator[Piece]]:
    """Let the loader raise an error for a dead worker only where a piece is requested.

    Its own signal handler would raise it anywhere in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield pieces
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield pieces
    finally:
        signal.signal(signal.SIGCHLD, before)


def _identity(piece: Any) -> Any:
    return piece


def _start_worker(_: int) -> None:
    follow_parent()
