"""Match frames with subtitles.

Frame f covers [f·i, (f+1)·i) seconds, i = interval. All subtitles of many videos are matched at
once, in arrays with one entry per subtitle, frame, or overlapping pair of the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

LONG_LAST_SECONDS = 16.0  # a last subtitle longer than this …
LONG_LAST_FRAMES = 11  # … keeps this many frames
PSEUDO_SUBTITLE_FRAMES = 5  # of a video without subtitles

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class FrameMatches:
    """The frames of one video's subtitles."""

    sub2frames: list[list]  # [[subtitle, [frames]], …]: all that a subtitle overlaps, also ≥ T
    unique_sub2frames: list[list]  # the same with each frame < T given to one subtitle at most
    unmatched_frames: list[int]  # the frames < T that no subtitle overlaps


def match_frames(
    spans: Sequence[Spans],
    num_frames: Sequence[int],
    interval: float,
    group: int = PSEUDO_SUBTITLE_FRAMES,
) -> list[FrameMatches]:
    """Match frames and subtitles of many videos.

    Args:
        spans: per video, (start, end) of its subtitles in seconds, sorted by start, finite.
        num_frames: per video, T.
        interval: seconds per frame.
        group: frames of a pseudo-subtitle; 0: there are none.

    Returns:
        One result per video. A frame that several subtitles overlap is unique to the one with the
        greatest temporal IoU, the first of equals; to subtitle 0 if every IoU is 0. A video without
        subtitles gets pseudo-subtitles over runs of ``group`` frames.
    """
    spoken = [video for video, of_video in enumerate(spans) if len(of_video)]
    matches = [_pseudo_subtitles(total, group) for total in num_frames]
    if spoken:
        corpus = _Corpus([spans[v] for v in spoken], [num_frames[v] for v in spoken], interval)
        for video, matched in zip(spoken, corpus.matches(), strict=True):
            matches[video] = matched
    return matches


def _pseudo_subtitles(num_frames: int, group: int) -> FrameMatches:
    frames = list(range(num_frames))
    if group == 0:
        return FrameMatches([], [], frames)
    starts = range(0, num_frames, group)
    runs = [[sub, frames[at : at + group]] for sub, at in enumerate(starts)]
    return FrameMatches(runs, runs, [])


class _Corpus:
    """Videos that all have subtitles, in flat arrays.

    S counts all their subtitles one after the other, F all their frames, P the pairs of a subtitle
    and a frame that overlap, B the videos. Times are float32, as in the published databases.
    """

    def __init__(self, spans: list[Spans], num_frames: list[int], interval: float) -> None:
        self.interval = np.float32(interval)
        times = chain.from_iterable(chain.from_iterable(spans))
        seconds = np.fromiter(times, dtype=np.float32).reshape(-1, 2)
        self.start, self.end = seconds[:, 0], seconds[:, 1]  # (S,)
        self.subs = np.array([len(of_video) for of_video in spans])  # (B,)
        self.frames = np.array(num_frames)  # (B,)
        self.first_sub = np.cumsum(self.subs) - self.subs  # (B,)
        self.first_frame = np.cumsum(self.frames) - self.frames  # (B,)
        self.video_of_sub = np.repeat(np.arange(len(spans)), self.subs)  # (S,)
        self.video_of_frame = np.repeat(np.arange(len(spans)), self.frames)  # (F,)

    def matches(self) -> Iterator[FrameMatches]:
        """Yield the result of each video."""
        first, count = self._overlaps()
        sub = np.repeat(np.arange(len(count)), count)  # (P,)
        frame = np.arange(len(sub)) + np.repeat(first - (np.cumsum(count) - count), count)  # (P,)

        owner = self._owners(sub, frame)
        owned = np.flatnonzero(owner >= 0)
        owned = owned[np.argsort(owner[owned], kind="stable")]
        alone = np.flatnonzero(owner < 0)
        frame_in_video = np.arange(len(owner)) - self.first_frame[self.video_of_frame]

        sub2frames = _split(frame, count)
        unique = _split(frame_in_video[owned], np.bincount(owner[owned], minlength=len(count)))
        unmatched = _split(
            frame_in_video[alone],
            np.bincount(self.video_of_frame[alone], minlength=len(self.frames)),
        )
        last_sub = self.first_sub + self.subs
        for a, b, frames in zip(self.first_sub.tolist(), last_sub.tolist(), unmatched, strict=True):
            yield FrameMatches(_numbered(sub2frames[a:b]), _numbered(unique[a:b]), frames)

    def _overlaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first frame and the number of frames (S,) that each subtitle overlaps."""
        first = np.floor(self.start / self.interval).astype(np.int64).clip(min=0)
        stop = np.ceil(self.end / self.interval).astype(np.int64)
        video_end = (self.frames * self.interval).astype(np.float32)[self.video_of_sub]  # seconds

        last = self.first_sub + self.subs - 1  # (B,)
        seconds = np.minimum(self.end, video_end)[last] - self.start[last]
        long = last[seconds > LONG_LAST_SECONDS]
        stop[long] = np.minimum(stop[long], first[long] + LONG_LAST_FRAMES)

        count = np.maximum(stop - first, 0)
        count[self.start >= video_end] = 0
        return first, count

    def _owners(self, sub: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Return the subtitle (F,) that each frame is unique to, −1 for none.

        Args:
            sub: subtitle (P,) of each overlapping pair, ascending.
            frame: its frame (P,), counted in its video.
        """
        exists = frame < self.frames[self.video_of_sub[sub]]
        sub, frame = sub[exists], frame[exists]
        index = self.first_frame[self.video_of_sub[sub]] + frame  # (P,) among F
        iou = self._iou(sub, frame)

        best = np.full(len(self.video_of_frame), -1, dtype=np.float32)  # (F,)
        np.maximum.at(best, index, iou)
        owner = np.full(len(best), len(self.start))
        wins = (iou > 0) & (iou == best[index])
        np.minimum.at(owner, index[wins], sub[wins])  # the first of equals
        return np.select([best > 0, best == 0], [owner, self.first_sub[self.video_of_frame]], -1)

    def _iou(self, sub: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Return the temporal IoU (P,) of frames [f, f+1] and subtitles, in units of frames."""
        start, end = self.start[sub] / self.interval, self.end[sub] / self.interval
        left = frame.astype(np.float32)
        right = left + np.float32(1)
        overlap = np.minimum(end, right) - np.maximum(start, left)
        hull = np.maximum(end, right) - np.minimum(start, left)
        return np.maximum(overlap, 0) / hull


def _split(values: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Split ``values`` into lists of ``counts`` elements."""
    flat = values.tolist()
    bounds = [0, *np.cumsum(counts).tolist()]
    return [flat[a:b] for a, b in pairwise(bounds)]


def _numbered(frames_of_subs: list[list[int]]) -> list[list]:
    return list(map(list, enumerate(frames_of_subs)))
