"""Frames by time stamps, in all sorts of files."""

from fractions import Fraction

import numpy as np
import pytest

from data.prepare.video_frames import Sampling, read_windows
from tests.support.videos import make_video

CENTRE = Sampling(1.0, (0.5,))


def greys(path, sampling=CENTRE):
    """The grey level of each wanted frame, window by window: (T, K) ints."""
    return np.array([window[:, 112, 112, 0] for window in read_windows(path, sampling)]).astype(int)


def expected(numbers, count):
    """Grey levels of frames, (T, 1)."""
    return np.array([[255 * number // count] for number in numbers])


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("v.mp4", "libx264"),
        ("v.mkv", "libx264"),
        ("v.ts", "libx264"),  # starts at 0.2 s
        ("v.webm", "libvpx"),
        ("v.avi", "mpeg4"),
        ("v.m4v", "mpeg4"),
        ("v.h264", "libx264"),  # bare: no container knows the times
    ],
)
def test_the_frame_on_display_at_the_centre_of_each_second(tmp_path, name, codec):
    found = greys(make_video(tmp_path / name, codec=codec))
    # At 0.5 s frame 5 of 60 is shown, at 1.5 s frame 15, …
    np.testing.assert_allclose(found, expected([5, 15, 25, 35, 45, 55], 60), atol=4)


def test_times_within_the_window_count(tmp_path):
    path = make_video(tmp_path / "v.mp4", seconds=4)
    found = greys(path, Sampling(2.0, (0.0, 0.49, 0.99)))
    np.testing.assert_allclose(found[0], [0, 255 * 9 / 40, 255 * 19 / 40], atol=4)
    np.testing.assert_allclose(found[1], [255 * 20 / 40, 255 * 29 / 40, 255 * 39 / 40], atol=4)


def test_frames_that_come_at_uneven_times(tmp_path):
    """30 frames in 3 s, then 10 frames, one a second."""
    times = [Fraction(n, 10) for n in range(30)] + [Fraction(3 + n) for n in range(10)]
    found = greys(make_video(tmp_path / "v.mkv", times=times))
    np.testing.assert_allclose(found[:6], expected([5, 15, 25, 30, 31, 32], 40), atol=4)
    assert len(found) == 13  # the last frame is on display from 12.0 to 12.1


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_time_starts_where_the_file_starts(tmp_path, name):
    times = [3 + Fraction(n, 10) for n in range(60)]
    found = greys(make_video(tmp_path / name, times=times))
    np.testing.assert_allclose(found, expected([5, 15, 25, 35, 45, 55], 60), atol=4)


@pytest.mark.parametrize(
    ("seconds", "interval", "windows"),
    [(0.3, 1.5, 1), (1.5, 1.5, 1), (1.6, 1.5, 2), (6, 1.5, 4), (6.1, 1.5, 5), (6, 2, 3), (5, 2, 3)],
)
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_as_many_windows_as_begin(tmp_path, name, seconds, interval, windows):
    path = make_video(tmp_path / name, seconds=seconds)
    one, many = Sampling(interval, (0.5,)), Sampling(interval, (0.0, 0.25, 0.5, 0.999))
    assert len(greys(path, one)) == len(greys(path, many)) == windows


def test_past_the_end_the_last_frame_stays(tmp_path):
    found = greys(make_video(tmp_path / "v.mp4", seconds=0.5), Sampling(2.0, (0.1, 0.9)))
    np.testing.assert_allclose(found, [[255 * 2 / 5, 255 * 4 / 5]], atol=4)


def test_rounded_time_stamps_are_no_window_of_their_own():
    sampling = Sampling(1.5, (0.5,))
    assert sampling.count(6.001) == 4
    assert sampling.count(6.02) == 5
    assert Sampling(0.02, (0.5,)).count(0.05) == 3  # the slack is small beside a short window
    assert sampling.count(0.0) == 1


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (512, 300)])
def test_windows_are_square(tmp_path, size):
    windows = list(read_windows(make_video(tmp_path / "v.mp4", 1, size=size), CENTRE))
    assert [window.shape for window in windows] == [(1, 224, 224, 3)]
    assert windows[0].dtype == np.uint8
