"""Large files known again: by size and the hash of both ends, whatever became of their date."""

import hashlib
import os
from pathlib import Path

import msgspec

END_BYTES = 1 << 20  # that are hashed at each end of a file


class Fingerprint(msgspec.Struct, frozen=True):
    """What is known of a file.

    Attributes:
        size: in bytes.
        modified: when its content was changed last, as it says, in nanoseconds.
        changed: when it came here or was changed last, which nobody can set (``st_ctime_ns``).
        sha256: of its first and its last megabyte.
    """

    size: int
    modified: int
    changed: int
    sha256: str

    def fits(self, path: Path) -> bool:
        """Return whether the file has the same content; its date may be another.

        What neither was written nor came here since is not read for that.

        Raises:
            OSError: it cannot be read.
        """
        known = path.stat()
        if known.st_size != self.size:
            return False
        untouched = (known.st_mtime_ns, known.st_ctime_ns) == (self.modified, self.changed)
        return untouched or _hash_of_ends(path, known.st_size) == self.sha256


def fingerprint(path: Path) -> Fingerprint:
    """Return what a file is known by.

    Raises:
        OSError: it cannot be read.
    """
    known = path.stat()
    digest = _hash_of_ends(path, known.st_size)
    return Fingerprint(known.st_size, known.st_mtime_ns, known.st_ctime_ns, digest)


def file_state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file while it is read; nothing for one that is gone."""
    try:
        known = path.stat()
    except OSError:
        return ()
    return known.st_ino, known.st_size, known.st_mtime_ns


def _hash_of_ends(path: Path, size: int) -> str:
    """All of a file of at most two megabytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(END_BYTES, size - END_BYTES), os.SEEK_SET)
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()
