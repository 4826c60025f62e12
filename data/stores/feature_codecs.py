"""Encodings of a video's features in a feature database.

Decoding a damaged or malicious value raises; it executes nothing and takes no more memory than
``MAX_FEATURE_BYTES``.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import msgpack
import msgpack_numpy
import msgspec
import numpy as np

from data.stores.records import MAX_FEATURE_BYTES, MAX_FRAMES, MAX_WIDTH, Frames, Width
from utils.errors import UserError, brief

_FLOATS = re.compile("[<>=]f[248]")
_PARTS = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.msgpack.Decoder(dict[bytes, msgspec.Raw])
_SHAPE = msgspec.msgpack.Decoder(tuple[Frames, Width])


class FeatureCodec(Protocol):
    """Encoding of one video's features in a store; implement it to add another format."""

    suffix: str  # of the folder's name

    def encode(self, features: np.ndarray) -> Any:
        """Return the value to store for ``features`` (T, D), in their own precision."""

    def decode(self, value: Any) -> np.ndarray:
        """Return ``features`` (T, D) as stored; damaged values raise any exception."""

    def rows(self, value: Any) -> int:
        """Return T of ``features``; damaged values raise any exception."""


def _array_parts(value: memoryview) -> dict[bytes, msgspec.Raw]:
    """Return the parts of msgpack-numpy's array ``features``, not decoded or copied yet."""
    features = _PARTS.decode(value)["features"]
    try:
        return _ARRAY.decode(features)
    except msgspec.ValidationError:
        text = "its array is none of msgpack-numpy (perhaps written with use_bin_type=False)"
        raise ValueError(text) from None


def require_features(features: Any) -> None:
    """Raise ValueError unless ``features`` is an array (T, D) of floats with D > 0."""
    if np.ndim(features) != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError("no two-dimensional array of floats")
    frames, width = features.shape
    if not 0 < width <= MAX_WIDTH or frames > MAX_FRAMES:
        raise ValueError(f"{frames} frames of {width} values")


def read_npz_features(file: str | Path | BinaryIO) -> np.ndarray:
    """Return the array ``features`` of an npz file; a damaged one raises any exception."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("features.npy")
        if info.file_size > MAX_FEATURE_BYTES:
            raise ValueError(f"{info.file_size} bytes of features, which no video has")
        with archive.open(info) as entry:
            return np.lib.format.read_array(entry, allow_pickle=False)


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
        stored = _array_parts(value)
        dtype = msgspec.msgpack.decode(stored[b"type"])
        # With another type NumPy might read pointers to Python objects.
        if not isinstance(dtype, str) or not _FLOATS.fullmatch(dtype):
            raise ValueError(f"numbers of type {brief(dtype)}")
        numbers = msgspec.msgpack.decode(stored[b"data"], type=memoryview)
        return np.frombuffer(numbers, dtype).reshape(_SHAPE.decode(stored[b"shape"]))

    def rows(self, value: memoryview) -> int:
        """See :class:`FeatureCodec`; the features themselves are not read."""
        return _SHAPE.decode(_array_parts(value)[b"shape"])[0]


class CompressedCodec:
    """The bytes of a compressed npz file with an entry ``features``; others are ignored."""

    suffix = "_compressed"

    def encode(self, features: np.ndarray) -> bytes:
        """See :class:`FeatureCodec`."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, features=features)
        return buffer.getvalue()

    def decode(self, value: memoryview) -> np.ndarray:
        """See :class:`FeatureCodec`."""
        return read_npz_features(io.BytesIO(value))

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
    """Return the codec of a database; UserError if there is no such variant."""
    if format_ == "lmdb":
        return CompressedCodec() if compressed else PlainCodec()
    if compressed:
        raise UserError("only LMDB has a compressed variant; leave compression or safetensors out")
    return ArrayCodec()
