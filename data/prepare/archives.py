"""Unpack archives, and put folders in place, without leaving the folder or half of one behind."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from data.stores.build_folder import build_folder
from utils.errors import UserError

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an empty one
_UNPACKED = ".unpacked"


class ArchiveError(UserError):
    """An archive is damaged, or asks for what no archive of data needs."""


class _Guard:
    """Refuses members that would lie, point or be written outside the folder.

    Names alone decide. A link may only go up first, by fewer levels than it lies deep, and then
    down, and nothing may lie beneath a link: so wherever links lead, it is within the folder.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._links: set[PurePosixPath] = set()

    def name(self, name: str) -> PurePosixPath:
        """The name of a member."""
        path = PurePosixPath(name)
        if name.startswith(("/", "\\")) or ".." in path.parts or "\0" in name:
            raise self._refusal(name, "lies outside the folder")
        if not self._links.isdisjoint(path.parents):
            raise self._refusal(name, "lies beneath a link")
        return path

    def link(self, name: PurePosixPath, points_to: str, depth: int) -> None:
        """A link that may go up ``depth`` levels."""
        parts = PurePosixPath(points_to).parts
        up = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
        if points_to.startswith("/") or up > depth or ".." in parts[up:]:
            raise self._refusal(str(name), f"points outside the folder, to {points_to!r}")
        self._links.add(name)

    def _refusal(self, name: str, problem: str) -> ArchiveError:
        return ArchiveError(f"{self._archive}: the member {name!r} {problem}; nothing is unpacked")

    def tar_member(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        """A filter of :meth:`tarfile.TarFile.extractall`, on top of Python's own."""
        name = self.name(member.name)
        if member.issym():
            self.link(name, member.linkname, depth=len(name.parents) - 1)
        elif member.islnk():  # named from the archive's root
            self.link(name, member.linkname, depth=0)
        elif not (member.isfile() or member.isdir()):
            raise self._refusal(member.name, "is neither a file nor a folder")
        return tarfile.data_filter(member, folder)

    def zip_member(self, member: zipfile.ZipInfo) -> None:
        """The same for a zip file, whose links Python does not make."""
        self.name(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refusal(member.filename, "is neither a file nor a folder")


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar (compressed or not) or zip file into an empty folder.

    Raises:
        ArchiveError: it is neither, damaged, or has a member that would escape from ``folder``.
    """
    guard = _Guard(archive)
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    guard.zip_member(member)
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter=guard.tar_member)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is damaged, or no archive ({error})") from None


def _is_zip(archive: Path) -> bool:
    """By its beginning: a tar file may end in a checkpoint, which is a zip file."""
    with archive.open("rb") as file:
        return file.read(4) in _ZIP


def put_folder(
    source: Path,
    target: Path,
    check: Callable[[Path], None],
    replaceable: Callable[[Path], bool],
) -> None:
    """Make the folder ``target`` from an archive of it, or from such a folder.

    An archive may hold the folder itself or its content. What it holds is checked before it takes
    its place.

    Args:
        source: archive or folder.
        target: the folder to be.
        check: raises :class:`~utils.errors.UserError` for a folder that is not what it should be.
        replaceable: whether a folder that is there may be replaced.

    Raises:
        ArchiveError: see :func:`extract`.
        UserError: ``check`` refuses the content, or ``target`` is there and not replaceable.
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


def _content(unpacked: Path, archive: Path, check: Callable[[Path], None]) -> Path:
    """The outermost folder that ``check`` is content with."""
    folder, problems = unpacked, []
    while True:
        try:
            check(folder)
            return folder
        except UserError as error:
            problems.append(str(error).replace(f"{unpacked}/", ""))
        inner = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MAC"))]
        if len(inner) != 1 or not inner[0].is_dir():
            raise ArchiveError(f"{archive} does not hold what it should: {problems[-1]}")
        folder = inner[0]


def _copy(source: str, target: str) -> None:
    """Databases are never written in place, so that the file may be shared; others may be."""
    if Path(source).name == "data.mdb":
        link_or_copy(source, target)
    else:
        shutil.copy2(source, target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """The file ``source`` under another name: without a second copy of it where that can be."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
