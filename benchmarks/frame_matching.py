"""Matching frames and subtitles: vectorised over many videos, against a loop over each pair.

python benchmarks/frame_matching.py [--videos 200] [--subtitles 30] [--frames 60] [--repeats 5]
"""

import math
import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import make_parser, median_times
from data.prepare.frame_matching import (
    LONG_LAST_FRAMES,
    LONG_LAST_SECONDS,
    PSEUDO_SUBTITLE_FRAMES,
    FrameMatches,
    Spans,
    match_frames,
)

Exact = list[tuple[np.float32, np.float32]]


def match_frames_plainly(
    spans: list[Spans], num_frames: list[int], interval: float
) -> list[FrameMatches]:
    """Return what :func:`data.prepare.frame_matching.match_frames` does, pair by pair."""
    return [
        _match_video(of_video, total, np.float32(interval))
        for of_video, total in zip(spans, num_frames, strict=True)
    ]


def _match_video(spans: Spans, num_frames: int, interval: np.float32) -> FrameMatches:
    if not spans:
        frames = list(range(num_frames))
        runs = [frames[a : a + PSEUDO_SUBTITLE_FRAMES] for a in frames[::PSEUDO_SUBTITLE_FRAMES]]
        numbered = [[sub, run] for sub, run in enumerate(runs)]
        return FrameMatches(numbered, numbered, [])
    exact = [(np.float32(start), np.float32(end)) for start, end in spans]
    horizon = max(num_frames, *(math.ceil(end / interval) for _, end in exact))
    all_frames: list[list[int]] = [[] for _ in spans]
    for sub in range(len(spans)):
        for frame in range(horizon):
            if _overlaps(exact, sub, frame, num_frames, interval):
                all_frames[sub].append(frame)
    unique: list[list[int]] = [[] for _ in spans]
    unmatched: list[int] = []
    for frame in range(num_frames):
        best, best_iou, matched = 0, np.float32(0), False
        for sub in range(len(spans)):
            if frame in all_frames[sub]:
                matched = True
                iou = _iou(frame, exact[sub][0] / interval, exact[sub][1] / interval)
                if iou > best_iou:
                    best, best_iou = sub, iou
        (unique[best] if matched else unmatched).append(frame)
    return FrameMatches(
        [[sub, frames] for sub, frames in enumerate(all_frames)],
        [[sub, frames] for sub, frames in enumerate(unique)],
        unmatched,
    )


def _overlaps(spans: Exact, sub: int, frame: int, num_frames: int, interval: np.float32) -> bool:
    start, end = spans[sub]
    video_end = np.float32(num_frames * interval)
    if start >= video_end:
        return False
    first = max(math.floor(start / interval), 0)
    is_last = sub == len(spans) - 1
    if is_last and min(end, video_end) - start > LONG_LAST_SECONDS:
        return first <= frame <= min(math.ceil(end / interval) - 1, first + LONG_LAST_FRAMES - 1)
    return first <= frame <= math.ceil(end / interval) - 1


def _iou(frame: int, start: np.float32, end: np.float32) -> np.float32:
    left, right = np.float32(frame), np.float32(frame + 1)
    overlap = min(end, right) - max(start, left)
    return max(overlap, np.float32(0)) / (max(end, right) - min(start, left))


def random_spans(rng: np.random.Generator, subtitles: int, seconds: float) -> Spans:
    """Return sorted spans of 0.3 to 5 seconds that start within ``seconds``."""
    start = np.sort(rng.uniform(0, seconds, subtitles)).round(3)
    end = (start + rng.uniform(0.3, 5, subtitles)).round(3)
    return list(zip(start.tolist(), end.tolist(), strict=True))


def main(argv: list[str] | None = None) -> None:
    options = make_parser(__doc__, videos=200, subtitles=30, frames=60, repeats=5).parse_args(argv)
    rng, interval = np.random.default_rng(0), 1.5
    spans = [
        random_spans(rng, options.subtitles, options.frames * interval)
        for _ in range(options.videos)
    ]
    arguments = (spans, [options.frames] * options.videos, interval)
    if match_frames(*arguments) != match_frames_plainly(*arguments):
        raise RuntimeError("the two disagree")
    runs = {
        "plain loop": partial(match_frames_plainly, *arguments),
        "vectorised": partial(match_frames, *arguments),
    }
    plain, vectorised = median_times(runs, options.repeats).values()
    print(f"plain loop  {plain * 1e3:9.1f} ms for {options.videos} videos")
    print(f"vectorised  {vectorised * 1e3:9.1f} ms, equal results")
    print(f"ratio       {plain / vectorised:9.1f} x")


if __name__ == "__main__":
    main()
