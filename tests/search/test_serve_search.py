"""The command that serves a search: from an index of a HERO model to an orderly end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

import serve_search
from data.stores.lmdb_io import FeatureDb
from search.hero_scorer import HeroScorer
from search.records import Line, NewFilm
from search.server import listen
from search.store import IndexWriter
from tests.support import REPOSITORY
from tests.support.tvr_runs import make_run
from tests.support.videos import make_video
from utils.errors import UserError

pytestmark = pytest.mark.golden


@pytest.fixture
def index(tvr_options, world, tmp_path) -> Path:
    """A film, encoded by an untrained model."""
    run = make_run(tmp_path / "run", tvr_options, FeatureDb(tvr_options["vfeat_db"]).width)
    scorer = HeroScorer.open(run, "1", str(world / "toker"))
    film = make_video(tmp_path / "film.mp4", seconds=30)
    features = np.random.default_rng(0).standard_normal((20, scorer.feature_width), np.float32)
    lines = [Line(3, 6, "Hello there.")]
    (frames,) = scorer.encode_segments([(features, lines)])
    os.truncate(film, 64 << 20)  # more than buffers hold
    with IndexWriter(tmp_path / "index", scorer.maker) as writer:
        writer.put(NewFilm("film.mp4", 30, [(0, frames)], lines, film))
    return tmp_path / "index"


@contextmanager
def started(index: Path, *more: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command as a process of its own, and where it listens."""
    command = [sys.executable, "serve_search.py", "--index", str(index), "--port", "0", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, env=os.environ, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("1 film: http://127.0.0.1:"), line + process.stderr.read()
            yield process, re.search(r"http://\S+", line)[0]
        finally:
            process.kill()


@pytest.mark.slow
def test_it_answers_until_ctrl_c(index):
    with started(index, "--allowed_host", "films.example") as (process, url):
        found = requests.get(f"{url}/api/search?q=Somebody waves.", timeout=60).json()["moments"]
        assert found and found[0]["video"] == "1" and 0 <= found[0]["start"] < found[0]["end"] <= 30
        there = requests.get(f"{url}/api/health", headers={"Host": "films.example"}, timeout=60)
        assert there.json()["videos"] == 1
        assert requests.get(url, headers={"Host": "other.example"}, timeout=60).status_code == 400
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        # Neither somebody who asks nothing nor a film that is paused holds it up.
        with (
            socket.create_connection(address),
            requests.get(f"{url}/api/videos/1/stream", stream=True, timeout=60) as film,
        ):
            assert film.status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert process.stderr.read() == "stopped by SIGINT\n" and process.stdout.read() == ""


def test_a_port_that_is_taken():
    with listen(0) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=f"--port {port} cannot be used .another program"):
            serve_search.main(["--index", "nowhere", "--port", port])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "--port 70000 must be from 0 to 65535"),
        (["--port", "-1"], "--port -1 must be from 0 to 65535"),
        (["--allowed_host", "*"], "--allowed_host '*' must be a name"),
        (["--allowed_host", "http://a.example"], "must be a name of a host"),
        (["--allowed_host", "a.example:80"], "must be a name of a host"),
        (["--port", "0"], "nowhere holds no index"),
    ],
)
def test_what_cannot_be_served(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)):
        serve_search.main(["--index", "nowhere", *words])
