"""Fingerprints of large files: size and a hash of both ends, independent of dates."""

import hashlib
import os
from pathlib import Path

import msgspec

END_BYTES = 1 << 20  # that are hashed at each end of a file


class Fingerprint(msgspec.Struct, frozen=True):
    """Size, dates and hash of a file.

    Attributes:
        size: in bytes.
        modified: ``st_mtime_ns``, which a copy may keep.
        changed: ``st_ctime_ns``, which cannot be set.
        sha256: of its first and its last megabyte.
    """

    size: int
    modified: int
    changed: int
    sha256: str

    def fits(self, path: Path) -> bool:
        """Return whether the file has the same content; it is read only if a date has changed.

        Raises:
            OSError: it cannot be read.
        """
        stat = path.stat()
        if stat.st_size != self.size:
            return False
        untouched = (stat.st_mtime_ns, stat.st_ctime_ns) == (self.modified, self.changed)
        return untouched or _hash_of_ends(path, stat.st_size) == self.sha256


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    digest = _hash_of_ends(path, stat.st_size)
    return Fingerprint(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest)


def file_state(path: Path) -> tuple[int, ...]:
    """Return values that tell whether a file changes while it is read; () if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _hash_of_ends(path: Path, size: int) -> str:
    """Return the hash of both ends, or of all of a file of at most two megabytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(END_BYTES, size - END_BYTES), os.SEEK_SET)
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()
