"""Downloads over HTTP: resumed, retried, checked, and in place only when complete.

Nothing that a server sends is trusted: a transfer has limits of time, speed and size.
"""

import hashlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import urljoin

import requests
import urllib3
from tqdm import tqdm
from urllib3.connection import HTTPConnection

from utils.errors import UserError
from utils.files import write_json

CHUNK_BYTES = 1 << 16
MOST_REDIRECTS = 10
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # retried
_ABSENT = frozenset({403, 404, 410})  # 403: some stores answer so for a file they lack
_SIZE = re.compile(r"[0-9]{1,18}")
_SPAN = re.compile(r"bytes\s+([0-9]{1,18})-[0-9]*/([0-9]{1,18}|\*)")
_BROKEN = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


class UnreachableError(UserError):
    """The server does not answer, or refuses."""


class AbsentError(UserError):
    """The server answers, but does not give the file."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The limits of time, speed and size of a download."""

    retries: int = 4  # further attempts after one that brought nothing new
    wait: float = 0.5  # seconds before the first of them; it doubles each time
    timeout: tuple[float, float] = (10.0, 60.0)  # seconds: to connect, for the next bytes
    seconds: float = 24 * 3600.0  # for a file, all attempts together
    # Seconds in which at least ``window`` × ``least_rate`` bytes must arrive; otherwise the
    # connection is made again, ``retries`` times in a row.
    window: float = 60.0
    least_rate: float = 2000.0  # bytes per second
    most_bytes: int = 64 << 30  # of a file whose size the server does not announce


class _Interrupted(Exception):  # noqa: N818 – no error yet: it is retried
    """An attempt ended early."""


class _Watch:
    """Ends a transfer that takes too long or is too slow, by closing its connections."""

    def __init__(self, part: "_Part", retry: RetryPolicy) -> None:
        self._part, self._retry = part, retry
        self._connections: list[socket.socket] = []
        self._over = Event()
        self.verdict = ""
        self.cut = ""  # why the current attempt was ended; others may follow

    def __enter__(self) -> Self:
        Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for connection in self._connections:
            connection.close()

    def add(self, connection: socket.socket) -> None:
        """Add a connection that was just made."""
        self._connections.append(connection.dup())  # TLS takes the original's place
        self.check()

    def check(self) -> None:
        """Raise UnreachableError once the transfer was ended."""
        if self.verdict:
            raise UnreachableError(
                f"{self._part.url} cannot be downloaded ({self.verdict}); run again to continue, "
                "or name another mirror"
            )

    def _watch(self) -> None:
        retry, received, slow = self._retry, self._part.received, 0
        end = time.monotonic() + retry.seconds
        while not self._over.wait(max(0, min(retry.window, end - time.monotonic()))):
            new, received = self._part.received - received, self._part.received
            slow = slow + 1 if new < retry.window * retry.least_rate else 0
            if time.monotonic() >= end:
                self.verdict = f"it took longer than {retry.seconds:g} s"
            elif slow:
                self.cut = f"only {new} bytes came in {retry.window:g} s"
                self.verdict = self.cut if slow > retry.retries else ""
            else:
                continue
            for connection in list(self._connections):
                with suppress(OSError):  # it has ended meanwhile
                    connection.shutdown(socket.SHUT_RDWR)
            if self.verdict:
                return


class _WatchedConnection(HTTPConnection):
    """Adds its socket to the watch."""

    watch: _Watch

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        self.watch.add(connection)
        return connection


class _Adapter(requests.adapters.HTTPAdapter):
    """Lets a watch have the connections."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        if not hasattr(pool.ConnectionCls, "watch"):
            bases = (_WatchedConnection, pool.ConnectionCls)
            pool.ConnectionCls = type("_Watched", bases, {"watch": self._watch})
        return pool


class _Session(requests.Session):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(watch))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow nothing: requests would read the body of a redirect, however long, to memory."""


