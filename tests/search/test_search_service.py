"""The service of the search over HTTP, on a real index of real films."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import http.client
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import av
import pytest
import requests

from search import batching, server, service
from search.batching import Batcher, BusyError
from search.engine import MomentSearch
from search.playback import media_type, playback
from search.records import Line, NewFilm
from search.store import Index, IndexWriter
from tests.support.colour_films import (
    COLOURS,
    MAKER,
    ColourScorer,
    make_film,
    new_film,
    write_index,
)
from tests.support.search_server import RunningServer, serving

SPOKEN = [Line(1, 4, "The sails are red."), Line(13, 15, "No wind.")]
ODD = os.fsdecode(b"caf\xe9 & <b>\n.mp4")


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    make_film(folder / "harbour.mp4", [("red", 12), ("grey", 9), ("blue", 6)])
    make_film(folder / ODD, [("grey", 24), ("green", 6), ("grey", 6)])
    return folder


@functools.cache
def entries(films: Path) -> list[NewFilm]:
    """Two films, one that came from a database, and one whose file is gone."""
    first = new_film("harbour.mp4", films / "harbour.mp4", SPOKEN)
    second = new_film(ODD, films / ODD)
    database = dataclasses.replace(first, name="features only", file=None)
    gone = dataclasses.replace(first, name="gone.mp4", file=films / "gone.mp4")
    return [first, second, database, gone]


@pytest.fixture(scope="module")
def running(films) -> Iterator[RunningServer]:
    engine = MomentSearch(Index.open(write_index(films / "index", entries(films))), ColourScorer())
    with serving(engine, "films.example") as running:
        yield running


@pytest.fixture
def get(running) -> Callable[..., requests.Response]:
    def get(path: str, **headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.get(running.url + path, headers=names, timeout=20)

    return get


# --------------------------------------------------------------------------------------------------
# What is answered
# --------------------------------------------------------------------------------------------------


def test_moments(get, running, films):
    found = get("/api/search?q=A red boat&top=3").json()["moments"]
    assert found[0] == {
        "video": "1",
        "file": str(films / "harbour.mp4"),
        "name": "harbour.mp4",
        "start": 0.0,
        "end": 12.0,
        "score": pytest.approx(running.service.engine.search("A red boat")[0].score),
        "text": "The sails are red.",
    }
    assert len(found) == 3 and len(get("/api/search?q=red&top=2").json()["moments"]) == 2
    doubtful = get("/api/search?q=mermaids").json()["moments"]
    assert doubtful and all(moment["doubtful"] for moment in doubtful)


def test_notes_are_said(films):
    scorer = ColourScorer("by colours, not by HERO")
    with serving(MomentSearch(Index.open(films / "index"), scorer)) as running:
        found = requests.get(f"{running.url}/api/search?q=red", timeout=20).json()["moments"]
        assert found[0]["note"] == "by colours, not by HERO"
        health = requests.get(f"{running.url}/api/health", timeout=20).json()
        assert health["note"] == "by colours, not by HERO"


def test_an_index_without_films(tmp_path):
    index = Index.open(write_index(tmp_path / "index", []))
    with serving(MomentSearch(index, ColourScorer())) as running:
        assert requests.get(f"{running.url}/api/search?q=red", timeout=20).json() == {"moments": []}
        assert requests.get(f"{running.url}/api/health", timeout=20).json()["videos"] == 0


def test_films(get, films):
    listed = get("/api/videos").json()["videos"]
    assert [entry["video"] for entry in listed] == ["1", "2", "3", "4"]
    assert listed[1]["name"] == ODD.encode("utf-8", "replace").decode()
    known = get("/api/videos/1").json()
    assert known["seconds"] == 27 and known["codec"] == "h264" and known["plays"]
    assert known["problem"] == ""
    assert known["lines"][0] == {"start": 1, "end": 4, "text": "The sails are red."}
    assert "database" in get("/api/videos/3").json()["problem"]
    assert "no longer" in get("/api/videos/4").json()["problem"]


def test_a_curve(get, running):
    curve = get("/api/videos/2/curve?q=green").json()
    assert curve["interval"] == 1.5
    assert curve["scores"] == pytest.approx(running.service.engine.score(2, "green").tolist())
    assert min(curve["scores"][16:20]) > 0.99 > max(curve["scores"][:16])


@pytest.mark.parametrize(
    ("video", "seconds", "colour"),
    [(1, 3, "red"), (1, 23, "blue"), (2, 25, "green"), (1, 99, "blue")],
)
def test_thumbnails(get, video, seconds, colour):
    answer = get(f"/api/videos/{video}/thumbnail?t={seconds}")
    assert answer.headers["content-type"] == "image/jpeg"
    with av.open(BytesIO(answer.content)) as picture:
        shown = next(picture.decode(video=0)).to_ndarray(format="rgb24")
    assert shown.mean(axis=(0, 1)) == pytest.approx(COLOURS[colour], abs=12)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/docs", "/docs.js", "/icon.svg"])
def test_the_page_needs_nothing_from_elsewhere(get, path):
    answer = get(path)
    assert answer.status_code == 200
    addresses = set(re.findall(r"""\w*:?//[\w.]+[^\s"']*""", answer.text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_interface_is_described(get):
    described = get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/search",
        "/api/health",
        "/api/videos",
        "/api/videos/{video}",
        "/api/videos/{video}/curve",
        "/api/videos/{video}/stream",
        "/api/videos/{video}/thumbnail",
    }


