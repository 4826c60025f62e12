"""The pieces that decoding processes yield of good, damaged and unusable videos."""

import pytest

from data.prepare.find_videos import VideoFile
from data.prepare.video_windows import decode_videos
from tests.support.videos import CENTRES, centres, make_numbered, number_of


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_piece_of_a_video_tells_what_is_wrong_with_it(tmp_path, workers):
    make_numbered(tmp_path / "whole.mkv", 100, 25, "mpeg4")
    for name, share in (("used.mkv", 0.7), ("failed.mkv", 0.3)):
        path = make_numbered(tmp_path / name, 500, 25, "mpeg4")
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    (tmp_path / "empty.mkv").touch()
    paths = [tmp_path / f"{name}.mkv" for name in ("whole", "used", "failed", "empty")]
    videos = [VideoFile(path.stem, path, "videos") for path in paths]
    numbers, problems = [[] for _ in videos], {}
    for piece in decode_videos(videos, CENTRES, 2, workers):
        assert piece.video not in problems
        if piece.frames is None:
            problems[piece.video] = piece.problem
        else:
            numbers[piece.video] += [number_of(window) for window in piece.frames]
    whole, used, failed, empty = (problems[place] for place in range(4))
    assert numbers[0] == centres(100, 25)
    assert whole is None
    assert used.used
    assert used.reason.startswith("it is cut short: it ends at 1")
    assert used.amount == pytest.approx(14, abs=2)
    assert numbers[1][:9] == centres(500, 25)[:9]
    assert not failed.used
    assert failed.amount == pytest.approx(6, abs=2)
    assert (empty.used, empty.amount, numbers[3]) == (False, 0, [])
