"""Files over HTTP: resumed, tried again, checked, and in place only when whole."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from utils.errors import UserError
from utils.files import write_json

CHUNK_BYTES = 1 << 20
# Worth another try: the server is busy, or something between it and us is.
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT = frozenset({403, 404, 410})  # 403: what some stores say of a file they lack
_BROKEN = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


class UnreachableError(UserError):
    """The server does not answer, or refuses."""


class AbsentError(UserError):
    """The server answers, but does not give the file."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to put up with a bad connection.

    Attributes:
        retries: further attempts after one that brought nothing new.
        wait: seconds before the first of them; it doubles each time.
        timeout: seconds to connect, and to wait for the next bytes.
    """

    retries: int = 4
    wait: float = 0.5
    timeout: tuple[float, float] = (10.0, 60.0)


class _Interrupted(Exception):  # noqa: N818 – no error yet: it is tried again
    """An attempt ended early."""


class _Part:
    """What has come of a file so far, ``<path>``, and of which version of it, ``<path>.json``."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self._note = path.with_name(f"{path.name}.json")
        self._version = self._read_note()
        self.size = path.stat().st_size if self._version and path.exists() else 0

    def _read_note(self) -> dict:
        """What is known of the version; nothing if the file came from elsewhere."""
        try:
            version = json.loads(self._note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return version if version.get("url") == self.url else {}

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, where the server told."""
        return self._version.get("total")

    def headers(self) -> dict[str, str]:
        """Ask for the rest; for everything, if the server has another version by now."""
        if not self.size:
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        if self._version.get("validator"):
            headers["If-Range"] = self._version["validator"]
        return headers

    def accept(self, response: requests.Response) -> None:
        """Keep what is there if the response goes on from it, else begin anew."""
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
            self.path.touch()
            write_json(self._note, self._version)

    def write(self, chunks: Iterator[bytes]) -> None:
        """Append to what has been kept."""
        with (
            self.path.open("r+b") as file,
            tqdm(
                desc=self.path.stem,
                total=self.total,
                initial=self.size,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as progress,
        ):
            file.truncate(self.size)
            file.seek(self.size)
            for chunk in chunks:
                file.write(chunk)
                self.size += len(chunk)
                progress.update(len(chunk))

    def discard(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._version, self.size = {}, 0

    def finish(self, target: Path) -> None:
        """Put the file in place."""
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Where the body starts, and bytes of the whole file."""
    if response.status_code == requests.codes.partial:
        span, _, total = response.headers.get("Content-Range", "").rpartition("/")
        start = span.removeprefix("bytes").strip().partition("-")[0]
        if not start.isdigit():
            raise _Interrupted("an answer without a usable Content-Range")
        return int(start), int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: requests.Response) -> str | None:
    """What tells one version of the file from another; weak tags must not be used for ranges."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def download(
    url: str, target: Path, sha256: str | None = None, patience: Patience | None = None
) -> None:
    """Download a file unless it is there.

    What has come so far lies beside, ``<name of the file at url>.part``, and is gone on from
    after a broken connection, a kill, or another day.

    Args:
        url: where it is.
        target: where it goes.
        sha256: its checksum, if known.
        patience: with the connection.

    Raises:
        UnreachableError: the server does not answer, or refuses.
        AbsentError: it does not give this file.
        UserError: the checksum is wrong, twice.
    """
    if target.exists():
        return
    part = _Part(target.with_name(f"{url.rpartition('/')[2]}.part"), url)
    for _ in range(2):
        _receive(part, patience or Patience())
        found = sha256 and file_sha256(part.path)
        if found == sha256:
            part.finish(target)
            return
        part.discard()  # it may have been resumed wrongly: once more, from the start
    raise UserError(
        f"{url} has the SHA-256 {found} instead of {sha256}: it is damaged at its source"
    )


def _receive(part: _Part, patience: Patience) -> None:
    """Attempt until the part is the whole file."""
    failures, most = 0, part.size
    while True:
        try:
            return _attempt(part, patience)
        except _Interrupted as error:
            # Only bytes never had before count as progress: a server may break at the same place.
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures > patience.retries:
                raise UnreachableError(f"{part.url} cannot be downloaded ({error})") from None
            wait = patience.wait * 2 ** (failures - 1)
            print(f"{part.url}: {error}; again in {wait:g} s", flush=True)
            time.sleep(wait)


def _attempt(part: _Part, patience: Patience) -> None:
    if part.size and part.size == part.total:
        return
    # The file as it is: sizes and ranges are those of its own bytes.
    headers = {"Accept-Encoding": "identity", **part.headers()}
    try:
        with requests.get(
            part.url, headers=headers, stream=True, timeout=patience.timeout
        ) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                part.discard()
                raise _Interrupted("the file is shorter than what came of it")
            _require_success(response)
            part.accept(response)
            part.write(response.raw.stream(CHUNK_BYTES, decode_content=False))
    except _BROKEN as error:
        raise _Interrupted(_reason(error)) from None
    except requests.RequestException as error:
        raise UnreachableError(f"{part.url} cannot be downloaded ({error})") from None
    if part.total is not None and part.size != part.total:
        raise _Interrupted(f"only {part.size} of {part.total} bytes came")


def _require_success(response: requests.Response) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code in _ABSENT:
        raise AbsentError(f"{response.url} cannot be had ({status})")
    if response.status_code in _BUSY:
        raise _Interrupted(f"the server answers {status}")
    if response.status_code not in (requests.codes.ok, requests.codes.partial):
        raise UnreachableError(f"{response.url} cannot be downloaded ({status})")


def _reason(error: Exception) -> str:
    """The innermost reason, without the names of the objects it went through."""
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return str(inner).rpartition("): ")[2] or type(error).__name__


def file_sha256(path: Path) -> str:
    """Checksum of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