# --------------------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------------------

SIZE, ETAG = "size", "etag"
# Headers; status, first byte, stop (negative: from the end; None: all).
RANGES = {
    "all": ({}, 200, 0, None),
    "first bytes": ({"Range": "bytes=0-9"}, 206, 0, 10),
    "middle": ({"Range": "bytes=100-199"}, 206, 100, 200),
    "open": ({"Range": "bytes=500-"}, 206, 500, None),
    "last": ({"Range": "bytes=-7"}, 206, -7, None),
    "longer than the file": ({"Range": "bytes=10-99999999"}, 206, 10, None),
    "more than all": ({"Range": "bytes=-99999999"}, 206, 0, None),
    "the same file": ({"Range": "bytes=0-9", "If-Range": ETAG}, 206, 0, 10),
    "another file": ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, 0, None),
    "another date": (
        {"Range": "bytes=0-9", "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"},
        *(200, 0, None),
    ),
    "another unit": ({"Range": "lines=0-9"}, 200, 0, None),
    "behind the end": ({"Range": "bytes=99999999-"}, 416, 0, 0),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", RANGES)
def test_ranges(running, films, case, method):
    headers, status, first, stop = RANGES[case]
    whole = (films / "harbour.mp4").read_bytes()
    url = f"{running.url}/api/videos/1/stream"
    etag = requests.head(url, timeout=20).headers["etag"]
    headers = {name: etag if value == ETAG else value for name, value in headers.items()}
    answer = requests.request(method, url, headers=headers, timeout=20)
    assert answer.status_code == status
    expected = whole[first:stop]
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
        return
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.content == (expected if method == "GET" else b"")
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    if status == 206:
        begin = first % len(whole)
        told = f"bytes {begin}-{begin + len(expected) - 1}/{len(whole)}"
        assert answer.headers["content-range"] == told


def test_several_ranges(get, films):
    whole = (films / "harbour.mp4").read_bytes()
    answer = get("/api/videos/1/stream", Range="bytes=0-4,100-109")
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert whole[:5] in answer.content and whole[100:110] in answer.content


def test_what_is_left_in_the_middle_leaves_nothing_behind(tmp_path):
    film = tmp_path / "long.mp4"
    make_film(film, [("red", 3)])
    entry = new_film("long.mp4", film)
    with film.open("ab") as file:
        file.truncate(64 << 20)  # more than buffers hold
    engine = MomentSearch(Index.open(write_index(tmp_path / "index", [entry])), ColourScorer())
    with serving(engine) as running:
        assert requests.get(f"{running.url}/api/health", timeout=20).ok
        before = descriptors()
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
            connection.request("GET", "/api/videos/1/stream")
            connection.getresponse().read(1000)
            connection.close()
        wait_until(lambda: descriptors() <= before)


# --------------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------------

