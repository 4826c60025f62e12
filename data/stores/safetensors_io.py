"""Arrays by id in a folder of safetensors files, written completely or not at all."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data.stores.build_folder import FolderWriter
from data.stores.lmdb_environment import RESTORE
from utils.errors import UserError, shorten

_FILE_BYTES = 256 << 20  # of one file: what a writer holds in memory


class SafetensorsReader:
    """Ids and arrays of all files in a folder, read as with
    :class:`data.stores.lmdb_environment.LmdbReader`.

    Files are mapped into memory: only the ids are held, and a forked child may continue to read.

    Raises:
        UserError: there are no files, or one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file_of: dict[str, Any] | None = None
        self._open()

    def _open(self) -> dict[str, Any]:
        """Return {id: opened file}."""
        if self._file_of is None:
            files = sorted(self.path.glob("*.safetensors"))
            if not files:
                raise UserError(f"{self.path} has no *.safetensors: fix the path, or build it")
            self._file_of = {}
            for file in files:
                try:
                    arrays = safe_open(file, "numpy")
                except (SafetensorError, OSError) as error:
                    text = f"{file} is damaged or cut short ({error}); {RESTORE}"
                    raise UserError(text) from None
                self._file_of |= dict.fromkeys(arrays.keys(), arrays)
        return self._file_of

    @contextmanager
    def value(self, id_: str) -> Iterator[np.ndarray | None]:
        """Yield the array of ``id_``, or None if absent."""
        arrays = self._open().get(id_)
        try:
            value = None if arrays is None else arrays.get_tensor(id_)
        except (SafetensorError, TypeError, ValueError, OSError) as error:  # a type NumPy lacks
            raise UserError(
                f"{self.path}: {id_!r} cannot be read ({shorten(error)}); {RESTORE}"
            ) from None
        yield value

    def __contains__(self, id_: str) -> bool:
        return id_ in self._open()

    def __len__(self) -> int:
        return len(self._open())

    def keys(self) -> Iterator[str]:
        """Return all ids, in the order of their UTF-8 bytes."""
        return iter(sorted(self._open(), key=str.encode))

    def first_id(self) -> str:
        """Return the first of :meth:`keys`; UserError if there are none."""
        for id_ in self.keys():
            return id_
        raise UserError(f"{self.path} holds no records; build it again")

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        self._file_of = None


class SafetensorsWriter(FolderWriter):
    """Write arrays by id: see :class:`data.stores.build_folder.FolderWriter`.

    Raises:
        UserError: an id is empty, or occurs twice.
    """

    def begin(self, stack: ExitStack) -> None:
        """See :class:`data.stores.build_folder.FolderWriter`."""
        self._ids: set[str] = set()
        self._pending: dict[str, np.ndarray] = {}
        self._pending_bytes = self._num_files = 0

    def put_value(self, id_: str, value: np.ndarray) -> None:
        """Add an array."""
        if not id_ or id_ == "__metadata__":  # reserved by the format
            raise UserError(f"{self.path}: {id_!r} cannot be an id; rename it")
        if id_ in self._ids:
            raise UserError(f"{self.path}: the id {id_!r} occurs twice; rename one")
        self._ids.add(id_)
        self._pending[id_] = np.ascontiguousarray(value)
        self._pending_bytes += value.nbytes
        if self._pending_bytes >= _FILE_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is pending."""
        if self._pending or not self._num_files:
            self._flush()

    def _flush(self) -> None:
        save_file(self._pending, self.folder / f"{self._num_files:05d}.safetensors")
        self._num_files += 1
        self._pending, self._pending_bytes = {}, 0
