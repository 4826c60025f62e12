"""Text and frame-feature databases.

A text database is a folder with one LMDB environment (key: id as UTF-8, value: lz4 frame of a
msgpack map) and JSON side files. Frame features lie in ``<version>_<interval>`` (msgpack-numpy
maps) or ``<version>_<interval>_compressed`` (npz bytes), with ``id2nframe.json`` one level above.
"""

import io
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np

from data.lmdb_environment import RESTORE, LmdbReader, LmdbWriter
from utils.errors import UserError
from utils.files import read_json, write_json

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
        with self._value(id_) as value:
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
    """How one video's features are stored as bytes: the seam for another format."""

    suffix: str  # of the folder's name

    def encode(self, features: np.ndarray) -> bytes:
        """Bytes of ``features`` (T, D), in their own precision."""

    def decode(self, value: memoryview) -> np.ndarray:
        """``features`` (T, D) as stored; damaged bytes raise any exception."""


def _decode_array(stored: dict) -> Any:
    """msgpack-numpy's object hook, without its kind of array that is a pickle."""
    if stored.get(b"kind") == b"O":
        raise ValueError("an array of Python objects")
    return msgpack_numpy.decode(stored)


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


def feature_codec(compressed: bool) -> FeatureCodec:
    """The codec of a compressed or plain feature database."""
    return CompressedCodec() if compressed else PlainCodec()


def feature_db_path(folder: Path, version: str, interval: float, compressed: bool) -> Path:
    """``folder``/``resnet_slowfast_1.5``, ``…/resnet_slowfast_2_compressed``, …"""
    return folder / f"{version}_{interval:g}{feature_codec(compressed).suffix}"


class FeatureDb(LmdbReader):
    """Frame features of one data set, ``video_db/<dataset>/``; read-only.

    Opened lazily and at most once per process and file, safe across forks and threads, picklable.

    Args:
        folder: the data set's folder.
        version: feature extractors.
        interval: seconds per frame.
        compressed: read the npz variant.
        max_clip_len: frames past this many are cut; -1 keeps all.

    Attributes:
        path: the database's own folder.
        id2nframe: frames per video, before the cut.
        interval: seconds per frame.
        compressed: whether records are npz.

    Raises:
        UserError: folder, database or ``id2nframe.json`` is missing, or the LMDB is cut short.
    """

    def __init__(
        self,
        folder: str | Path,
        version: str = "resnet_slowfast",
        interval: float = 1.5,
        compressed: bool = False,
        max_clip_len: int = -1,
    ) -> None:
        self._arguments = (folder, version, interval, compressed, max_clip_len)
        self._codec = feature_codec(compressed)
        self.compressed = compressed
        self.interval = interval
        self.max_clip_len = max_clip_len
        super().__init__(_existing(feature_db_path(Path(folder), version, interval, compressed)))
        self.id2nframe: dict[str, int] = read_json(Path(folder) / "id2nframe.json")

    def __reduce__(self) -> tuple:
        return FeatureDb, self._arguments

    @cached_property
    def width(self) -> int:
        """D, of the first record.

        Raises:
            UserError: the database is empty, or that record damaged.
        """
        return self.read_stored(self._first_id(), np.shape)[1]

    @cached_property
    def stored_dtype(self) -> np.dtype:
        """Precision of the first record, before it becomes float32."""
        return self.read_stored(self._first_id(), lambda stored: stored.dtype)

    def is_npz(self, vid: str) -> bool:
        """Whether a video's record is npz bytes, whatever the folder's name says."""
        with self._value(vid) as value:
            return value is not None and bytes(value[: len(NPZ_MAGIC)]) == NPZ_MAGIC

    def __getitem__(self, vid: str) -> np.ndarray:
        """Features (T, D) float32, T cut to ``max_clip_len``; the caller's own copy.

        Raises:
            UserError: no such video, or its record is damaged.
        """
        end = self.max_clip_len if self.max_clip_len >= 0 else None
        features = self.read_stored(vid, lambda stored: np.array(stored[:end], dtype=np.float32))
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
            if value is None:
                raise UserError(
                    f"{self.path} has no features of video {vid!r}; extract and add them, or leave "
                    "the video out"
                )
            try:
                features = self._codec.decode(value)
                if np.ndim(features) != 2 or not np.issubdtype(features.dtype, np.floating):
                    raise ValueError("no two-dimensional array of floats")
            except Exception as error:  # whatever the decoders trip over, the bytes are damaged
                raise UserError(
                    f"{self.path}: the features of {vid!r} are damaged ({error!r}); {RESTORE}"
                ) from error
            return use(features)


def _existing(path: Path) -> Path:
    if path.is_dir():
        return path
    versions = sorted(database.parent.name for database in path.parent.glob("*/data.mdb"))
    there = f"{path.parent} holds {', '.join(versions) or 'no database'}"
    raise UserError(f"{path} does not exist ({there}); mend version, interval or compression")


class FeatureDbWriter(LmdbWriter):
    """Build a feature database of a data set; it appears, whole, when the block succeeds.

    ``id2nframe.json`` beside it is shared by all versions: new videos are added to it.

    Args:
        folder: the data set's folder ``video_db/<dataset>``.
        version: feature extractors.
        interval: seconds per frame.
        compressed: write the npz variant.
        force: replace a database that is there.
        recount: replace numbers of frames that ``id2nframe.json`` has.

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
    ) -> None:
        self.codec = feature_codec(compressed)
        super().__init__(feature_db_path(Path(folder), version, interval, compressed), force)
        self._recount = recount
        self._id2nframe: dict[str, int] = {}

    def put(self, vid: str, features: np.ndarray) -> None:
        """Add the features (T, D) of a video, stored in their own precision."""
        self.put_encoded(vid, len(features), self.codec.encode(features))

    def put_encoded(self, vid: str, num_frames: int, value: bytes) -> None:
        """Add what the codec made elsewhere of ``num_frames`` frames."""
        self._id2nframe[vid] = num_frames
        self.put_value(vid, value)

    def finish(self) -> None:
        """Bring ``id2nframe.json`` up to date, before the database appears: it never lacks one."""
        super().finish()
        path = self.path.parent / "id2nframe.json"
        known = read_json(path) if path.is_file() else {}
        for vid, num_frames in self._id2nframe.items():
            if known.get(vid, num_frames) != num_frames and not self._recount:
                raise UserError(
                    f"{path} says {known[vid]} frames of {vid!r}, the features have {num_frames}: "
                    "was it made for another interval? Choose another --dataset, or pass --force"
                )
        write_json(path, {**known, **self._id2nframe})