LONG = "a" * 501
# Method, path, headers, status.
BAD = [
    ("GET", "/api/search", {}, 422),
    ("GET", "/api/search?q=", {}, 422),
    ("GET", "/api/search?q=%20%09", {}, 422),
    ("GET", f"/api/search?q={LONG}", {}, 422),
    ("GET", f"/api/search?q={'%F0%9F%98%80' * 501}", {}, 422),
    ("GET", f"/api/search?q={'a' * 9000}", {}, 414),
    ("GET", f"/api/search?q={'a' * 20000}", {}, 414),
    ("GET", "/api/search?q=%FF%FE", {}, 200),
    ("GET", "/api/search?q=%00", {}, 200),
    ("GET", "/api/search?q=%ED%A0%80", {}, 200),
    ("GET", "/api/search?q=...", {}, 200),
    ("GET", "/api/search?q=%22%27;--%20OR%201=1%20%2A", {}, 200),
    ("GET", "/api/search?q=red&q=blue", {}, 200),
    ("GET", "/api/search?q=red&top=0", {}, 422),
    ("GET", "/api/search?q=red&top=-1", {}, 422),
    ("GET", "/api/search?q=red&top=101", {}, 422),
    ("GET", "/api/search?q=red&top=1e9", {}, 422),
    ("GET", "/api/search?q=red&top=five", {}, 422),
    ("GET", "/api/search?q=red&top=1.5", {}, 422),
    ("GET", f"/api/search?q=red&top={'9' * 5000}", {}, 422),
    ("GET", "/api/search?q=red&top=", {}, 422),
    ("POST", "/api/search?q=red", {}, 405),
    ("DELETE", "/api/videos/1", {}, 405),
    ("PUT", "/api/videos/1/stream", {}, 405),
    ("OPTIONS", "/api/videos", {}, 405),
    ("GET", "/api/search?q=red", {"Content-Length": "5"}, 413),
    ("POST", "/api/search?q=red", {"Content-Length": "99999999999"}, 413),
    ("POST", "/api/search?q=red", {"Transfer-Encoding": "chunked"}, 413),
    ("GET", "/api/search?q=red", {"Content-Length": "-1"}, 400),
    ("GET", "/api/search?q=red", {"Content-Length": "ten"}, 400),
    ("GET", "/api/videos/0", {}, 404),
    ("GET", "/api/videos/99", {}, 404),
    ("GET", "/api/videos/-1", {}, 404),
    ("GET", "/api/videos/01", {}, 404),
    ("GET", "/api/videos/1.0", {}, 404),
    ("GET", "/api/videos/%D9%A1", {}, 404),
    ("GET", "/api/videos/%C2%B2", {}, 404),
    ("GET", f"/api/videos/{'9' * 40}/stream", {}, 404),
    ("GET", f"/api/videos/{'9' * 5000}", {}, 404),
    ("GET", "/api/videos/harbour.mp4/stream", {}, 404),
    ("GET", "/api/videos/..%2F..%2Fetc%2Fpasswd/stream", {}, 404),
    ("GET", "/api/videos/%2Fetc%2Fpasswd/stream", {}, 404),
    ("GET", "/api/videos/../../../etc/passwd", {}, 404),
    ("GET", "/api/videos/1%00/stream", {}, 404),
    ("GET", "/api/videos/3/stream", {}, 404),
    ("GET", "/api/videos/3/thumbnail", {}, 404),
    ("GET", "/api/videos/4/stream", {}, 404),
    ("HEAD", "/api/videos/4/stream", {}, 404),
    ("GET", "/api/videos/4/thumbnail?t=1", {}, 404),
    ("GET", "/api/videos/1/thumbnail?t=-1", {}, 422),
    ("GET", "/api/videos/1/thumbnail?t=nan", {}, 422),
    ("GET", "/api/videos/1/thumbnail?t=inf", {}, 422),
    ("GET", "/api/videos/1/thumbnail?t=soon", {}, 422),
    ("GET", "/api/videos/1/thumbnail?t=1e300", {}, 200),
    ("GET", "/api/videos/1/thumbnail?t=1e-300", {}, 200),
    ("GET", "/api/videos/1/curve", {}, 422),
    ("GET", "/api/videos/99/curve?q=red", {}, 404),
    ("GET", "/api/videos/1/stream", {"Range": "bytes=9-1"}, 400),
    ("GET", "/api/videos/1/stream", {"Range": "bytes="}, 400),
    ("GET", "/api/videos/1/stream", {"Range": "bytes=a-b"}, 400),
    ("GET", "/api/videos/1/stream", {"Range": f"bytes={'9' * 5000}-"}, 400),
    ("GET", "/api/videos/1/stream", {"Range": f"bytes={'0-,' * 5000}"}, 200),
    ("GET", "/api/videos/1/stream", {"Range": "bytes=--5"}, 416),
    ("GET", "/api/videos/1/stream", {"Range": "kilobytes"}, 200),
    ("GET", "/../serve_search.py", {}, 404),
    ("GET", "/page/../../serve_search.py", {}, 404),
    ("GET", "/%2e%2e/serve_search.py", {}, 404),
    ("GET", "/index.html%00", {}, 404),
    ("GET", "//page.js", {}, 404),
    ("GET", "/api/health/", {}, 404),
    ("GET", "/", {"Host": "evil.example"}, 400),
    ("GET", "/api/videos/1/stream", {"Host": "evil.example:8000"}, 400),
    ("GET", "/", {"Host": ""}, 400),
    ("GET", "/", {"Host": "localhost.evil.example"}, 400),
    ("GET", "/", {"Host": "127.0.0.1@evil.example"}, 400),
    ("GET", "/", {"Host": "a" * 5000}, 400),
    ("GET", "/", {"X-Forwarded-Host": "localhost", "Host": "evil.example"}, 400),
    ("GET", "/", {"Upgrade": "websocket", "Connection": "Upgrade"}, 200),
    ("BREW", "/api/search?q=red", {}, 405),
]


