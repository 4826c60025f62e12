"""A real HTTP server for tests: ranges and tags as servers have them, and all kinds of trouble."""

import contextlib
import hashlib
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Faults:
    """What goes wrong; lists are used up request by request of a file that is there.

    Attributes:
        drop_after: break the connection after so many bytes of the body.
        statuses: answer with a status instead.
        ranges: understand Range.
        tags: send an ETag.
        lengths: send the length of a whole file.
        pause: seconds between chunks of 64 KiB.
    """

    drop_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    lengths: bool = True
    pause: float = 0.0


class FlakyServer(ThreadingHTTPServer):
    """Serves ``folder``; ``requests`` are (path, Range or None, status)."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults = Faults()
        self.requests: list[tuple[str, str | None, int]] = []

    @property
    def address(self) -> str:
        """Of the folder."""
        return f"http://127.0.0.1:{self.server_address[1]}/hero"

    def asked(self, name: str) -> list[tuple[str | None, int]]:
        """(Range, status) of each request for a file."""
        return [(span, status) for path, span, status in self.requests if path == name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyServer

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        faults, name = self.server.faults, self.path.removeprefix("/hero/")
        path = self.server.folder / name
        if not self.path.startswith("/hero/") or not path.is_file():
            return self._refuse(name, 404)
        if faults.statuses:
            return self._refuse(name, faults.statuses.pop(0))
        content = path.read_bytes()
        start = self._start(content)
        if start and start >= len(content):
            return self._refuse(name, 416)
        self._send_head(name, content, start)
        return self._send_body(content[start:])

    def _tag(self, content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'

    def _start(self, content: bytes) -> int:
        """The first byte that is asked for, and given."""
        span = self.headers.get("Range")
        if span is None or not self.server.faults.ranges:
            return 0
        same = self.headers.get("If-Range") in (None, self._tag(content))
        return int(span.removeprefix("bytes=").rstrip("-")) if same else 0

    def _send_head(self, name: str, content: bytes, start: int) -> None:
        status = 206 if start else 200
        self.server.requests.append((name, self.headers.get("Range"), status))
        self.send_response(status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.faults.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        if self.server.faults.tags:
            self.send_header("ETag", self._tag(content))
        self.send_header("Connection", "close")
        self.end_headers()

    def _send_body(self, body: bytes) -> None:
        faults = self.server.faults
        end = faults.drop_after.pop(0) if faults.drop_after else len(body)
        for at in range(0, min(end, len(body)), 1 << 16):
            self.wfile.write(body[at : min(at + (1 << 16), end)])
            time.sleep(faults.pause)
        self.close_connection = True

    def _refuse(self, name: str, status: int) -> None:
        self.server.requests.append((name, self.headers.get("Range"), status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[FlakyServer]:
    """A server of ``folder`` until the block ends."""
    with FlakyServer(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def answering(answer: Iterable[bytes], pause: float = 0.0) -> Iterator[str]:
    """The address of a server that answers every request with these pieces, as they are.

    Args:
        answer: goes on until the client hangs up, or it ends.
        pause: seconds between pieces.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            with contextlib.suppress(OSError):
                for piece in answer:
                    self.request.sendall(piece)
                    time.sleep(pause)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hero"
        server.shutdown()
