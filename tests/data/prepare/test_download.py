"""Downloads from a real server that drops, cuts, changes and refuses files."""

import itertools
import random
import threading
import time
from pathlib import Path

import pytest

from data.prepare.download import (
    AbsentError,
    RetryPolicy,
    UnreachableError,
    download,
    file_sha256,
)
from data.prepare.mirror import (
    FolderMirror,
    HttpMirror,
    SourceGoneError,
    open_mirror,
    read_checksums,
)
from tests.support.flaky_server import FlakyServer, answering, serving
from utils.errors import UserError

SIZE = 300_000
NOW = RetryPolicy(retries=3, wait=0.0, timeout=(5.0, 5.0))
NAME = "txt_db/some.db.tar"


@pytest.fixture
def content() -> bytes:
    """Bytes that differ everywhere."""
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def server(tmp_path: Path, content: bytes):
    """A server with one file."""
    path = tmp_path / "mirror" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with serving(tmp_path / "mirror") as running:
        yield running


def fetch(server: FlakyServer, folder: Path, sha256: str | None = None) -> Path:
    """Download the file."""
    target = folder / "here" / "some.db.tar"
    download(f"{server.address}/{NAME}", target, sha256, NOW)
    return target


def break_off(server: FlakyServer, folder: Path, after: int) -> None:
    """A download that ends after so many bytes."""
    server.faults.drop_after = [after]
    with pytest.raises(UnreachableError, match="cannot be downloaded"):
        target = folder / "here" / "some.db.tar"
        download(f"{server.address}/{NAME}", target, retry=RetryPolicy(0, 0))


def assert_only(target: Path) -> None:
    """Nothing else is left beside a finished file."""
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def change(server: FlakyServer, content: bytes) -> None:
    (server.folder / NAME).write_bytes(content)


def test_a_whole_file_is_asked_for_once(server, tmp_path, content):
    target = fetch(server, tmp_path)
    assert target.read_bytes() == content
    assert_only(target)
    before = target.stat()
    assert fetch(server, tmp_path).stat() == before
    assert server.asked(NAME) == [(None, 200)]


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_dropped_connections_are_gone_on_from(server, tmp_path, content, tags, lengths):
    server.faults.tags, server.faults.lengths = tags, lengths
    if not lengths:  # a body without a length just ends: nobody can tell that it was cut
        server.faults.statuses = [503]
    else:
        server.faults.drop_after = [100_000, 70_000, 0, 1]
    assert fetch(server, tmp_path).read_bytes() == content
    if lengths:
        spans = [None, "bytes=100000-", "bytes=170000-", "bytes=170000-", "bytes=170001-"]
        assert [span for span, _ in server.asked(NAME)] == spans


def test_more_drops_than_retries_as_long_as_something_comes(server, tmp_path, content):
    server.faults.drop_after = [20_000] * 10
    assert fetch(server, tmp_path).read_bytes() == content


def test_a_server_that_ignores_ranges(server, tmp_path, content):
    server.faults.ranges = False
    server.faults.drop_after = [200_000, 100_000]
    assert fetch(server, tmp_path).read_bytes() == content
    assert [status for _, status in server.asked(NAME)] == [200, 200, 200]


def test_one_that_ignores_ranges_and_always_breaks_is_given_up(server, tmp_path):
    server.faults.ranges = False
    server.faults.drop_after = [100_000] * 20
    with pytest.raises(UnreachableError, match="cannot be downloaded"):
        fetch(server, tmp_path)
    assert len(server.asked(NAME)) == 1 + NOW.retries
    server.faults.ranges = True
    server.faults.drop_after = []
    fetch(server, tmp_path)
    assert server.asked(NAME)[-1] == ("bytes=100000-", 206)  # another call goes on


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changes_meanwhile(server, tmp_path, content, tags):
    server.faults.tags = tags
    break_off(server, tmp_path, 100_000)
    other = content[::-1] + b"!"
    change(server, other)
    assert fetch(server, tmp_path).read_bytes() == other


def test_one_that_became_shorter_than_what_came(server, tmp_path, content):
    server.faults.tags = False
    break_off(server, tmp_path, 200_000)
    change(server, content[:1000])
    assert fetch(server, tmp_path).read_bytes() == content[:1000]
    assert (("bytes=200000-", 416)) in server.asked(NAME)