class _Part:
    """The part of a file received so far, ``<path>``, and its version, ``<path>.json``."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self._note = path.with_name(f"{path.name}.json")
        self._version = self._read_note()
        self.size = path.stat().st_size if self._version and path.exists() else 0
        self.received = 0  # bytes, including those discarded

    def _read_note(self) -> dict:
        """Return what is known of the version; nothing if the file is from another address."""
        try:
            version = json.loads(self._note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        same = isinstance(version, dict) and version.get("url") == self.url
        return version if same and isinstance(version.get("total"), int | None) else {}

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, where the server announced them."""
        return self._version.get("total")

    def headers(self) -> dict[str, str]:
        """Return headers that request the rest, or everything if the server's version changed."""
        if not self.size:
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        if self._version.get("validator"):
            headers["If-Range"] = self._version["validator"]
        return headers

    def accept(self, response: requests.Response) -> None:
        """Keep what was received if the response continues it, else begin again."""
        start, total = _extent(response)
        same = self.total is None or total is None or total == self.total
        if start == 0:
            self.discard()
        elif start != self.size or not same:
            self.discard()
            raise _Interrupted("the file changed meanwhile")
        if start == 0 or self.total is None:
            self._version = {"url": self.url, "total": total, "validator": _validator(response)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if (self.total or 0) > free:
                raise UserError(
                    f"{self.url} has {self.total} bytes, {self.path.parent} has room for {free}: "
                    "make room there, or choose another folder"
                )
            self.path.touch()
            write_json(self._note, self._version)

    def write(self, chunks: Iterator[bytes], most_bytes: int) -> None:
        """Append to what has been kept; more than ``most_bytes`` in all are refused."""
        shown: dict[str, Any] = {
            "desc": self.path.stem,
            "unit": "B",
            "unit_scale": True,
            "disable": None,
        }
        bar = tqdm(total=self.total, initial=self.size, **shown)
        with self.path.open("r+b") as file, bar as progress:
            file.truncate(self.size)
            file.seek(self.size)
            for chunk in chunks:
                self.received += len(chunk)
                if self.size + len(chunk) > most_bytes:
                    self.discard()
                    raise UnreachableError(
                        f"{self.url} sends more than {most_bytes} bytes, what it announced or what "
                        "is taken unannounced; name another mirror"
                    )
                file.write(chunk)
                self.size += len(chunk)
                progress.update(len(chunk))

    def discard(self) -> None:
        """Delete what was received, to begin again."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._version, self.size = {}, 0

    def finish(self, target: Path) -> None:
        """Put the file in place."""
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Return where the body starts in the file, and the bytes of the whole file."""
    if response.status_code == requests.codes.partial:
        span = _SPAN.fullmatch(response.headers.get("Content-Range", "").strip())
        if span is None:
            raise _Interrupted("an answer without a usable Content-Range")
        return int(span[1]), None if span[2] == "*" else int(span[2])
    length = response.headers.get("Content-Length")
    if length is not None and not _SIZE.fullmatch(length.strip()):
        raise UnreachableError(
            f"{_short(response.url)} cannot be downloaded (its Content-Length is {_short(length)})"
        )
    return 0, None if length is None else int(length)


def _validator(response: requests.Response) -> str | None:
    """Return what identifies a version of the file; weak tags must not be used for ranges."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    retry: RetryPolicy | None = None,
    most_bytes: int | None = None,
) -> None:
    """Download a file unless ``target`` exists.

    What was received so far is next to it, ``<name of the file at url>.part``, and is continued
    after a broken connection or a kill.

    Args:
        url: address of the file.
        target: path to write.
        sha256: its checksum, if known.
        retry: limits of the download.
        most_bytes: limit of its size, also if the server announces more.

    Raises:
        UnreachableError: the server does not answer, or refuses.
        AbsentError: it does not give this file.
        UserError: the checksum is wrong, twice.
    """
    if target.exists():
        return
    part = _Part(target.with_name(f"{url.rpartition('/')[2]}.part"), url)
    for _ in range(2):
        _receive(part, retry or RetryPolicy(), most_bytes)
        found = sha256 and file_sha256(part.path)
        if found == sha256:
            part.finish(target)
            return
        part.discard()  # it may have been resumed wrongly: once more, from the start
    raise UserError(
        f"{url} has the SHA-256 {found} instead of {sha256}: it is damaged at its source"
    )


def _receive(part: _Part, retry: RetryPolicy, most_bytes: int | None) -> None:
    """Attempt until the part is the whole file."""
    with _Watch(part, retry) as watch, _Session(watch) as session:
        try:
            _attempt_repeatedly(part, retry, session, most_bytes)
        except UnreachableError:
            watch.check()
            raise
        watch.check()


def _attempt_repeatedly(
    part: _Part, retry: RetryPolicy, session: _Session, most_bytes: int | None
) -> None:
    failures, most, watch = 0, part.size, session.watch
    while True:
        try:
            return _attempt(part, retry, session, most_bytes)
        except _Interrupted as error:
            watch.check()
            # Only bytes never received before count: a server may break at the same place.
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures > retry.retries:
                raise UnreachableError(f"{part.url} cannot be downloaded ({error})") from None
            wait = retry.wait * 2 ** (failures - 1)
            print(f"{part.url}: {error}; again in {wait:g} s", flush=True)
            time.sleep(wait)
            watch.check()


def _attempt(part: _Part, retry: RetryPolicy, session: _Session, most_bytes: int | None) -> None:
    if part.size and part.size == part.total:
        return
    session.watch.cut = ""
    with _request(part, session, retry.timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.discard()
            raise _Interrupted("the file is shorter than what was received of it")
        _require_success(response)
        part.accept(response)
        limit = retry.most_bytes if part.total is None else part.total
        part.write(_body(response), min(limit, most_bytes or limit))
    if part.total is not None and part.size != part.total:
        raise _Interrupted(f"only {part.size} of {part.total} bytes came")
    if part.total is None and session.watch.cut:  # otherwise it would seem to be complete
        raise _Interrupted(session.watch.cut)


def _request(
    part: _Part, session: requests.Session, timeout: tuple[float, float]
) -> requests.Response:
    """Return the answer at the end of all redirects; its body is not read yet."""
    # The file as it is: sizes and ranges are those of its own bytes.
    headers = {"Accept-Encoding": "identity", **part.headers()}
    url = part.url
    with _server_errors(part.url):
        for _ in range(MOST_REDIRECTS):
            response = session.get(url, headers=headers, stream=True, timeout=timeout)
            if not response.is_redirect:
                return response
            response.close()
            url = urljoin(url, response.headers["Location"])
    raise UnreachableError(
        f"{part.url} cannot be downloaded (more than {MOST_REDIRECTS} redirects)"
    )


def _body(response: requests.Response) -> Iterator[bytes]:
    with _server_errors(response.url):
        yield from response.raw.stream(CHUNK_BYTES, decode_content=False)


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
    """Raise as the server's fault what the libraries cannot read in an answer."""
    try:
        yield
    except UserError:
        raise
    except _BROKEN as error:
        raise _Interrupted(_reason(error)) from None
    except Exception as error:
        raise UnreachableError(f"{_short(url)} cannot be downloaded ({_reason(error)})") from error


def _short(text: object) -> str:
    """Return a text of a server's, for a message."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[:201])
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def _require_success(response: requests.Response) -> None:
    status = f"{response.status_code} {_short(response.reason)}"
    if response.status_code in _ABSENT:
        raise AbsentError(f"{_short(response.url)} is not available ({status})")
    if response.status_code in _BUSY:
        raise _Interrupted(f"the server answers {status}")
    if response.status_code not in (requests.codes.ok, requests.codes.partial):
        raise UnreachableError(f"{_short(response.url)} cannot be downloaded ({status})")


def _reason(error: Exception) -> str:
    """Return the innermost reason, without the names of the objects around it."""
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return _short(str(inner).rpartition("): ")[2] or type(error).__name__)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