def status_of(port: int, method: str, path: str, headers: dict[str, str]) -> int:
    """Send a request as it stands, which clients would tidy up, and return the answer's status."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    if "Host" not in headers:
        lines.append(f"Host: 127.0.0.1:{port}")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        answer = connection.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    BAD,
    ids=[f"{method} {path[:40]} {str(headers)[:40]}" for method, path, headers, _ in BAD],
)
def test_bad_requests(running, method, path, headers, status):
    assert len(BAD) >= 50
    assert status_of(running.port, method, path, headers) == status


RAW = [b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize("sent", RAW)
def test_what_is_no_request(running, sent):
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").readline().split()[1] in (b"400", b"505")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "[::1]:8000", "Films.Example", "LOCALHOST:80"]
)
def test_names_of_this_machine_and_of_the_proxy(running, host):
    assert status_of(running.port, "GET", "/api/health", {"Host": host}) == 200


def test_answers_are_sent_without_delay(running):
    """With Nagle's algorithm the end of an answer waits for the client's delayed ACK: 40 ms."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port)) as client:
        client.request("GET", "/api/health")
        client.getresponse().read()
        connections = list(running.http.server_state.connections)
        sockets = [each.transport.get_extra_info("socket") for each in connections]
        options = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets]
        assert options and all(options)


def test_a_reason_is_one_line(get):
    assert get("/api/search?q=").json() == {"detail": "q: describe a moment"}
    told = get(f"/api/search?q={LONG}").json()["detail"]
    assert "at most 500 characters" in told and "\n" not in told
    assert get("/api/videos/9").json() == {"detail": "the index holds no such video"}


def test_too_many_clients(films, monkeypatch):
    monkeypatch.setattr(server, "MAX_CLIENTS", 4)
    with serving(MomentSearch(Index.open(films / "index"), ColourScorer())) as running:
        idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(4)]
        time.sleep(0.2)
        assert status_of(running.port, "GET", "/api/health", {}) == 503
        for connection in idle:
            connection.close()
        wait_until(lambda: status_of(running.port, "GET", "/api/health", {}) == 200)