def test_a_checksum_is_held_to(server, tmp_path, content):
    right = file_sha256(server.folder / NAME)
    assert_only(fetch(server, tmp_path, right))
    change(server, content[:-1] + b"?")
    with pytest.raises(UserError, match=f"instead of {right}: it is damaged at its source"):
        fetch(server, tmp_path / "again", right)
    assert not list((tmp_path / "again" / "here").iterdir())


def test_a_wrong_beginning_is_noticed_by_the_checksum(server, tmp_path, content):
    """Without tags the other version's beginning is gone on from; its checksum gives it away."""
    server.faults.tags = False
    right = file_sha256(server.folder / NAME)
    change(server, bytes(SIZE))
    break_off(server, tmp_path, 100_000)
    change(server, content)
    assert fetch(server, tmp_path, right).read_bytes() == content
    assert server.asked(NAME)[-2:] == [("bytes=100000-", 206), (None, 200)]


def test_a_part_of_another_address_is_not_gone_on_from(server, tmp_path, content):
    part = tmp_path / "here" / "some.db.tar.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path).read_bytes() == content
    assert_only(part.with_suffix(""))


def test_a_busy_server_is_asked_again(server, tmp_path, content):
    server.faults.statuses = [500, 503, 429]
    assert fetch(server, tmp_path).read_bytes() == content
    server.faults.statuses = [500] * 9
    with pytest.raises(UnreachableError, match="the server answers 500 Internal Server Error"):
        fetch(server, tmp_path / "again")


def test_an_absent_file_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(AbsentError, match=r"other\.tar is not available \(404 Not Found\)"):
        download(f"{server.address}/other.tar", tmp_path / "other.tar", retry=NOW)
    assert server.asked("other.tar") == [(None, 404)]
    server.faults.statuses = [409]
    with pytest.raises(UnreachableError, match="409 Conflict"):
        fetch(server, tmp_path)


def test_nobody_listens(tmp_path):
    with pytest.raises(UnreachableError, match=r"\[Errno 111\] Connection refused\)$"):
        download("http://127.0.0.1:9/x.tar", tmp_path / "x.tar", retry=RetryPolicy(1, 0))


# --------------------------------------------------------------------------------------------------
# Servers that mean no good
# --------------------------------------------------------------------------------------------------

SHORT = RetryPolicy(
    retries=1, wait=0.0, seconds=9.0, window=0.3, least_rate=1000, most_bytes=300_000
)
OK = b"HTTP/1.1 200 OK\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "
MUCH = b"x" * 50_000


def endless(head: bytes, piece: bytes) -> itertools.chain:
    return itertools.chain([head], itertools.repeat(piece))


