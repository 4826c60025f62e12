"""Frames ↔ subtitles: each rule by hand, the recorded databases, and a plain loop over pairs."""

import numpy as np
import pytest

from benchmarks import frame_matching as benchmark
from benchmarks.frame_matching import match_frames_plainly
from data.prepare.frame_matching import FrameMatches, match_frames
from data.stores.lmdb_io import TextDb


def match(spans: list, num_frames: int, interval: float = 1.5) -> FrameMatches:
    """The result of a single video."""
    (result,) = match_frames([spans], [num_frames], interval)
    return result


# --------------------------------------------------------------------------------------------------
# By hand
# --------------------------------------------------------------------------------------------------


def test_overlap_from_floor_of_start_to_before_ceil_of_end():
    # 2.0 s is frame 1 (1.5 … 3.0); 4.5 s is where frame 3 begins, so frame 2 is the last.
    result = match([(2.0, 4.5)], 5)
    assert result.sub2frames == result.unique_sub2frames == [[0, [1, 2]]]
    assert result.unmatched_frames == [0, 3, 4]


def test_an_end_just_past_a_boundary_takes_one_more_frame():
    assert match([(3.0, 4.501)], 5).sub2frames == [[0, [2, 3]]]


def test_interval_of_two_seconds():
    assert match([(2.0, 4.5)], 5, interval=2.0).sub2frames == [[0, [1, 2]]]


def test_times_are_single_precision():
    # 4.4999999 s is nearest to 4.5 in float32: frame 3, not 2.
    assert match([(4.4999999, 5.0)], 5).sub2frames == [[0, [3]]]


def test_frames_past_the_video_are_kept_but_not_unique():
    result = match([(3.0, 9.0)], 3)
    assert result.sub2frames == [[0, [2, 3, 4, 5]]]
    assert result.unique_sub2frames == [[0, [2]]]
    assert result.unmatched_frames == [0, 1]


@pytest.mark.parametrize(("start", "frames"), [(4.499, [2, 3]), (4.5, []), (7.0, [])])
def test_a_subtitle_that_starts_at_the_end_of_the_video_is_ignored(start, frames):
    # Three frames of 1.5 s: the video ends at 4.5 s.
    result = match([(0.0, 1.0), (start, 5.0)], 3)
    assert result.sub2frames == [[0, [0]], [1, frames]]
    assert result.unique_sub2frames == [[0, [0]], [1, frames[:1]]]


def test_a_long_last_subtitle_keeps_eleven_frames():
    # 3.0 … 30.0 s would be frames 2 … 19.
    result = match([(0.0, 3.0), (3.0, 30.0)], 40)
    assert result.sub2frames == [[0, [0, 1]], [1, list(range(2, 13))]]
    assert result.unmatched_frames == list(range(13, 40))


def test_sixteen_seconds_are_not_long():
    assert match([(3.0, 19.0)], 40).sub2frames == [[0, list(range(2, 13))]]  # eleven by nature
    assert match([(2.5, 18.5)], 40).sub2frames == [[0, list(range(1, 13))]]  # twelve
    assert match([(2.5, 18.6)], 40).sub2frames == [[0, list(range(1, 12))]]  # longer: eleven


def test_only_the_last_subtitle_is_shortened():
    result = match([(3.0, 30.0), (30.0, 31.0)], 40)
    assert result.sub2frames == [[0, list(range(2, 20))], [1, [20]]]


def test_the_end_of_the_video_counts_for_how_long_the_last_one_is():
    # Ten frames end at 15 s: 12 s are left of it, so all frames of 3 … 60 s stay.
    result = match([(3.0, 60.0)], 10)
    assert result.sub2frames == [[0, list(range(2, 40))]]
    assert result.unique_sub2frames == [[0, list(range(2, 10))]]


def test_the_last_in_the_list_may_be_ignored_and_the_one_before_stays_whole():
    result = match([(3.0, 30.0), (60.0, 61.0)], 40)
    assert result.sub2frames == [[0, list(range(2, 20))], [1, []]]


def test_a_contested_frame_goes_to_the_greatest_iou():
    # In frames of one second, frame 1 = [1, 2]: [0, 1.5] has 0.5 / 2, [1.2, 2] has 0.8 / 1.
    result = match([(0.0, 1.5), (1.2, 2.0)], 3, interval=1.0)
    assert result.sub2frames == [[0, [0, 1]], [1, [1]]]
    assert result.unique_sub2frames == [[0, [0]], [1, [1]]]


