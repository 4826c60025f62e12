"""A server that answers whatever it likes: malformed headers, bodies without end, wrong sizes."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from unittest.mock import patch

import scripts.prepare_data
from data.prepare.download import RetryPolicy
from tests.hostile.archives import NAME, database_files, tar_of
from tests.hostile.harness import Case, Make, Place

MOST_SENT = 64 << 20  # of a body without end: who takes so much has no limit
HASTE = {"retries": 1, "wait": 0.01, "timeout": (1.0, 1.0), "window": 0.5}
LIMITS = ["--max_gb", 0.001, "--max_hours", 0.002]

Answer = Callable[[str], Iterator[bytes]]  # of a path: what is sent, bit by bit


class RogueServer:
    """Answers every request with raw bytes, and then hangs up."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = connection.recv(1 << 16).decode("latin-1").split(" ")
            for part in self._answer(request[1] if len(request) > 1 else ""):
                connection.sendall(part)

    def close(self) -> None:
        """Accept no more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def head(*headers: str, status: str = "200 OK") -> bytes:
    """The head of an answer."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode("latin-1")


def absent() -> bytes:
    return head("Content-Length: 0", status="404 Not Found")


def endless(first: bytes, chunk: bytes = b"0" * (1 << 16)) -> Iterator[bytes]:
    """A body without end."""
    return chain([first], repeat(chunk, MOST_SENT // len(chunk)))


def trickle(first: bytes) -> Iterator[bytes]:
    """A byte now and then."""
    yield first
    for _ in range(400):
        yield b"0"
        time.sleep(0.05)


def of_archive(answer: Callable[[bytes], Iterator[bytes]]) -> Callable[[bytes], Answer]:
    """Answer so for the archive; there is no list of checksums, and nothing else."""

    def of(content: bytes) -> Answer:
        return lambda path: answer(content) if path.endswith(".db.tar") else iter([absent()])

    return of


def of_checksums(answer: Callable[[bytes], Iterator[bytes]]) -> Callable[[bytes], Answer]:
    """Answer so for the list of checksums; the archive is sound."""

    def of(content: bytes) -> Answer:
        sound = head(f"Content-Length: {len(content)}") + content
        return lambda path: answer(content) if path.endswith("SHA256SUMS") else iter([sound])

    return of


def fixed(*headers: str, status: str = "200 OK", body: bytes = b"") -> Callable:
    """The same bytes whatever is asked for."""
    return lambda content: iter([head(*headers, status=status) + body])


def redirect(location: str) -> Callable:
    return fixed(f"Location: {location}", "Content-Length: 0", status="302 Found")


def whole(*headers: str) -> Callable:
    """The whole archive under these headers."""
    return lambda content: iter([head(*headers) + content])


ANSWERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "no HTTP at all": lambda content: iter([b"SSH-2.0-OpenSSH_9.6\r\n"]),
    "nothing": lambda content: iter([]),
    "a status that is none": lambda content: iter([b"HTTP/1.1 abc OK\r\n\r\n"]),
    "a status of 9,999": fixed(status="9999 What"),
    "an error for ever": fixed("Content-Length: 0", status="503 Unavailable"),
    "a wish to sign in": fixed("Content-Length: 0", status="401 Unauthorized"),
    "a redirect to itself": redirect("/hero/txt_db/tvr_val.db.tar"),
    "a redirect to nowhere": fixed("Content-Length: 0", status="302 Found"),
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to another scheme": redirect("gopher://127.0.0.1/x"),
    "a redirect to half an address": redirect("http://[::1"),
    "a redirect to an impossible port": redirect("http://127.0.0.1:99999999/x"),
    "a redirect with bytes that are no text": redirect("http://caf\xe9\xff/\x80"),
    "a redirect with an endless body": lambda content: endless(
        head("Location: /hero/txt_db/tvr_val.db.tar", status="302 Found")
    ),
    "a header of 1 MB": fixed("X-Long: " + "a" * (1 << 20)),
    "10,000 headers": fixed(*(f"X-{n}: a" for n in range(10_000))),
    "headers without end": lambda content: endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 8192),
    "a length that is no number": whole("Content-Length: many"),
    "a negative length": whole("Content-Length: -5"),
    "two lengths": whole("Content-Length: 3", "Content-Length: 10240"),
    "a length of 10^30": whole("Content-Length: 1" + "0" * 30),
    "a length of 1 EB": whole(f"Content-Length: {1 << 60}"),
    "digits of another script": whole("Content-Length: \xb2"),
    "a length that is too short": whole("Content-Length: 5000"),
    "a length that is too long": whole("Content-Length: 50000000"),
    "a range that was not asked for": fixed(
        "Content-Range: bytes 500-999/1000", "Content-Length: 500", status="206 Partial Content"
    ),
    "a range that is none": fixed("Content-Range: bytes x-y/z", status="206 Partial Content"),
    "chunks that are none": fixed("Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n"),
    "a chunk of 2^60 bytes": fixed("Transfer-Encoding: chunked", body=b"1000000000000000\r\nabc"),
    "an endless body": lambda content: endless(head()),
    "an endless body of chunks": lambda content: endless(
        head("Transfer-Encoding: chunked"), b"10000\r\n" + b"0" * (1 << 16) + b"\r\n"
    ),
    "a body that trickles": lambda content: trickle(head()),
    "a head that trickles": lambda content: trickle(b"HTTP/1.1 200 OK\r\nX: "),
    "a page of a web site": fixed("Content-Length: 19", body=b"<html>login</html>\n"),
}
CHECKSUM_ANSWERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "an endless list": lambda content: endless(head()),
    "a list that trickles": lambda content: trickle(head()),
    "a list of 1 EB": fixed(f"Content-Length: {1 << 60}"),
    "an error for ever": ANSWERS["an error for ever"],
    "a redirect to itself": redirect("/hero/SHA256SUMS"),
    "binary": fixed("Content-Length: 256", body=bytes(range(256))),
    "another digest": fixed(body=b"0" * 64 + b"  txt_db/tvr_val.db.tar\n"),
    "a page of a web site": ANSWERS["a page of a web site"],
}


def served(of: Callable[[bytes], Answer]) -> Make:
    """A download from a rogue server."""

    def make(place: Place) -> list[object]:
        content = tar_of(database_files(place))
        server = RogueServer(of(content))
        place.stack.callback(server.close)
        hasty = partial(RetryPolicy, **HASTE)
        place.stack.enter_context(patch.object(scripts.prepare_data, "RetryPolicy", hasty))
        place.environment["HERO_BLOB_URL"] = f"{server.address}/hero"
        words = ["--dataset", "tvr", "--storage", place.folder / "storage", "--only", NAME]
        return [*words, *LIMITS]

    return make


CASES = [
    Case(
        "answer for an archive",
        mutation,
        "scripts.prepare_data",
        served(of_archive(answer)),
        (),
        told=("tvr_val.db",),
    )
    for mutation, answer in ANSWERS.items()
] + [
    Case(
        "answer for checksums",
        mutation,
        "scripts.prepare_data",
        served(of_checksums(answer)),
        (),
        told=("SHA256SUMS",) if mutation != "another digest" else ("SHA-256",),
    )
    for mutation, answer in CHECKSUM_ANSWERS.items()
]
