"""Mirrors of the published files: a server, or a local folder of the same layout."""

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from urllib.parse import quote, unquote, urlsplit

from data.prepare.download import AbsentError, RetryPolicy, UnreachableError, download, file_sha256
from utils.errors import UserError

PUBLISHED_ADDRESS = "https://convaisharables.blob.core.windows.net/hero"
ADDRESS_VARIABLE = "HERO_BLOB_URL"
CHECKSUMS = "SHA256SUMS"
CHECKSUMS_BYTES = 16 << 20
ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
LAYOUT = (
    "txt_db/<name>.db.tar, video_db/<dataset>.tar, pretrained/<file>, finetune/<run>.tar "
    f"(docs/DATA.md lists all names), and perhaps {CHECKSUMS}"
)


class SourceGoneError(UserError):
    """No file is available from an address."""

    def __init__(self, address: str, reason: object) -> None:
        super().__init__(
            f"no file is available from {address} ({reason}); set {ADDRESS_VARIABLE} to the "
            f"address of a mirror (https://…, http://…) or to a local folder that holds {LAYOUT}"
        )


class HttpMirror:
    """A server that has published files by name, e.g. ``txt_db/tvr_val.db.tar``."""

    is_local = False

    def __init__(self, address: str, retry: RetryPolicy | None = None) -> None:
        self.address = address.rstrip("/")
        self._retry = retry
        self._lock = Lock()
        self._has_something = False
        self._gone: SourceGoneError | None = None

    def _known_checksums(self) -> dict[str, str]:
        """Return checksums by name; fail at once if the server was found unavailable before."""
        with self._lock:
            if self._gone is not None:
                raise self._gone
            try:
                return self._checksums
            except UserError as error:
                self._gone = SourceGoneError(self.address, error)
                raise self._gone from None

    @cached_property
    def _checksums(self) -> dict[str, str]:
        with TemporaryDirectory() as folder:
            target = Path(folder) / CHECKSUMS
            try:
                url = self._url(CHECKSUMS)
                download(url, target, retry=self._retry, most_bytes=CHECKSUMS_BYTES)
            except AbsentError:
                return {}
            self._has_something = True
            return read_checksums(target)

    def _url(self, name: str) -> str:
        return f"{self.address}/{quote(name)}"

    def fetch(self, name: str, target: Path, packed: bool) -> Path:
        """Get a file, or an archive ``<name>.tar``, ``<name>.zip`` …, and check its checksum.

        Returns:
            its path: ``target``, or within a local mirror, where an archive may be unpacked
            already.

        Raises:
            SourceGoneError: no file is available from the mirror.
            UserError: the mirror lacks the file, or it is damaged.
        """
        checksums = self._known_checksums()
        # Names in the list first: fewer requests.
        names = sorted(_file_names(name, packed), key=lambda name: name not in checksums)
        try:
            for file in names:
                with suppress(AbsentError):
                    download(self._url(file), target, checksums.get(file), self._retry)
                    self._has_something = True
                    return target
            raise AbsentError(f"{self.address} has no {' or '.join(names)}; see docs/DATA.md")
        except (AbsentError, UnreachableError) as error:
            if self._has_something:
                raise
            raise SourceGoneError(self.address, error) from None


class FolderMirror:
    """A local folder; archives in it may be unpacked already."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder

    @cached_property
    def _checksums(self) -> dict[str, str]:
        path = self._folder / CHECKSUMS
        return read_checksums(path) if path.is_file() else {}

    def fetch(self, name: str, target: Path, packed: bool) -> Path:
        """See :meth:`HttpMirror.fetch`."""
        del target
        names = [*_file_names(name, packed), name]
        path = next((self._folder / name for name in names if (self._folder / name).exists()), None)
        if path is not None:
            self._check(path)
            return path
        if not any(self._folder.glob("*/*")):
            raise SourceGoneError(self.address, "it holds no files")
        raise UserError(f"{self.address} has no {' or '.join(names)}; see docs/DATA.md")

    def _check(self, path: Path) -> None:
        expected = self._checksums.get(path.relative_to(self._folder).as_posix())
        found = file_sha256(path) if expected and path.is_file() else expected
        if found != expected:
            raise UserError(f"{path} has the SHA-256 {found} instead of {expected}: it is damaged")


Mirror = HttpMirror | FolderMirror


def open_mirror(address: str | None = None, retry: RetryPolicy | None = None) -> Mirror:
    """Return the mirror at ``address``; by default the one that ``HERO_BLOB_URL`` names.

    Args:
        address: of a server or a local folder.
        retry: limits of downloads from a server.

    Raises:
        SourceGoneError: it is a local folder that does not exist.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE) or PUBLISHED_ADDRESS
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return HttpMirror(address, retry)
    folder = Path(unquote(parts.path) if parts.scheme == "file" else address).expanduser()
    if not folder.is_dir():
        raise SourceGoneError(address, "there is no such folder")
    return FolderMirror(folder)


def _file_names(name: str, packed: bool) -> list[str]:
    return [f"{name}{ending}" for ending in ARCHIVE_ENDINGS] if packed else [name]


def read_checksums(path: Path) -> dict[str, str]:
    """Return {name: SHA-256} of a file as ``sha256sum`` writes it.

    Raises:
        UserError: a line is something else, or the file is much too large.
    """
    if path.stat().st_size > CHECKSUMS_BYTES:
        raise UserError(f"{path} has more than {CHECKSUMS_BYTES} bytes: it is no list of checksums")
    checksums = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        digest, _, name = line.partition(" ")
        if not line.strip():
            continue
        if len(digest) != 64 or not set(digest.lower()) <= set("0123456789abcdef"):
            raise UserError(f"{CHECKSUMS}:{number} of the mirror is no line of sha256sum")
        checksums[name[1:].removeprefix("./")] = digest.lower()
    return checksums
