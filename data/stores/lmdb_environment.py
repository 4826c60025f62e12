"""LMDB environments: opened read-only after checks, written completely or not at all."""

import contextlib
import faulthandler
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lmdb

from data.stores.build_folder import FolderWriter
from utils.errors import UserError, brief
from utils.processes import noted_reading

RESTORE = "copy, download or build this database again"

_MAX_KEY_BYTES = 511  # LMDB's own limit
_FIRST_MAP_BYTES = 64 << 20
_BATCH_BYTES = 32 << 20

# py-lmdb refuses to open a file twice in a process, so all readers of a file (device and inode)
# share an environment.
_environments: "weakref.WeakValueDictionary[tuple[int, int], _Environment]" = (
    weakref.WeakValueDictionary()
)
_lock = threading.RLock()
# A fork while another thread holds the lock must not leave it locked in the child.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


class _Environment:
    """A read-only LMDB environment that is reopened in a forked child."""

    def __init__(self, folder: Path, readahead: bool) -> None:
        self._folder, self._readahead = folder, readahead
        self._opened = _open(self._folder, self._readahead)
        self._pid = os.getpid()

    def begin(self) -> lmdb.Transaction:
        """Return a read transaction; its values are views that are valid until it ends."""
        if self._pid != os.getpid():
            with _lock:
                if self._pid != os.getpid():
                    self._opened.close()  # inherited: py-lmdb would refuse to open a second one
                    self._opened = _open(self._folder, self._readahead)
                    self._pid = os.getpid()
        return self._opened.begin(buffers=True)


def _open(folder: Path, readahead: bool) -> lmdb.Environment:
    path = folder / "data.mdb"
    if not faulthandler.is_enabled():  # a damaged page kills the process: show where
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # stderr is no file
            faulthandler.enable()
    try:
        environment = lmdb.open(
            str(folder), readonly=True, create=False, lock=False, readahead=readahead
        )
        # Reading a page past the end of a mapped file kills the process: check the size first.
        expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except (lmdb.Error, OSError, OverflowError) as error:
        raise UserError(f"{path} cannot be opened ({error}); {RESTORE}") from None
    actual = path.stat().st_size
    if actual < expected:
        environment.close()
        raise UserError(f"{path} is cut short ({actual} of {expected} bytes); {RESTORE}")
    return environment


def _shared_environment(folder: Path, readahead: bool) -> _Environment:
    try:
        stat = (folder / "data.mdb").stat()
    except OSError:
        raise UserError(
            f"{folder} is no database (it has no data.mdb): fix the path, or build it"
        ) from None
    with _lock:
        environment = _environments.get((stat.st_dev, stat.st_ino))
        if environment is None:
            environment = _Environment(folder, readahead)
            _environments[stat.st_dev, stat.st_ino] = environment
        return environment


def _encode_key(id_: str) -> bytes | None:
    """Return the id as an LMDB key; None if it cannot be one."""
    try:
        key = id_.encode("utf-8")
    except UnicodeEncodeError:  # half a character, or a file's name that is no text
        return None
    return key if 0 < len(key) <= _MAX_KEY_BYTES else None


class LmdbReader:
    """Ids and values of one read-only environment.

    Opened lazily and at most once per process and file, by any number of readers and threads; a
    forked child opens its own.

    Args:
        path: the environment's folder.
        readahead: let the operating system read ahead, which is faster for large values; the first
            of several readers decides.

    Raises:
        UserError: ``data.mdb`` is missing, is no LMDB file or is cut short.
    """

    def __init__(self, path: Path, readahead: bool = False) -> None:
        self.path = path
        self._readahead = readahead
        self._shared: _Environment | None = None
        _shared_environment(path, readahead)  # to check it; closed unless another reader has it

    def _begin(self) -> lmdb.Transaction:
        shared = self._shared  # another thread may close this reader meanwhile
        if shared is None:
            shared = self._shared = _shared_environment(self.path, self._readahead)
        return shared.begin()

    @contextmanager
    def value(self, id_: str) -> Iterator[bytes | memoryview | None]:
        """Yield the value of ``id_`` (None if absent), not to be used after the block."""
        key = _encode_key(id_)
        with noted_reading(f"{id_!r} of {self.path}"), self._begin() as transaction:
            try:
                value = None if key is None else transaction.get(key)
            except lmdb.Error as error:
                raise UserError(f"{self.path}: {id_!r} is damaged ({error}); {RESTORE}") from None
            yield value

    def __contains__(self, id_: str) -> bool:
        with self.value(id_) as value:
            return value is not None

    def __len__(self) -> int:
        with self._all_ids() as transaction:
            return transaction.stat()["entries"]

    def keys(self) -> Iterator[str]:
        """Return all ids, in the order of their UTF-8 bytes."""
        with self._all_ids() as transaction:
            return iter(
                [bytes(key).decode() for key in transaction.cursor().iternext(values=False)]
            )

    @contextmanager
    def _all_ids(self) -> Iterator[lmdb.Transaction]:
        try:
            with noted_reading(f"the ids of {self.path}"), self._begin() as transaction:
                yield transaction
        except (lmdb.Error, UnicodeDecodeError) as error:
            raise UserError(f"the ids of {self.path} are damaged ({error}); {RESTORE}") from None

    def first_id(self) -> str:
        """Return the first of :meth:`keys`; UserError if there are none."""
        with self._all_ids() as transaction, transaction.cursor() as cursor:
            if not cursor.first():
                raise UserError(f"{self.path} holds no records; build it again")
            return bytes(cursor.key()).decode()

    def close(self) -> None:
        """Close the environment; a later read opens it again."""
        self._shared = None


class LmdbWriter(FolderWriter):
    """Write one environment: see :class:`data.stores.build_folder.FolderWriter`.

    Raises:
        UserError: an id is unusable or occurs twice.
    """

    def begin(self, stack: ExitStack) -> None:
        """Open the environment."""
        self._map_bytes = _FIRST_MAP_BYTES
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        # No other process sees the folder, and finish() syncs: no locks, no sync per batch.
        self._environment = lmdb.open(
            str(self.folder), map_size=self._map_bytes, lock=False, sync=False, metasync=False
        )
        stack.callback(self._environment.close)

    def put_value(self, id_: str, value: bytes) -> None:
        """Add an encoded value."""
        key = _encode_key(id_)
        if key is None:
            raise UserError(
                f"{self.path}: {brief(id_)} cannot be an id (1 to {_MAX_KEY_BYTES} bytes of "
                "UTF-8); rename it"
            )
        self._pending.append((key, value))
        self._pending_bytes += len(key) + len(value)
        if self._pending_bytes >= _BATCH_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is pending."""
        self._flush()
        self._environment.sync(True)

    def _flush(self) -> None:
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        if not transaction.put(key, value, overwrite=False):
                            id_ = key.decode()
                            raise UserError(f"{self.path}: the id {id_!r} occurs twice; rename one")
                self._pending.clear()
            except lmdb.MapFullError:
                self._map_bytes *= 2
                self._environment.set_mapsize(self._map_bytes)
        self._pending_bytes = 0
