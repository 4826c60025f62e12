"""Text and frame-feature databases.

A text database is a folder with one LMDB environment (key: id as UTF-8, value: lz4 frame of a
msgpack map) and JSON side files. Frame features lie in ``<version>_<interval>`` (LMDB of
msgpack-numpy maps), ``<version>_<interval>_compressed`` (LMDB of npz bytes) or
``<version>_<interval>_safetensors``, with ``id2nframe.json`` one level above.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np
import torch

from data.stores.build_folder import is_database
from data.stores.frame_counts import COUNTS_FILE, frame_counts
from data.stores.lmdb_environment import RESTORE, LmdbReader, LmdbWriter
from data.stores.safetensors_io import SafetensorsReader, SafetensorsWriter
from utils.errors import UserError
from utils.files import check_output, read_json, write_json

_HEAD_BYTES = 4096  # of a plain record: its keys, and the features' type and shape
NPZ_MAGIC = b"PK\x03\x04"  # how the bytes of every zip file begin


def pack_record(record: dict) -> bytes:
    """A text record as stored: lz4 frame of a msgpack map."""
    return lz4.frame.compress(msgpack.packb(record, use_bin_type=True))


def _unpack_record(value: memoryview) -> dict:
    record = msgpack.unpackb(lz4.frame.decompress(value), raw=False, strict_map_key=False)
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__} instead of a map")
    return record


class TextDb(LmdbReader):
    """One LMDB of lz4(msgpack) records with its JSON side files; read-only.

    Opened lazily and at most once per process and file, safe across forks and threads, picklable
    (by path).

    Attributes:
        path: the folder.
        meta: ``meta.json`` (the two parts of a caption database have theirs one level above).

    Raises:
        UserError: the folder, ``data.mdb`` or ``meta.json`` is missing, or the LMDB is cut short.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path))
        self.meta: dict = read_json(self._meta_path())
        self._sides: dict[str, Any] = {}

    def _meta_path(self) -> Path:
        for folder in (self.path, self.path.absolute().parent):
            if (folder / "meta.json").is_file():
                return folder / "meta.json"
        raise UserError(f"{self.path} has no meta.json; {RESTORE}")

    def __reduce__(self) -> tuple:
        return TextDb, (self.path,)

    def __getitem__(self, id_: str) -> dict:
        """The record of ``id_``.

        Raises:
            KeyError: no such id.
            UserError: the record is damaged.
        """
        with self.value(id_) as value:
            if value is None:
                raise KeyError(id_)
            try:
                return _unpack_record(value)
            except Exception as error:  # whatever the decoders trip over, the bytes are damaged
                raise UserError(
                    f"{self.path}: the record of {id_!r} is damaged ({error!r}); {RESTORE}"
                ) from error

    def has_side(self, name: str) -> bool:
        """Whether the side file ``name`` exists."""
        return (self.path / name).is_file()

    def side(self, name: str) -> Any:
        """The parsed side file ``name`` (e.g. ``"id2len.json"``), read once.

        Raises:
            UserError: it is missing or is no valid JSON.
        """
        if name not in self._sides:
            if not self.has_side(name):
                raise UserError(f"{self.path} has no {name}; {RESTORE}")
            self._sides[name] = read_json(self.path / name)
        return self._sides[name]


class TextDbWriter(LmdbWriter):
    """Build a text database beside ``path``; it appears there, whole, when the block succeeds.

    Raises:
        UserError: a database is there and ``force`` is not given; an id is unusable or not unique.
    """

    def put(self, id_: str, record: dict) -> None:
        """Add a record."""
        self.put_value(id_, pack_record(record))

    def write_side(self, name: str, value: Any, indent: int | None = None) -> None:
        """Write a JSON side file (``meta.json`` too)."""
        write_json(self.folder / name, value, indent)


class FeatureCodec(Protocol):
    """What a store holds of one video's features: the seam for another format."""

    suffix: str  # of the folder's name

    def encode(self, features: np.ndarray) -> Any:
        """What is stored of ``features`` (T, D), in their own precision."""

    def decode(self, value: Any) -> np.ndarray:
        """``features`` (T, D) as stored; damaged values raise any exception."""

    def rows(self, value: Any) -> int:
        """Return T of ``features``; damaged values raise any exception."""


