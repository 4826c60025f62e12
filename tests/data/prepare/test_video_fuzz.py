"""Damaged bytes end in windows or in a reason, soon and in little memory, and in nothing else."""

import random
import re
import time
from pathlib import Path

import pytest

from data.prepare.video_frames import Sampling, VideoError, read_windows
from tests.support.videos import make_numbered

CASES = 40  # of each container, a seed each
SECONDS, MEBIBYTES = 20.0, 512  # that all cases of a container may take
SAMPLING = Sampling(60.0, (0.5,))
FILMS = {
    "v.mp4": "libx264",
    "f.mp4": "mpeg4",
    "v.mkv": "libx264",
    "v.webm": "libvpx",
    "v.ts": "mpeg2video",
    "v.vob": "mpeg2video",
    "v.flv": "flv",
    "v.avi": "mpeg4",
    "v.wmv": "wmv2",
    "v.h264": "libx264",
}


def memory_mib(kind: str) -> float:
    """Memory of this process: VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) / 1024


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, bytes]:
    """Small valid films."""
    folder = tmp_path_factory.mktemp("films")
    films = {}
    for name, codec in FILMS.items():
        options = {"movflags": "faststart" if name == "v.mp4" else "frag_keyframe+empty_moov"}
        path = make_numbered(
            folder / name,
            40,
            25,
            codec,
            sound=0 if name.endswith("h264") else 1.6,
            coding={"g": "10"},
            **(options if name.endswith("mp4") else {}),
        )
        films[name] = path.read_bytes()
    return films


def spoil(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes at some places, most of them where the headers are."""
    spoiled = bytearray(content)
    for _ in range(chance.choice([1, 2, 4, 16])):
        reach = chance.choice([64, 1024, len(spoiled), len(spoiled)])
        at = chance.randrange(max(1, min(reach, len(spoiled))))
        size = chance.choice([1, 1, 2, 4, 8, 64])
        what = chance.randrange(6)
        if what == 0:
            spoiled[at : at + size] = chance.randbytes(size)
        elif what == 1:
            spoiled[at : at + 4] = chance.choice(
                [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"]
            )
        elif what == 2:
            del spoiled[at : at + size * chance.choice([1, 100])]
        elif what == 3:
            spoiled[at:at] = chance.randbytes(size)
        elif what == 4:
            spoiled[at:at] = spoiled[at : at + size * 50]
        elif at < len(spoiled):
            spoiled[at] ^= 1 << chance.randrange(8)
    return bytes(spoiled)


@pytest.mark.parametrize("name", FILMS)
def test_spoiled_films(tmp_path, films, name):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    start, before = time.process_time(), memory_mib("VmRSS")
    for case in range(CASES):
        path: Path = tmp_path / name
        path.write_bytes(spoil(films[name], random.Random(f"{name} {case}")))
        try:
            windows = sum(1 for _ in read_windows(path, SAMPLING, threads=1 + case % 2))
        except VideoError as error:
            assert str(error)
            assert "\n" not in str(error)
        else:
            assert windows >= 1
    assert time.process_time() - start < SECONDS
    assert memory_mib("VmHWM") - before < MEBIBYTES
