"""Unpack archives safely, and put folders in place whole or not at all."""

import errno
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Self

from data.stores.build_folder import build_folder
from utils.errors import UserError

_CHUNK_BYTES = 1 << 20
_MOST_MEMBERS = 100_000
_DEEPEST, _LONGEST_NAME = 32, 1024  # levels, bytes
_HEADER_BYTES = 1 << 20  # of a tar member that only describes the next one
# Databases may be packed small; a hundred times is a bomb.
_MOST_GROWTH, _ALWAYS_ALLOWED = 100, 1 << 30
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1
# Errors of the system, not of the archive.
_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an empty one
_UNPACKED = ".unpacked"


class ArchiveError(UserError):
    """An archive is damaged, or holds what no archive of data needs."""


class _Guard:
    """Refuses members that would be written or point outside the folder, and archive bombs.

    Names alone decide. A link may only go up first, by fewer levels than it lies deep, and then
    down, and nothing may lie beneath a link: so all links lead to places within the folder.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._links: set[PurePosixPath] = set()
        self._files: set[PurePosixPath] = set()
        self._members = self._bytes = 0
        self._most_bytes = max(_MOST_GROWTH * archive.stat().st_size, _ALWAYS_ALLOWED)

    def count(self, name: str, size: int) -> None:
        """Count a member, or further bytes, before they are unpacked."""
        self._members += 1
        self._bytes += size
        if self._bytes > self._most_bytes:
            raise self._refusal(name, f"makes more than {self._most_bytes} bytes of the archive")
        if self._members > _MOST_MEMBERS:
            raise self._refusal(name, f"is one of more than {_MOST_MEMBERS}")

    def check_name(self, name: str) -> PurePosixPath:
        """Return the path of a member; ArchiveError if it is not one within the folder."""
        path = PurePosixPath(name)
        if name.startswith(("/", "\\")) or ".." in path.parts or "\0" in name:
            raise self._refusal(name, "lies outside the folder")
        if len(path.parts) > _DEEPEST or len(os.fsencode(name)) > _LONGEST_NAME:
            raise self._refusal(
                name, f"lies {len(path.parts)} levels deep, or its name is too long"
            )
        if not self._links.isdisjoint(path.parents):
            raise self._refusal(name, "lies beneath a link")
        return path

    def check_link(self, name: PurePosixPath, points_to: str, depth: int) -> None:
        """Check a link that may go up ``depth`` levels."""
        parts = PurePosixPath(points_to).parts
        up = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
        if points_to.startswith("/") or up > depth or ".." in parts[up:]:
            raise self._refusal(str(name), f"points outside the folder, to {points_to!r}")
        self._links.add(name)

    def _refusal(self, name: str, problem: str) -> ArchiveError:
        shown = repr(name if len(name) <= 100 else f"{name[:100]}…")
        return ArchiveError(f"{self._archive}: the member {shown} {problem}; nothing is unpacked")

    def tar_member(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        """Check a tar member: a filter of :meth:`tarfile.TarFile.extractall`, before Python's."""
        name = self.check_name(member.name)
        self.count(member.name, member.size)
        if member.issym():
            self.check_link(name, member.linkname, depth=len(name.parents) - 1)
        elif member.islnk():  # named from the archive's root
            self.check_link(name, member.linkname, depth=0)
            if PurePosixPath(member.linkname) not in self._files:
                raise self._refusal(member.name, "links to a file that is not before it")
        elif not (member.isfile() or member.isdir()):
            raise self._refusal(member.name, "is neither a file nor a folder")
        if not (member.issym() or member.isdir()):
            self._files.add(name)
        return tarfile.data_filter(member, folder)

    def zip_member(self, member: zipfile.ZipInfo) -> None:
        """Check a zip member; Python makes no links of them."""
        self.check_name(member.filename)
        self.count(member.filename, member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise self._refusal(member.filename, "is encrypted")
        if (method := member.compress_type) not in _ZIP_METHODS:
            raise self._refusal(member.filename, f"is packed by the unknown method {method}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refusal(member.filename, "is neither a file nor a folder")


class _Header(tarfile.TarInfo):
    """A tar header. Where one is damaged or missing, tarfile would take that for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # no stub: zeros, the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and header.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar (compressed or not) or zip file into an empty folder.

    Raises:
        ArchiveError: it is neither, damaged, a bomb, or has a member that would escape from
            ``folder``, whose content cannot be used then.
    """
    guard = _Guard(archive)
    try:
        with archive.open("rb") as file:  # a tar file may end in a checkpoint, which is a zip file
            is_zip = file.read(4) in _ZIP
        if is_zip:
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    guard.zip_member(member)
                packed.extractall(folder)
        else:
            with tarfile.open(archive, tarinfo=_Header) as packed:
                packed.extractall(folder, filter=guard.tar_member)
                while chunk := packed.fileobj.read(_CHUNK_BYTES):  # up to the checksum
                    guard.count("the end", len(chunk))
    except ArchiveError:
        raise
    except Exception as error:  # a damaged file makes the decoders raise anything
        if isinstance(error, OSError) and error.errno in _SYSTEM:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArchiveError(f"{archive} is damaged, or no archive ({reason})") from error


def put_folder(
    source: Path,
    target: Path,
    check: Callable[[Path], object],
    replaceable: Callable[[Path], bool],
) -> None:
    """Make the folder ``target`` from an archive of it, or from such a folder.

    An archive may hold the folder itself or its content, which is checked before it is put in
    place.

    Args:
        source: archive or folder.
        target: the folder to make.
        check: raises :class:`~utils.errors.UserError` for a folder that is not what it should be.
        replaceable: whether an existing folder may be replaced.

    Raises:
        ArchiveError: see :func:`extract`.
        UserError: ``check`` refuses the content, or ``target`` exists and is not replaceable.
    """
    with build_folder(target, force=True, replaceable=replaceable) as folder:
        if source.is_dir():
            shutil.copytree(source, folder, copy_function=_copy, dirs_exist_ok=True)
            check(folder)
            return
        unpacked = folder / _UNPACKED
        unpacked.mkdir()
        extract(source, unpacked)
        for entry in _content(unpacked, source, check).iterdir():
            entry.rename(folder / entry.name)
        shutil.rmtree(unpacked)


def _content(unpacked: Path, archive: Path, check: Callable[[Path], object]) -> Path:
    """Return the outermost folder that ``check`` accepts."""
    folder = unpacked
    while True:
        try:
            check(folder)
            return folder
        except UserError as error:
            problem = str(error).replace(f"{unpacked}/", "")
        inner = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MAC"))]
        if len(inner) != 1 or not inner[0].is_dir():
            raise ArchiveError(f"{archive} does not hold what it should: {problem}")
        folder = inner[0]


def _copy(source: str, target: str) -> None:
    """Copy a file; databases, which are never written in place, may share it."""
    if Path(source).name == "data.mdb":
        link_or_copy(source, target)
    else:
        shutil.copy2(source, target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make the file ``source`` appear at ``target``, too: by a hard link where that is possible."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
