"""Per-video feature files, as the extractors write them."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write


class FeatureFileError(ValueError):
    """Why the features of a video cannot be used; it is listed, and the others go on."""


@dataclass(frozen=True, slots=True)
class FeaturePaths:
    """Where the features of a video lie.

    Attributes:
        frames: of the shortest file.
        files: one per part, in the order in which the parts are joined.
        folder: the extractors' folder that they lie in.
    """

    frames: int
    files: tuple[str, ...]
    folder: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts: ``<part>_features/<folder>/<video>.npz``."""
        return tuple(Path(file).parents[1].name.removesuffix("_features") for file in self.files)


def load_features(path: str | Path) -> np.ndarray:
    """Features (T, D) of one video and extractor, in the precision of the file.

    Raises:
        FeatureFileError: the file is damaged, or what it holds are no features.
    """
    try:
        with np.load(path, allow_pickle=False) as entries:
            features = entries["features"]
    except Exception as error:  # zipfile, zlib and NumPy raise all sorts for a damaged file
        raise FeatureFileError(f"it cannot be read ({error!r})") from error
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise FeatureFileError(f"no frames × values: {features.dtype} {features.shape}")
    if not len(features):
        raise FeatureFileError("it has no frames")
    if not np.isfinite(features).all():
        raise FeatureFileError("some values are not finite")
    return features


def load_parts(paths: FeaturePaths) -> list[np.ndarray]:
    """Features (T, D of the part) of each part in order, T = ``paths.frames``.

    Raises:
        FeatureFileError: a file is damaged or has changed.
    """
    parts = [load_features(path)[: paths.frames] for path in paths.files]
    if any(len(part) != paths.frames for part in parts):
        raise FeatureFileError(f"fewer than the {paths.frames} frames it had when paths were noted")
    return parts


def write_paths(path: Path, paths: dict[str, FeaturePaths]) -> None:
    """Pickle {video: (frames, file of the last part, …, file of the first part, folder)}.

    Of ResNet and SlowFast, joined in this order, that is the published format.
    A file that says the same is left alone: what was made from it stays newer than it.
    """
    if path.is_file() and read_paths(path) == paths:
        return
    entries = {vid: (of.frames, *reversed(of.files), of.folder) for vid, of in paths.items()}
    write_pickle(path, entries)


def read_paths(path: Path) -> dict[str, FeaturePaths]:
    """What :func:`write_paths` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        return {vid: _paths_of(entry) for vid, entry in read_pickle(path).items()}
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} holds no feature paths ({error}); run scripts/collect_video_feature_paths.py"
        ) from None


def _paths_of(entry: Any) -> FeaturePaths:
    frames, *files, folder = entry
    if not files or not all(isinstance(text, str) for text in (*files, folder)):
        raise ValueError(f"{entry!r} is no number of frames, files and folder")
    return FeaturePaths(int(frames), tuple(reversed(files)), folder)


def write_pickle(path: Path, value: Any) -> None:
    """Pickle plain containers, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(value))


def read_pickle(path: Path) -> Any:
    """Unpickle plain containers; nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, or holds more than plain containers.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises all sorts
        raise UserError(f"{path} cannot be read ({error!r}); make it anew") from error


class _PlainUnpickler(pickle.Unpickler):
    """Knows plain containers and NumPy's numbers, and nothing that could run code."""

    _NUMBERS = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Refuse everything but NumPy's numbers."""
        if (module, name) not in self._NUMBERS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")
        return super().find_class(module, name)
