"""Text and frame-feature databases.

A text database is a folder with one LMDB environment (key: id as UTF-8, value: lz4 frame of a
msgpack map) and JSON side files. Frame features lie in ``<version>_<interval>`` (LMDB of
msgpack-numpy maps), ``<version>_<interval>_compressed`` (LMDB of npz bytes) or
``<version>_<interval>_safetensors``, with ``id2nframe.json`` (or ``id2nframe_<interval>.json``) one
level above.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

import lz4.frame
import msgpack
import msgspec
import numpy as np

from data.stores.build_folder import is_database
from data.stores.feature_codecs import FeatureFormat, feature_codec, require_features
from data.stores.frame_counts import counts_path, frame_counts, merged_counts, own_counts_path
from data.stores.lmdb_environment import RESTORE, LmdbReader, LmdbWriter
from data.stores.records import MAX_RECORD_BYTES, SIDE_FILES, MetaFile
from data.stores.safetensors_io import SafetensorsReader, SafetensorsWriter
from utils.decoding import DamagedError, check, decode
from utils.errors import RecordError, UserError, brief, shorten
from utils.files import check_output, read_json, write_json

RecordT = TypeVar("RecordT", bound=msgspec.Struct)

_LZ4_MOST = 255  # times its size that a frame may unpack to
NPZ_MAGIC = b"PK\x03\x04"  # how the bytes of every zip file begin


def pack_record(record: dict) -> bytes:
    """Return a text record as stored: lz4 frame of a msgpack map."""
    return lz4.frame.compress(msgpack.packb(record, use_bin_type=True))


_record_decoder = cache(msgspec.msgpack.Decoder)  # of a type


def _unpack_record(value: bytes | memoryview, kind: Any) -> Any:
    """Return a stored text record as type ``kind``; any exception if it is damaged."""
    if len(value) * _LZ4_MOST <= MAX_RECORD_BYTES:
        data = lz4.frame.decompress(value)
    else:
        unpacker = lz4.frame.LZ4FrameDecompressor()
        data = unpacker.decompress(value, MAX_RECORD_BYTES)
        if not unpacker.eof:
            raise DamagedError(f"it unpacks to more than {MAX_RECORD_BYTES >> 20} MiB")
    return decode(data, kind, _record_decoder(kind).decode, msgspec.msgpack.decode)


class MetaTable(dict):
    """The content of a ``meta.json``; reading an entry that is missing or null is a UserError."""

    def __init__(self, where: Path, entries: dict) -> None:
        super().__init__({name: value for name, value in entries.items() if value is not None})
        self._where = where

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"{self._where} lacks {name}; make the database again with the preparation scripts"
        )


def read_side(path: Path) -> Any:
    """Return the content of a side file, checked by its name; UserError if it is missing or
    malformed."""
    value = read_json(path, SIDE_FILES.get(path.name, Any))
    if path.name == "meta.json":
        try:
            check(value, MetaFile)
        except RecordError as error:
            raise UserError(f"{path}: {error}; {RESTORE}") from None
    return value


class TextDb(LmdbReader):
    """One LMDB of lz4(msgpack) records with its JSON side files; read-only.

    Opened lazily and at most once per process and file, safe across forks and threads, picklable.

    Args:
        path: the folder.
        vocab_size: of the model that reads its tokens; None: not checked.

    Attributes:
        meta: ``meta.json`` (that of a caption database's two parts is one level above).

    Raises:
        UserError: the folder, ``data.mdb`` or ``meta.json`` is missing, or the LMDB is cut short.
    """

    def __init__(self, path: str | Path, vocab_size: int | None = None) -> None:
        super().__init__(Path(path))
        self.vocab_size = vocab_size
        where = self._meta_path()
        self.meta = MetaTable(where, read_side(where))
        self._sides: dict[str, Any] = {}

    def _meta_path(self) -> Path:
        for folder in (self.path, self.path.absolute().parent):
            if (folder / "meta.json").is_file():
                return folder / "meta.json"
        raise UserError(f"{self.path} has no meta.json; {RESTORE}")

    def __reduce__(self) -> tuple:
        return TextDb, (self.path, self.vocab_size)

    def __getitem__(self, id_: str) -> dict:
        """Return the raw record of ``id_``, not checked.

        Raises:
            KeyError: no such id.
            UserError: the record is damaged.
        """
        record = self._decoded(id_, dict)
        if record is None:
            raise KeyError(id_)
        return record

    def read(self, id_: str, kind: type[RecordT]) -> RecordT:
        """Return the record of ``id_`` as one of :mod:`data.stores.records`.

        Raises:
            UserError: there is none, it is damaged, or a field is missing or of another kind.
        """
        record = self._decoded(id_, kind)
        if record is None:
            raise UserError(f"{self.path} lacks the record of {brief(id_)}; {RESTORE}")
        if self.vocab_size is not None:
            self._check_tokens(id_, record.input_ids, self.vocab_size)
        return record

    def _decoded(self, id_: str, kind: Any) -> Any:
        with self.value(id_) as value:
            try:
                return None if value is None else _unpack_record(value, kind)
            except DamagedError as error:
                damage = str(error)
            except RecordError as error:
                raise UserError(
                    f"{self.path}: {error} in the record of {brief(id_)}; fix the annotation and "
                    "make the database again, or leave the record out (scripts/drop_ids.py)"
                ) from None
            except Exception as error:  # any error of LZ4: the bytes are damaged
                damage = shorten(repr(error))
        raise UserError(f"{self.path}: the record of {brief(id_)} is damaged ({damage}); {RESTORE}")

    def _check_tokens(self, id_: str, input_ids: list, vocab_size: int) -> None:
        of_parts = bool(input_ids) and isinstance(input_ids[0], list)
        largest = max(chain.from_iterable(input_ids) if of_parts else input_ids, default=0)
        if largest >= vocab_size:
            raise UserError(
                f"{self.path}: input_ids of {brief(id_)} hold {largest}, the model's vocabulary "
                f"has {vocab_size} tokens: take the model_config that belongs to the "
                "tokenizer, or make the database again with its --toker"
            )

    def has_side(self, name: str) -> bool:
        """Return whether the side file ``name`` exists."""
        return (self.path / name).is_file()

    def side(self, name: str) -> Any:
        """Return the parsed side file ``name`` (``"id2len.json"``), read once; UserError as for
        :func:`read_side`."""
        if name not in self._sides:
            if not self.has_side(name):
                raise UserError(f"{self.path} has no {name}; {RESTORE}")
            self._sides[name] = read_side(self.path / name)
        return self._sides[name]


class TextDbWriter(LmdbWriter):
    """Build a text database: see :class:`data.stores.lmdb_environment.LmdbWriter`."""

    def put(self, id_: str, record: dict) -> None:
        """Add a record."""
        self.put_value(id_, pack_record(record))

    def write_side(self, name: str, value: Any, indent: int | None = None) -> None:
        """Write a JSON side file (``meta.json`` too)."""
        write_json(self.folder / name, value, indent)


def feature_db_path(
    folder: Path, version: str, interval: float, compressed: bool, format_: FeatureFormat = "lmdb"
) -> Path:
    """Return ``folder``/``resnet_slowfast_1.5``, ``…_compressed`` or ``…_safetensors``."""
    return folder / f"{version}_{interval:g}{feature_codec(compressed, format_).suffix}"


def find_feature_db(
    folder: Path,
    version: str,
    interval: float,
    compressed: bool,
    format_: FeatureFormat | None = None,
) -> tuple[Path, FeatureFormat]:
    """Return the database's folder and its format.

    A whole interval may be written ``…_2``, as published, or ``…_2.0``. LMDB, the published format,
    is read if both formats exist.

    Raises:
        UserError: there is none; names those in the folder.
    """
    formats: list[FeatureFormat] = ["lmdb"] if compressed else ["lmdb", "safetensors"]
    paths = []
    for one in [format_] if format_ else formats:
        path = feature_db_path(folder, version, interval, compressed, one)
        paths.append((path, one))
        if interval == int(interval):
            suffix = path.name.removeprefix(f"{version}_{interval:g}")
            paths.append((folder / f"{version}_{interval:.1f}{suffix}", one))
    for exists in (is_database, Path.is_dir):
        for path, one in paths:
            if exists(path):
                return path, one
    databases = sorted(database.name for database in filter(is_database, folder.glob("*")))
    there = f"{folder} holds {', '.join(databases) or 'no database'}"
    raise UserError(f"{paths[0][0]} does not exist ({there}); fix version, interval or compression")


class FeatureDb:
    """Frame features of one data set, ``video_db/<dataset>/``; read-only.

    Opened lazily and at most once per process and file, safe across forks and threads, picklable.

    Args:
        folder: the data set's folder.
        version: feature extractors.
        interval: seconds per frame.
        compressed: read the npz variant.
        max_clip_len: frames that are kept of a video; -1 keeps all.
        format_: of the database; None: the one that exists.
        counts_folder: where frame counts are saved if they cannot be next to the database (see
            :func:`data.stores.frame_counts.frame_counts`).

    Attributes:
        path: the database's own folder.
        id2nframe: frames per video, before the cut; more rows are not read.

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
        self._finite: set[str] = set()  # videos whose values are known to be finite
        self._store: LmdbReader | SafetensorsReader
        if format_ == "lmdb":
            self._store = LmdbReader(self.path, readahead=True)
        else:
            self._store = SafetensorsReader(self.path)
        self.id2nframe = frame_counts(self.path, interval, self.keys, self._rows, counts_folder)

    def __reduce__(self) -> tuple:
        return FeatureDb, self._arguments

    def __contains__(self, vid: str) -> bool:
        return vid in self._store

    def __len__(self) -> int:
        return len(self._store)

    def keys(self) -> Iterator[str]:
        """Return all videos, in the order of their names' UTF-8 bytes."""
        return self._store.keys()

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        self._store.close()

    @cached_property
    def width(self) -> int:
        """D, of the first record; UserError if there is none, or it is damaged."""
        return self.read_stored(self._store.first_id(), np.shape)[1]

    @cached_property
    def stored_dtype(self) -> np.dtype:
        """Precision of the first record."""
        return self.read_stored(self._store.first_id(), lambda stored: stored.dtype)

    def is_npz(self, vid: str) -> bool:
        """Return whether a video's record is npz bytes, whatever the folder's name."""
        with self._store.value(vid) as value:
            return value is not None and bytes(value[: len(NPZ_MAGIC)]) == NPZ_MAGIC

    def __getitem__(self, vid: str) -> np.ndarray:
        """Return a copy of the features (T, D), float32, or float16 if stored in half precision.

        T is the least of the record's rows, the frame count and ``max_clip_len``.

        Raises:
            UserError: no such video, or its record is damaged.
        """
        limits = (self.id2nframe.get(vid, -1), self.max_clip_len)
        end = min((limit for limit in limits if limit >= 0), default=None)
        features = self.read_stored(vid, lambda stored: own_copy(stored[:end]))
        if vid not in self._finite:
            if not np.isfinite(features).all():
                raise UserError(
                    f"{self.path}: the features of {brief(vid)} hold values that are not finite; "
                    "extract them again, or leave the video out (scripts/drop_ids.py)"
                )
            self._finite.add(vid)
        if features.shape[1] != self.width:
            raise UserError(
                f"{self.path}: the features of {vid!r} have {features.shape[1]} values a frame, "
                f"those of the first video {self.width}; {RESTORE}"
            )
        return features

    def read_stored(self, vid: str, use: Callable[[np.ndarray], Any]) -> Any:
        """Return ``use(features)`` of one record, (T, D) in its own precision, valid in the call.

        Raises:
            UserError: no such video, or its record is damaged.
        """
        with self._value(vid) as value:
            with self._damage_named(vid):
                features = self._codec.decode(value)
                require_features(features)
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
        except Exception as error:  # any error of the decoders: the bytes are damaged
            raise UserError(
                f"{self.path}: the features of {vid!r} are damaged ({shorten(repr(error))}); "
                f"{RESTORE}"
            ) from None


def own_copy(stored: np.ndarray) -> np.ndarray:
    """Return a copy in single precision, or in half precision if stored so."""
    return np.array(stored, dtype=np.float16 if stored.dtype == np.float16 else np.float32)


class FeatureDbWriter:
    """Build a feature database of a data set; it appears, complete, when the block succeeds.

    The frame counts next to it (``id2nframe_<interval>.json`` if it exists, or ``id2nframe.json``)
    are shared by all versions: new videos are added, and of versions that differ the least count is
    kept. With ``recount``, or if there is no other version, they are replaced.

    Args:
        folder: the data set's folder ``video_db/<dataset>``.
        version: feature extractors.
        interval: seconds per frame.
        compressed: write the npz variant.
        force: replace an existing database.
        recount: replace existing frame counts.
        format_: of the database.
        own_counts: if there are no frame counts yet, save them by interval.

    Attributes:
        path: the database's own folder.
        codec: encodes values for :meth:`put_encoded`.

    Raises:
        UserError: the database exists and ``force`` is not given; frame counts contradict existing
            ones and ``recount`` is not given; an id is invalid or not unique.
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
        own_counts: bool = False,
    ) -> None:
        self.codec = feature_codec(compressed, format_)
        self.path = feature_db_path(Path(folder), version, interval, compressed, format_)
        writer = LmdbWriter if format_ == "lmdb" else SafetensorsWriter
        self._store = writer(self.path, force, self._merge_counts)
        self._recount = recount
        self._counts = counts_path(self.path.parent, interval)
        if own_counts and not self._counts.is_file():
            self._counts = own_counts_path(self.path.parent, interval)
        self._id2nframe: dict[str, int] = {}

    def __enter__(self) -> Self:
        check_output(self._counts)
        self._store.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.__exit__(*error)

    @property
    def folder(self) -> Path:
        """The temporary folder; other files written to it become part of the database."""
        return self._store.folder

    def put(self, vid: str, features: np.ndarray) -> None:
        """Add the features (T, D) of a video, stored in their own precision."""
        self.put_encoded(vid, len(features), self.codec.encode(features))

    def put_encoded(self, vid: str, num_frames: int, value: Any) -> None:
        """Add ``num_frames`` frames that ``codec`` encoded, maybe in another process."""
        self._id2nframe[vid] = num_frames
        self._store.put_value(vid, value)

    def _merge_counts(self) -> None:
        """Update the frame counts, before the database appears."""
        counts = merged_counts(self.path, self._counts, self._id2nframe, self._recount)
        write_json(self._counts, counts)