def test_iou_not_overlap_decides():
    # Frame 1 = [1, 2]: [0, 4] overlaps all of it, but 1 / 4 < 0.4 / 1 of [1.3, 1.7].
    result = match([(0.0, 4.0), (1.3, 1.7)], 4, interval=1.0)
    assert result.unique_sub2frames == [[0, [0, 2, 3]], [1, [1]]]


def test_the_first_of_equal_spans_wins():
    result = match([(1.5, 4.5), (1.5, 4.5)], 4)
    assert result.sub2frames == [[0, [1, 2]], [1, [1, 2]]]
    assert result.unique_sub2frames == [[0, [1, 2]], [1, []]]


def test_a_subtitle_without_time():
    # On a boundary it has no frame; inside frame 4 (6.0 … 7.5 s) it overlaps it with IoU 0, and the
    # frame then belongs to subtitle 0.
    assert match([(0.0, 1.0), (3.0, 3.0)], 5).sub2frames == [[0, [0]], [1, []]]
    result = match([(0.0, 1.0), (7.0, 7.0)], 6)
    assert result.sub2frames == [[0, [0]], [1, [4]]]
    assert result.unique_sub2frames == [[0, [0, 4]], [1, []]]
    assert result.unmatched_frames == [1, 2, 3, 5]


def test_a_subtitle_without_time_never_wins_from_one_with():
    result = match([(6.5, 6.5), (6.0, 7.5)], 6)
    assert result.unique_sub2frames == [[0, []], [1, [4]]]


def test_a_subtitle_that_ends_before_it_starts():
    assert match([(6.0, 3.0)], 6).sub2frames == [[0, []]]
    assert match([(0.0, 1.0), (3.5, 3.2)], 4).unique_sub2frames == [[0, [0, 2]], [1, []]]


def test_a_subtitle_that_starts_before_the_video():
    result = match([(-4.0, 2.0), (-9.0, -5.0)], 3)
    assert result.sub2frames == [[0, [0, 1]], [1, []]]


def test_pseudo_subtitles_of_a_silent_video():
    result = match([], 12)
    runs = [[0, [0, 1, 2, 3, 4]], [1, [5, 6, 7, 8, 9]], [2, [10, 11]]]
    assert result == FrameMatches(runs, runs, [])


def test_videos_without_frames():
    assert match([], 0) == FrameMatches([], [], [])
    assert match([(0.0, 2.0)], 0) == FrameMatches([[0, []]], [[0, []]], [])


def test_videos_do_not_see_each_other():
    spans = [[(0.0, 2.0), (1.0, 9.0)], [], [(0.5, 40.0)], [(3.0, 4.0)]]
    frames = [4, 7, 30, 2]
    together = match_frames(spans, frames, 1.5)
    assert together == [match(of_video, total) for of_video, total in zip(spans, frames)]
    assert match_frames([], [], 1.5) == []


# --------------------------------------------------------------------------------------------------
# The record, and the plain loop
# --------------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_recorded_matches(world):
    db = TextDb(world / "txt_db" / "tv_subtitles.db")
    records = [db[vid] for vid in db.side("vid2len.json")]
    spans = [[(sub["start"], sub["end"]) for sub in record["sub"]] for record in records]
    durations = [record["duration"] for record in records]
    found = match_frames(spans, durations, db.meta["frame_length"])
    for record, matches in zip(records, found, strict=True):
        assert matches.sub2frames == record["sub2frames"]
        assert matches.unique_sub2frames == record["unique_sub2frames"]
        assert matches.unmatched_frames == record["unmatched_frames"]


def awkward_spans(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Up to eight subtitles on a grid of half seconds: ties, gaps, zero and negative lengths."""
    start = np.sort(rng.integers(-2, 60, rng.integers(0, 9)) / 2)
    length = rng.choice([-0.5, 0, 0, 0.25, 0.5, 1, 1.5, 3, 7, 16, 16.5, 40], len(start))
    return list(zip(start.tolist(), (start + length).tolist(), strict=True))


@pytest.mark.parametrize("interval", [1.5, 2.0, 0.7])
def test_equals_the_plain_loop(interval):
    rng = np.random.default_rng(int(interval * 10))
    spans = [awkward_spans(rng) for _ in range(150)]
    frames = rng.integers(0, 30, len(spans)).tolist()
    assert match_frames(spans, frames, interval) == match_frames_plainly(spans, frames, interval)


def test_the_benchmark_runs(capsys):
    benchmark.main(["--videos", "3", "--repeats", "1"])
    assert "equal results" in capsys.readouterr().out
