"""Per-video feature files, as the extractors write them."""

import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from data.prepare.feature_parts import folder_of, is_value_folder, part_name
from data.stores.feature_codecs import read_npz_features, require_features
from data.stores.records import Frames, Id
from utils.decoding import check
from utils.errors import RecordError, UserError, brief, shorten
from utils.files import atomic_write, modified, read_bytes

MAX_PICKLE_BYTES = 1 << 30  # a million videos' paths have 0.3 GB
_ENTRY = Annotated[tuple[Frames | str, ...], msgspec.Meta(min_length=3)]

_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_PLAIN = _PUT | {
    *("PROTO", "FRAME", "MARK", "STOP", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("DICT", "EMPTY_DICT", "SETITEM", "SETITEMS", "LIST", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
}


class FeatureFileError(ValueError):
    """Why the features of a video cannot be used; such videos are listed and left out."""


@dataclass(frozen=True, slots=True)
class FeaturePaths:
    """The feature files of a video."""

    frames: int  # of the shortest file
    files: tuple[str, ...]  # one per part, in the order in which the parts are joined
    folder: str  # of the extractors that they are in

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, by the folders of the files."""
        return tuple(part_name(folder_of(Path(file))) for file in self.files)

    @property
    def is_value(self) -> bool:
        """Whether the folders are named as VALUE's are."""
        return any(is_value_folder(folder_of(Path(file))) for file in self.files)


def load_features(path: str | Path) -> np.ndarray:
    """Return features (T, D) of one video and extractor, in the precision of the file.

    Raises:
        FeatureFileError: the file is damaged, or does not hold features.
    """
    try:
        features = read_npz_features(path)
    except Exception as error:  # zipfile, zlib and NumPy raise anything for a damaged file
        raise FeatureFileError(f"it cannot be read ({shorten(repr(error))})") from None
    try:
        require_features(features)
    except ValueError:
        shape = f"{features.dtype} {features.shape}"
        raise FeatureFileError(f"no frames × values: {shape}") from None
    require_usable(features)
    return features


def require_usable(features: np.ndarray) -> None:
    """Raise FeatureFileError for features without frames, or with values that are not finite."""
    if not len(features):
        raise FeatureFileError("it has no frames")
    if not np.isfinite(features).all():
        raise FeatureFileError("some values are not finite")


def load_parts(paths: FeaturePaths) -> list[np.ndarray]:
    """Return the features (T, D of the part) of each part in order, T = ``paths.frames``.

    Raises:
        FeatureFileError: a file is damaged or has changed.
    """
    parts = [load_features(path)[: paths.frames] for path in paths.files]
    if any(len(part) != paths.frames for part in parts):
        raise FeatureFileError(f"fewer than the {paths.frames} frames it had when it was listed")
    return parts


def write_paths(path: Path, paths: dict[str, FeaturePaths]) -> None:
    """Pickle {video: (frames, file of the last part, …, file of the first part, folder)}.

    Of ResNet and SlowFast, joined in this order, that is the published format. An existing file of
    the same content, not older than the features, is kept: so what was made from it stays current.
    """
    files = (Path(file) for entry in paths.values() for file in entry.files)
    is_same = path.is_file() and read_paths(path) == paths
    if is_same and max(map(modified, files), default=0) <= modified(path):
        return
    write_pickle(path, {vid: (p.frames, *reversed(p.files), p.folder) for vid, p in paths.items()})


def read_paths(path: Path) -> dict[str, FeaturePaths]:
    """Return what :func:`write_paths` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    entries = read_pickle(path, dict[Id, _ENTRY])
    paths = {}
    for vid, entry in entries.items():
        frames, *files, folder = entry
        if isinstance(frames, str) or not all(isinstance(text, str) for text in (*files, folder)):
            raise UserError(
                f"{path} holds no feature paths ({brief(entry)} is no number of frames, files and "
                "folder); run scripts/collect_video_feature_paths.py"
            )
        paths[vid] = FeaturePaths(frames, tuple(reversed(files)), folder)  # type: ignore[arg-type]
    return paths


def write_pickle(path: Path, value: Any) -> None:
    """Pickle plain containers, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(value))


def read_pickle(path: Path, kind: Any = Any) -> Any:
    """Unpickle plain containers of type ``kind``; nothing in the file is executed or looked up.

    Raises:
        UserError: the file is missing, too large, damaged, or holds anything but dictionaries,
            lists, tuples, texts and numbers, or others than ``kind``.
    """
    data = read_bytes(path, MAX_PICKLE_BYTES)
    try:
        require_plain(data)
        return check(pickle.loads(data), kind)
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{path} cannot be read ({shorten(error)}); make it again") from None


def require_plain(data: bytes) -> None:
    """Raise RecordError for a pickle that holds anything but plain containers.

    Indices of the unpickler's memo must be consecutive: it allocates memory up to the greatest.
    """
    memo = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _PLAIN:
            raise RecordError(f"{opcode.name} {brief(argument)} is not allowed here")
        if opcode.name in _PUT:
            if int(argument or 0) > memo:
                raise RecordError(f"memo index {brief(argument)} of {memo}")
            memo += 1
        memo += opcode.name == "MEMOIZE"