def _decode_array(stored: dict) -> Any:
    """msgpack-numpy's object hook, without its kind of array that is a pickle."""
    if stored.get(b"kind") == b"O":
        raise ValueError("an array of Python objects")
    return msgpack_numpy.decode(stored)


def _find_key(unpacker: msgpack.Unpacker, key: str | bytes) -> None:
    """Go to the value of a map's ``key``; KeyError if it has none."""
    for _ in range(unpacker.read_map_header()):
        if unpacker.unpack() == key:
            return
        unpacker.skip()
    raise KeyError(key)


class PlainCodec:
    """msgpack-numpy map ``{"features": (T, D)}``."""

    suffix = ""

    def encode(self, features: np.ndarray) -> bytes:
        """See :class:`FeatureCodec`."""
        return msgpack.packb(
            {"features": features}, default=msgpack_numpy.encode, use_bin_type=True
        )

    def decode(self, value: memoryview) -> np.ndarray:
        """See :class:`FeatureCodec`."""
        return msgpack.unpackb(value, object_hook=_decode_array, raw=False)["features"]

    def rows(self, value: memoryview) -> int:
        """See :class:`FeatureCodec`; reads the record's head alone, if it is as published."""
        head = msgpack.Unpacker(raw=False)
        head.feed(value[:_HEAD_BYTES])
        try:
            _find_key(head, "features")
            _find_key(head, b"shape")
            return head.unpack()[0]
        except Exception:  # whatever the head is like, the whole record tells
            return len(self.decode(value))