def test_clients_that_never_ask_are_parted_with(films, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 1)
    with serving(MomentSearch(Index.open(films / "index"), ColourScorer())) as running:
        for sent in (b"", b"GET / HT", b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"):
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
                connection.sendall(sent)
                answer = connection.makefile("rb").read()  # until the service closes it
            assert answer[:12] == (b"HTTP/1.1 200" if b"health" in sent else b"")


# --------------------------------------------------------------------------------------------------
# Many at once
# --------------------------------------------------------------------------------------------------


class SlowScorer(ColourScorer):
    """Takes its time, and notes what it was asked together."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.batches = seconds, []

    def encode_queries(self, sentences: list[str]) -> object:
        self.batches.append(len(sentences))
        time.sleep(self.seconds)
        if any("broken" in sentence for sentence in sentences):
            raise RuntimeError("broken")
        return super().encode_queries(sentences)


@pytest.fixture
def slow(films) -> Iterator[tuple[RunningServer, SlowScorer]]:
    scorer = SlowScorer(0.1)
    engine = MomentSearch(Index.open(films / "index"), scorer, percentile=0)
    with serving(engine) as running:
        yield running, scorer


def test_sentences_that_come_together_are_answered_together(slow):
    running, scorer = slow
    sentences = [f"{colour} {n}" for n in range(4) for colour in COLOURS]

    def ask(sentence: str) -> list:
        path = f"{running.url}/api/search?q={sentence}"
        return requests.get(path, timeout=20).json()["moments"]

    alone = [ask(sentence) for sentence in sentences]
    assert scorer.batches == [1] * 12
    scorer.batches.clear()
    with ThreadPoolExecutor(12) as clients:
        together = list(clients.map(ask, sentences))
    assert together == alone
    assert sum(scorer.batches) == 12 and len(scorer.batches) <= 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sentence_that_fails_does_not_fail_the_others(slow):
    running, _ = slow
    sentences = ["red", "broken", "blue", "green"]
    with ThreadPoolExecutor(4) as clients:
        urls = [f"{running.url}/api/search?q={sentence}" for sentence in sentences]
        answers = list(clients.map(lambda url: requests.get(url, timeout=20).status_code, urls))
    assert answers == [200, 500, 200, 200]


def test_more_than_can_wait_is_turned_away(slow, monkeypatch):
    running, _ = slow
    monkeypatch.setattr(batching, "MAX_WAITING", 3)
    with ThreadPoolExecutor(12) as clients:
        urls = [f"{running.url}/api/search?q=red {n}" for n in range(12)]
        answers = list(clients.map(lambda url: requests.get(url, timeout=20), urls))
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1" and "too many" in refused.json()["detail"]


def test_more_films_than_can_wait(get, monkeypatch):
    monkeypatch.setattr(service, "MAX_FILE_WAITING", 0)
    assert get("/api/videos/1/thumbnail").status_code == 503


def test_batches_hold_those_who_want_as_many():
    asked = []

    def answer(sentences: list[str], top: int) -> list[str]:
        asked.append((len(sentences), top))
        time.sleep(0.05)
        return [sentence * top for sentence in sentences]

    async def run() -> list[str]:
        batcher = Batcher(answer, max_batch=3)
        working = asyncio.create_task(batcher.run())
        tops = [1, 1, 2, 1, 1, 1, 2]
        found = await asyncio.gather(*(batcher.ask("x", top) for top in tops))
        working.cancel()
        batcher.close()
        assert found == ["x" * top for top in tops]
        return found

    asyncio.run(run())
    assert asked == [(1, 1), (1, 2), (1, 1)]  # the same sentence is answered once in a batch


def test_two_threads_share_what_is_asked():
    together = threading.Barrier(2, timeout=20)

    def answer(sentences: list[str], top: int) -> list[str]:
        together.wait()  # for the other thread
        return [f"{len(sentences)} {sentence}" for sentence in sentences]

    async def run() -> None:
        batcher = Batcher(answer, max_batch=16, threads=2)
        working = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*(batcher.ask(str(n), 1) for n in range(8)))
        working.cancel()
        batcher.close()
        assert found == [f"4 {n}" for n in range(8)] and batcher.busy == 0

    asyncio.run(run())


def test_freed_memory_is_given_back(films, tmp_path, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(service, "RELEASE_SECONDS", 0.01)
    monkeypatch.setattr(service, "release_memory", released.set)
    index = write_index(tmp_path / "index", entries(films)[:1])
    with serving(MomentSearch(Index.open(index), ColourScorer())):
        assert released.wait(20)


def test_who_waits_when_it_ends_is_told():
    async def run() -> None:
        batcher = Batcher(lambda sentences, top: list(sentences), max_batch=3)
        waiting = asyncio.create_task(batcher.ask("x", 1))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_too_many_wait(monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING", 0)

    async def run() -> None:
        batcher = Batcher(lambda sentences, top: list(sentences), max_batch=3)
        try:
            with pytest.raises(BusyError):
                await batcher.ask("x", 1)
        finally:
            batcher.close()

    asyncio.run(run())


# --------------------------------------------------------------------------------------------------
# An index that changes
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def changing(films, tmp_path, monkeypatch) -> Iterator[tuple[RunningServer, Path]]:
    """A service that looks at its index often, and the index."""
    monkeypatch.setattr(service, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(service, "RENEWAL_SHARE", 1.0)
    index = write_index(tmp_path / "index", entries(films)[:2])
    with serving(MomentSearch(Index.open(index), ColourScorer(), percentile=0)) as running:
        yield running, index


def health(running: RunningServer) -> dict:
    return requests.get(f"{running.url}/api/health", timeout=20).json()


def test_an_index_that_is_rewritten_is_taken_over_without_a_failure(changing, films, tmp_path):
    running, index = changing
    over, failed, counts = threading.Event(), [], []

    def ask(path: str) -> None:
        with requests.Session() as session:
            while not over.is_set():
                answer = session.get(running.url + path, timeout=20)
                counts.append(1)
                over.wait(0.01)
                if answer.status_code != 200:
                    failed.append((path, answer.status_code, answer.text))

    paths = ["/api/search?q=red", "/api/videos/1/stream", "/api/videos/1", "/api/videos"]
    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    more = make_film(tmp_path / "more.mp4", [("green", 9)])
    try:
        for _ in range(3):
            with IndexWriter(index, MAKER) as writer:
                writer.put(new_film("more.mp4", more))
                writer.put(entries(films)[1])
            wait_until(lambda: health(running)["videos"] == 3)
            with IndexWriter(index, MAKER) as writer:
                writer.remove(["more.mp4"])
                assert writer.compact(0)
            wait_until(lambda: health(running)["videos"] == 2)
        # Another folder takes its place.
        new = write_index(tmp_path / "new", [*entries(films)[:2], new_film("more.mp4", more)])
        index.rename(tmp_path / "old")
        new.rename(index)
        wait_until(lambda: health(running)["videos"] == 3)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed and len(counts) > 20
    found = requests.get(f"{running.url}/api/search?q=green", timeout=20).json()["moments"]
    assert {moment["name"] for moment in found} >= {"more.mp4"}


def test_a_film_that_is_removed_is_served_no_more(changing):
    running, index = changing
    url = f"{running.url}/api/videos/1/stream"
    assert requests.get(url, timeout=20).status_code == 200
    with IndexWriter(index, MAKER) as writer:
        writer.remove(["harbour.mp4"])
    wait_until(lambda: requests.get(url, timeout=20).status_code == 404)


def test_new_states_leave_nothing_behind(changing, films):
    running, index = changing

    def change() -> None:
        with IndexWriter(index, MAKER) as writer:
            writer.put(entries(films)[0])
            generation = writer.state().generation
        wait_until(lambda: health(running)["generation"] == generation)

    change()
    before = descriptors()
    for _ in range(10):
        change()
    wait_until(lambda: descriptors() <= before)


def test_an_index_of_another_model_is_not_taken_over(changing, films, tmp_path):
    running, index = changing
    index.rename(tmp_path / "old")
    with IndexWriter(index, dataclasses.replace(MAKER, model_sha256="c1")) as writer:
        writer.put(entries(films)[0])
    wait_until(lambda: health(running)["status"] == "stale")
    assert "model" in health(running)["problem"] and health(running)["videos"] == 2
    assert requests.get(f"{running.url}/api/search?q=red", timeout=20).status_code == 200
    shutil.rmtree(index)
    wait_until(lambda: "index" in health(running)["problem"])
    (tmp_path / "old").rename(index)
    wait_until(lambda: health(running)["status"] == "ok")


# --------------------------------------------------------------------------------------------------
# What browsers play
# --------------------------------------------------------------------------------------------------

# Name, encoder; whether any browser plays it, what is said.
PLAYED = {
    "a.mp4": ("libx264", True, ""),
    "a.mov": ("libx264", True, ""),
    "a.webm": ("libvpx-vp9", True, ""),
    "b.webm": ("libvpx", True, ""),
    "a.mkv": ("libx264", True, "not every browser plays h264 in webm"),
    "h.mp4": ("libx265", True, "not every browser plays hevc in mp4"),
    "b.mp4": ("mpeg4", False, "browsers cannot play mpeg4 in mp4"),
    "a.avi": ("mpeg4", False, "browsers cannot play mpeg4 in avi"),
    "b.avi": ("libx264", False, "browsers cannot play h264 in avi"),
    "a.ts": ("mpeg2video", False, "browsers cannot play mpeg2video in mpegts"),
}


@pytest.mark.parametrize("name", PLAYED)
def test_what_browsers_play(tmp_path, name):
    codec, plays, said = PLAYED[name]
    judged = playback(make_film(tmp_path / name, [("red", 0.5)], codec))
    assert (judged.plays, bool(judged.problem)) == (plays, bool(said))
    assert judged.problem.startswith(said) and ("ffmpeg" in judged.problem) == bool(said)


def test_a_file_that_is_no_film(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no film at all")
    assert not playback(tmp_path / "a.mp4").plays


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("a.MP4", "video/mp4"),
        ("a.mkv", "video/webm"),
        ("a.html", "application/octet-stream"),
        ("a.svg", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_a_film_is_announced_as_a_film(name, type_):
    assert media_type(Path(name)) == type_
