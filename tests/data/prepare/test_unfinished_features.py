"""An extraction that is broken off within a film goes on where it was."""

import shutil

import av
import numpy as np
import pytest

from data.prepare import unfinished, video_stream
from data.prepare.extract_videos import choose_videos, extract_videos
from data.prepare.extraction import Provenance
from data.prepare.feature_files import load_features
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import find_videos
from data.prepare.video_frames import Problem, Sampling
from tests.support.videos import make_numbered, make_video

INTERVAL, BATCH = 0.5, 2
SAMPLING = Sampling(INTERVAL, (0.25, 0.75))


class _Killed(BaseException):
    pass


class Grey:
    """Mean grey of each frame; is killed after so many windows."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.windows = most, 0

    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        if self.windows + len(frames) > self.most:
            raise _Killed
        self.windows += len(frames)
        return {"grey": frames.mean((2, 3, 4), dtype=np.float32)}


@pytest.fixture
def films(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY_SECONDS", 0.0)
    make_video(tmp_path / "films" / "a.mp4", 6.2)
    return tmp_path / "films"


def extract(films, folder, extractor: Grey, model: str = "grey") -> list[Problem | None]:
    made_by = {"grey": Provenance(model, None, None, INTERVAL, len(SAMPLING.times))}
    kept = FeatureFolder(folder, made_by, force=False)
    wanted = choose_videos(find_videos(films).videos, kept, force=False)
    sizes = {"batch_size": BATCH, "workers": 1}
    return [o.problem for o in extract_videos(wanted, extractor, SAMPLING, kept, **sizes)]


def features(folder) -> np.ndarray:
    return load_features(folder / "grey_features" / "videos" / "a.npz")


@pytest.mark.parametrize("kills", [(5,), (2, 4, 1, 6), (12,)])
def test_the_rest_is_extracted(films, tmp_path, kills):
    extract(films, tmp_path / "whole", Grey())
    seen = 0
    for most in kills:
        extractor = Grey(most)
        with pytest.raises(_Killed):
            extract(films, tmp_path / "broken", extractor)
        seen += extractor.windows
        assert len(list((tmp_path / "broken" / "unfinished" / "a").iterdir())) == seen // BATCH
    last = Grey()
    extract(films, tmp_path / "broken", last)
    whole = features(tmp_path / "whole")
    assert np.array_equal(features(tmp_path / "broken"), whole) and len(whole) == 13
    assert seen + last.windows == len(whole)
    assert not (tmp_path / "broken" / "unfinished" / "a").exists()


def break_off(films, folder) -> None:
    with pytest.raises(_Killed):
        extract(films, folder, Grey(6))


def test_of_another_film_of_that_name_nothing_is_taken(films, tmp_path):
    break_off(films, tmp_path / "features")
    make_video(films / "a.mp4", 4)
    last = Grey()
    extract(films, tmp_path / "features", last)
    assert last.windows == len(features(tmp_path / "features")) == 8


def test_a_copy_of_the_film_goes_on(films, tmp_path):
    break_off(films, tmp_path / "features")
    shutil.copy(films / "a.mp4", tmp_path / "copy.mp4")
    (tmp_path / "copy.mp4").replace(films / "a.mp4")
    last = Grey()
    extract(films, tmp_path / "features", last)
    assert last.windows == 13 - 6


def test_a_damaged_part_and_those_after_it_are_made_again(films, tmp_path):
    break_off(films, tmp_path / "features")
    part = tmp_path / "features" / "unfinished" / "a" / "2.npz"
    part.write_bytes(part.read_bytes()[:100])
    last = Grey()
    extract(films, tmp_path / "features", last)
    assert last.windows == 13 - 2
    extract(films, tmp_path / "whole", Grey())
    assert np.array_equal(features(tmp_path / "features"), features(tmp_path / "whole"))


def test_parts_are_kept_from_time_to_time(films, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY_SECONDS", 1000.0)
    break_off(films, tmp_path / "features")
    assert not (tmp_path / "features" / "unfinished").exists()


def test_damage_before_a_kill_is_told_as_without(films, tmp_path, monkeypatch):
    monkeypatch.setattr(video_stream, "ENTRY_SECONDS", 2.0)
    path = make_numbered(films / "a.mp4", 240, 25, coding={"g": "25"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    victim = next(p for p in packets if p.is_keyframe and p.pts * p.time_base > 2)
    content[victim.pos + 40 : victim.pos + 104] = b"\xff" * 64
    path.write_bytes(content)
    told = extract(films, tmp_path / "whole", Grey())
    assert told[0].used and told[0].reason.startswith("it is damaged at 2")
    for most in (14, 2):
        with pytest.raises(_Killed):
            extract(films, tmp_path / "broken", Grey(most))
    assert extract(films, tmp_path / "broken", Grey()) == told
    assert np.array_equal(features(tmp_path / "broken"), features(tmp_path / "whole"))


def test_a_long_film_goes_on_without_being_decoded_from_its_beginning(films, tmp_path, monkeypatch):
    monkeypatch.setattr(video_stream, "ENTRY_SECONDS", 2.0)
    make_numbered(films / "a.mp4", 500, 25, coding={"g": "25"})
    decoded = []
    decode = video_stream.Film._decode
    count = lambda film, packet: decoded.append(packet) or decode(film, packet)  # noqa: E731
    monkeypatch.setattr(video_stream.Film, "_decode", count)
    assert extract(films, tmp_path / "whole", Grey()) == [None]
    with pytest.raises(_Killed):
        extract(films, tmp_path / "broken", Grey(36))
    decoded.clear()
    assert extract(films, tmp_path / "broken", Grey()) == [None]
    assert len(decoded) < 130  # two seconds that are left, two before them, a few for the start
    assert np.array_equal(features(tmp_path / "broken"), features(tmp_path / "whole"))