class Again:
    """The same pieces for every request."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


@pytest.mark.parametrize(
    ("answer", "pause", "message"),
    [
        (lambda: endless(OK + b"\r\n", b"x"), 0.01, r"only \d+ bytes came in 0.3 s"),
        (lambda: endless(OK + b"Content-Length: 9999\r\n\r\n", b"x"), 0.01, "bytes came in 0.3 s"),
        (lambda: endless(OK, b"X"), 0.01, "only 0 bytes came in 0.3 s"),
        (lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 0.0, "only 0 bytes came"),
        (lambda: endless(MOVED + b"/x\r\n\r\n", MUCH), 0.0, "more than 10 redirects"),
        (lambda: endless(OK + b"\r\n", MUCH), 0.0, "sends more than 300000 bytes"),
        (
            lambda: endless(
                OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n"
            ),
            0.0,
            "sends more than 9 bytes",
        ),
        (lambda: [MOVED + b"http://[::1\r\n\r\n"], 0.0, "Invalid IPv6 URL"),
        (lambda: [MOVED + b"http://\xff\xb2:x9/\r\n\r\n"], 0.0, "cannot be downloaded"),
        (lambda: [MOVED + b"file:///etc/passwd\r\n\r\n"], 0.0, "No connection adapters"),
        (lambda: [OK + b"Content-Length: 5, 6\r\n\r\nhello"], 0.0, "unmatching values"),
        (lambda: [OK + b"X: y\r\n" * 200 + b"\r\n"], 0.0, "more than 100 headers"),
        (lambda: [b"\xff\x00" * 9], 0.0, "cannot be downloaded"),
        (
            lambda: [b"HTTP/1.1 206 \r\nContent-Range: bytes \xb2-5/7\r\n\r\nhello"],
            0.0,
            "without a usable Content-Range",
        ),
        (lambda: [b"HTTP/1.1 999 " + b"y" * 9000 + b"\r\n\r\n"], 0.0, "999 y{200}…"),
        (
            lambda: [OK + b"Content-Length: 99999999999999999\r\n\r\n"],
            0.0,
            "has 99999999999999999 bytes, .* has room for",
        ),
    ],
)
def test_an_answer_that_means_no_good_is_one_line(tmp_path, answer, pause, message):
    start = time.monotonic()
    with answering(Again(answer), pause) as address, pytest.raises(UserError, match=message) as e:
        download(f"{address}/x.tar", tmp_path / "x.tar", retry=SHORT)
    assert time.monotonic() - start < 3 and not (tmp_path / "x.tar").exists()
    assert str(e.value).isprintable() and len(str(e.value)) < 600


@pytest.mark.parametrize("length", [b"\xb2", b"-5", b"abc", b"9" * 5000])
def test_a_length_that_is_no_number_is_refused(tmp_path, length):
    answer = OK + b"Content-Length: " + length + b"\r\n\r\nhello"
    message = r"x\.tar cannot be downloaded \(its Content-Length is .{1,201}\)"
    with answering(Again(lambda: [answer])) as url, pytest.raises(UserError, match=message):
        download(f"{url}/x.tar", tmp_path / "x.tar", retry=SHORT)
    assert not (tmp_path / "x.tar").exists()


def test_a_transfer_that_takes_too_long_is_gone_on_from(server, tmp_path, content):
    target, retry = tmp_path / "some.db.tar", RetryPolicy(1, 0.0, seconds=0.5)
    server.faults.pause = 0.3
    with pytest.raises(UnreachableError, match=r"took longer than 0.5 s\); run again to continue"):
        download(f"{server.address}/{NAME}", target, retry=retry)
    server.faults.pause = 0.0
    download(f"{server.address}/{NAME}", target, retry=retry)
    assert target.read_bytes() == content
    assert [status for _, status in server.asked(NAME)] == [200, 206]


def test_a_connection_that_falls_silent_is_made_anew(server, tmp_path, content):
    retry = RetryPolicy(1, 0.0, window=0.3, least_rate=1000)
    silent = iter([True, False])
    serve = server.finish_request

    def first_silent(request, address):
        if next(silent):
            request.recv(1 << 16)
            request.sendall(OK + b"\r\n" + content[:1000])  # of unknown length
            time.sleep(1)
        else:
            serve(request, address)

    server.finish_request = first_silent
    download(f"{server.address}/{NAME}", tmp_path / "some.db.tar", retry=retry)
    assert (tmp_path / "some.db.tar").read_bytes() == content
    assert server.asked(NAME) == [("bytes=1000-", 206)]


def test_an_endless_list_of_checksums(tmp_path):
    lines = b"".join(b"%064x  x%d\n" % (number, number) for number in range(5000))
    fast = RetryPolicy(0, 0.0, window=5.0)
    with answering(Again(lambda: endless(OK + b"\r\n", lines))) as address:
        mirror = HttpMirror(address, fast)
        with pytest.raises(SourceGoneError, match="SHA256SUMS sends more than 16777216 bytes"):
            mirror.fetch("txt_db/some.db", tmp_path / "a", packed=True)


# --------------------------------------------------------------------------------------------------
# Mirrors
# --------------------------------------------------------------------------------------------------


def test_the_address_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("HERO_BLOB_URL", raising=False)
    assert open_mirror().address == "https://convaisharables.blob.core.windows.net/hero"
    monkeypatch.setenv("HERO_BLOB_URL", "http://mirror.example/hero/")
    assert open_mirror().address == "http://mirror.example/hero"
    for address in (str(tmp_path), tmp_path.as_uri()):
        monkeypatch.setenv("HERO_BLOB_URL", address)
        assert isinstance(open_mirror(), FolderMirror)
        assert open_mirror().address == str(tmp_path)
    monkeypatch.setenv("HERO_BLOB_URL", str(tmp_path / "no"))
    with pytest.raises(SourceGoneError, match="no such folder"):
        open_mirror()


def test_checksums_of_a_mirror(server, tmp_path, content):
    digest = file_sha256(server.folder / NAME)
    (server.folder / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")
    mirror = HttpMirror(server.address, NOW)
    assert mirror.fetch("txt_db/some.db", tmp_path / "a", packed=True).read_bytes() == content
    change(server, content[::-1])
    with pytest.raises(UserError, match="damaged at its source"):
        mirror.fetch("txt_db/some.db", tmp_path / "b", packed=True)
    assert len(server.asked("SHA256SUMS")) == 1
    local = FolderMirror(server.folder)
    with pytest.raises(UserError, match=f"instead of {digest}: it is damaged"):
        local.fetch("txt_db/some.db", tmp_path / "c", packed=True)
    change(server, content)
    assert local.fetch("txt_db/some.db", tmp_path / "c", packed=True) == server.folder / NAME


def test_a_list_of_checksums(tmp_path):
    path = tmp_path / "SHA256SUMS"
    path.write_text(f"{'a' * 64}  a b.tar\n{'B' * 64} *./c.tar\n\n")
    assert read_checksums(path) == {"a b.tar": "a" * 64, "c.tar": "b" * 64}
    path.write_text("<html>\n")
    with pytest.raises(UserError, match="SHA256SUMS:1 of the mirror is no line"):
        read_checksums(path)


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_archives_of_other_kinds_are_found(server, tmp_path, content, ending):
    (server.folder / NAME).rename(server.folder / f"txt_db/some.db{ending}")
    for mirror in (HttpMirror(server.address, NOW), FolderMirror(server.folder)):
        found = mirror.fetch("txt_db/some.db", tmp_path / "a", packed=True)
        assert found.read_bytes() == content


def assert_says_what_to_do(message: str, address: str) -> None:
    assert address in message and "HERO_BLOB_URL" in message and "\n" not in message
    assert "local folder" in message and "txt_db/<name>.db.tar" in message


def test_a_source_that_is_gone(server, tmp_path):
    dead = "http://127.0.0.1:9/hero"
    with pytest.raises(SourceGoneError) as gone:
        HttpMirror(dead, RetryPolicy(1, 0)).fetch("txt_db/some.db", tmp_path / "a", packed=True)
    assert_says_what_to_do(str(gone.value), dead)
    for statuses in ([], [409] * 9, [500] * 9):
        server.faults.statuses = statuses
        (server.folder / "SHA256SUMS").write_text("")
        if not statuses:
            (server.folder / "SHA256SUMS").unlink()
        with pytest.raises(SourceGoneError) as gone:
            HttpMirror(server.address, NOW).fetch("txt_db/other.db", tmp_path / "a", packed=True)
        assert_says_what_to_do(str(gone.value), server.address)
    server.faults.statuses = []
    (server.folder / "SHA256SUMS").write_text("<html>Log in first</html>")
    with pytest.raises(SourceGoneError, match="SHA256SUMS:1 of the mirror is no line"):
        HttpMirror(server.address, NOW).fetch("txt_db/some.db", tmp_path / "a", packed=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceGoneError) as gone:
        FolderMirror(tmp_path / "empty").fetch("a", tmp_path / "a", packed=False)
    assert_says_what_to_do(str(gone.value), str(tmp_path / "empty"))


def test_a_source_that_lacks_one_file(server, tmp_path):
    for mirror in (HttpMirror(server.address, NOW), FolderMirror(server.folder)):
        mirror.fetch("txt_db/some.db", tmp_path / mirror.__class__.__name__, packed=True)
        with pytest.raises(UserError, match=r"has no a/b\.tar or a/b\.tar\.gz or") as lacks:
            mirror.fetch("a/b", tmp_path / "b", packed=True)
        assert not isinstance(lacks.value, SourceGoneError)


def test_several_threads_share_a_mirror(server, tmp_path, content):
    mirror = HttpMirror(server.address, NOW)
    targets = [tmp_path / str(number) / "file" for number in range(4)]
    threads = [
        threading.Thread(target=mirror.fetch, args=("txt_db/some.db", target, True))
        for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(target.read_bytes() == content for target in targets)
    assert len(server.asked("SHA256SUMS")) == 1