class CompressedCodec:
    """The bytes of a zipped npz file with an entry ``features``; other entries are left alone."""

    suffix = "_compressed"

    def encode(self, features: np.ndarray) -> bytes:
        """See :class:`FeatureCodec`."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, features=features)
        return buffer.getvalue()

    def decode(self, value: memoryview) -> np.ndarray:
        """See :class:`FeatureCodec`."""
        with np.load(io.BytesIO(value), allow_pickle=False) as entries:
            return entries["features"]

    def rows(self, value: memoryview) -> int:
        """See :class:`FeatureCodec`."""
        return len(self.decode(value))


class ArrayCodec:
    """Arrays as they are, for safetensors files."""

    suffix = "_safetensors"

    def encode(self, features: np.ndarray) -> np.ndarray:
        """See :class:`FeatureCodec`."""
        return features

    def decode(self, value: np.ndarray) -> np.ndarray:
        """See :class:`FeatureCodec`."""
        return value

    def rows(self, value: np.ndarray) -> int:
        """See :class:`FeatureCodec`."""
        return len(value)


FeatureFormat = Literal["lmdb", "safetensors"]


def feature_codec(compressed: bool, format_: FeatureFormat = "lmdb") -> FeatureCodec:
    """The codec of a database.

    Raises:
        UserError: there is no such variant.
    """
    if format_ == "lmdb":
        return CompressedCodec() if compressed else PlainCodec()
    if compressed:
        raise UserError("only LMDB has a compressed variant; leave compression or safetensors out")
    return ArrayCodec()


def feature_db_path(
    folder: Path,
    version: str,
    interval: float,
    compressed: bool,
    format_: FeatureFormat = "lmdb",
) -> Path:
    """``folder``/``resnet_slowfast_1.5``, ``…_compressed``, ``…_safetensors``."""
    return folder / f"{version}_{interval:g}{feature_codec(compressed, format_).suffix}"


def find_feature_db(
    folder: Path,
    version: str,
    interval: float,
    compressed: bool,
    format_: FeatureFormat | None = None,
) -> tuple[Path, FeatureFormat]:
    """Return the database's folder and its format.

    A whole interval may be spelled ``…_2``, as published, or ``…_2.0``. LMDB, the published
    format, is taken unless there are safetensors files only.

    Raises:
        UserError: there is none; names those that are there.
    """
    formats: list[FeatureFormat] = ["lmdb"] if compressed else ["lmdb", "safetensors"]
    paths = []
    for one in [format_] if format_ else formats:
        path = feature_db_path(folder, version, interval, compressed, one)
        paths.append((path, one))
        if interval == int(interval):
            stem = f"{version}_{interval:g}"
            other = f"{version}_{interval:.1f}{path.name.removeprefix(stem)}"
            paths.append((folder / other, one))
    for is_there in (is_database, Path.is_dir):
        for found in paths:
            if is_there(found[0]):
                return found
    databases = sorted(database.name for database in filter(is_database, folder.glob("*")))
    there = f"{folder} holds {', '.join(databases) or 'no database'}"
    raise UserError(
        f"{paths[0][0]} does not exist ({there}); mend version, interval or compression"
    )


class FeatureDb:
    """Frame features of one data set, ``video_db/<dataset>/``; read-only.

    LMDB is read, as published, or safetensors files where there are these only. Opened lazily and
    at most once per process and file, safe across forks and threads, picklable.

    Args:
        folder: the data set's folder.
        version: feature extractors.
        interval: seconds per frame.
        compressed: read the npz variant.
        max_clip_len: frames past this many are cut; -1 keeps all.
        format_: of the database; None takes the one that is there.
        counts_folder: where numbers of frames are kept if there is no ``id2nframe.json``, and none
            can be written (see :func:`data.stores.frame_counts.frame_counts`).

    Attributes:
        path: the database's own folder.
        id2nframe: frames per video, before the cut; of a longer record, the first so many.
        interval: seconds per frame.
        compressed: whether records are npz.

    Raises:
        UserError: folder or database is missing, or a file is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        version: str = "resnet_slowfast",
        interval: float = 1.5,
        compressed: bool = False,
        max_clip_len: int = -1,
        format_: FeatureFormat | None = None,
        counts_folder: Path | None = None,
    ) -> None:
        variant = (folder, version, interval, compressed)
        self._arguments = (*variant, max_clip_len, format_, counts_folder)
        self.path, format_ = find_feature_db(Path(folder), *variant[1:], format_)
        self._codec = feature_codec(compressed, format_)
        self.compressed = compressed
        self.interval = interval
        self.max_clip_len = max_clip_len
        self._store = (LmdbReader if format_ == "lmdb" else SafetensorsReader)(self.path)
        self.id2nframe = frame_counts(self.path, self._store.keys, self._rows, counts_folder)

    def __reduce__(self) -> tuple:
        return FeatureDb, self._arguments

    def __contains__(self, vid: str) -> bool:
        return vid in self._store

    def __len__(self) -> int:
        return len(self._store)

    def keys(self) -> Iterator[str]:
        """All videos, in the order of their names' UTF-8 bytes."""
        return self._store.keys()

    def close(self) -> None:
        """Let go of the files; a later read opens them again."""
        self._store.close()

    @cached_property
    def width(self) -> int:
        """D, of the first record.

        Raises:
            UserError: the database is empty, or that record damaged.
        """
        return self.read_stored(self._store.first_id(), np.shape)[1]

    @cached_property
    def stored_dtype(self) -> np.dtype:
        """Precision of the first record, before it becomes float32."""
        return self.read_stored(self._store.first_id(), lambda stored: stored.dtype)

    def is_npz(self, vid: str) -> bool:
        """Whether a video's record is npz bytes, whatever the folder's name says."""
        with self._store.value(vid) as value:
            return value is not None and bytes(value[: len(NPZ_MAGIC)]) == NPZ_MAGIC

    def __getitem__(self, vid: str) -> np.ndarray:
        """Features (T, D) float32; the caller's own copy.

        T is the smallest of the record's, ``id2nframe.json``'s and ``max_clip_len``.

        Raises:
            UserError: no such video, or its record is damaged.
        """
        limits = (self.id2nframe.get(vid), self.max_clip_len)
        limits = (limit for limit in limits if isinstance(limit, int) and limit >= 0)
        end = min(limits, default=None)
        features = self.read_stored(vid, lambda stored: _as_float32(stored[:end]))
        if features.shape[1] != self.width:
            raise UserError(
                f"{self.path}: the features of {vid!r} have {features.shape[1]} values a frame, "
                f"those of the first video {self.width}; {RESTORE}"
            )
        return features

    def read_stored(self, vid: str, use: Callable[[np.ndarray], Any]) -> Any:
        """``use(features)`` of one record, (T, D) in its own precision; valid during the call only.

        Raises:
            UserError: no such video, or its record is damaged.
        """
        with self._value(vid) as value:
            with self._damage_named(vid):
                features = self._codec.decode(value)
                if np.ndim(features) != 2 or not np.issubdtype(features.dtype, np.floating):
                    raise ValueError("no two-dimensional array of floats")
            return use(features)

    def _rows(self, vid: str) -> int:
        with self._value(vid) as value, self._damage_named(vid):
            return self._codec.rows(value)

    @contextmanager
    def _value(self, vid: str) -> Iterator[Any]:
        with self._store.value(vid) as value:
            if value is None:
                raise UserError(
                    f"{self.path} has no features of video {vid!r}; extract and add them, or leave "
                    "the video out"
                )
            yield value

    @contextmanager
    def _damage_named(self, vid: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the decoders trip over, the bytes are damaged
            raise UserError(
                f"{self.path}: the features of {vid!r} are damaged ({error!r}); {RESTORE}"
            ) from error


def _as_float32(stored: np.ndarray) -> np.ndarray:
    """A copy in single precision."""
    if stored.dtype == np.float16:  # PyTorch converts several times as fast as NumPy
        return torch.from_numpy(stored.copy()).float().numpy()
    return np.array(stored, dtype=np.float32)


class FeatureDbWriter:
    """Build a feature database of a data set; it appears, whole, when the block succeeds.

    ``id2nframe.json`` beside it is shared by all versions: new videos are added to it.

    Args:
        folder: the data set's folder ``video_db/<dataset>``.
        version: feature extractors.
        interval: seconds per frame.
        compressed: write the npz variant.
        force: replace a database that is there.
        recount: replace numbers of frames that ``id2nframe.json`` has.
        format_: of the database.

    Attributes:
        path: the database's own folder.
        codec: makes what :meth:`put_encoded` takes.

    Raises:
        UserError: a database is there and ``force`` is not given; frames contradict
            ``id2nframe.json`` and ``recount`` is not given; an id is unusable or not unique.
    """

    def __init__(
        self,
        folder: str | Path,
        version: str = "resnet_slowfast",
        interval: float = 1.5,
        compressed: bool = False,
        force: bool = False,
        recount: bool = False,
        format_: FeatureFormat = "lmdb",
    ) -> None:
        self.codec = feature_codec(compressed, format_)
        self.path = feature_db_path(Path(folder), version, interval, compressed, format_)
        writer = LmdbWriter if format_ == "lmdb" else SafetensorsWriter
        self._store = writer(self.path, force, self._merge_counts)
        self._recount = recount
        self._id2nframe: dict[str, int] = {}

    def __enter__(self) -> Self:
        check_output(self.path.parent / COUNTS_FILE)
        self._store.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.__exit__(*error)

    @property
    def folder(self) -> Path:
        """The temporary folder; other files put here become part of the database."""
        return self._store.folder

    def put(self, vid: str, features: np.ndarray) -> None:
        """Add the features (T, D) of a video, stored in their own precision."""
        self.put_encoded(vid, len(features), self.codec.encode(features))

    def put_encoded(self, vid: str, num_frames: int, value: Any) -> None:
        """Add what the codec made elsewhere of ``num_frames`` frames."""
        self._id2nframe[vid] = num_frames
        self._store.put_value(vid, value)

    def _merge_counts(self) -> None:
        """Bring ``id2nframe.json`` up to date, before the database appears: it never lacks one."""
        path = self.path.parent / COUNTS_FILE
        known = read_json(path) if path.is_file() else {}
        for vid, num_frames in self._id2nframe.items():
            if known.get(vid, num_frames) != num_frames and not self._recount:
                raise UserError(
                    f"{path} says {known[vid]} frames of {vid!r}, the features have {num_frames}: "
                    "was it made for another interval? Choose another --dataset, or pass --force"
                )
        write_json(path, {**known, **self._id2nframe})
