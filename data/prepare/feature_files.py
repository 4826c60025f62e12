"""Per-video feature files, as the extractors write them."""

import dataclasses
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
        frames: of the shorter of the two.
        slowfast: the file.
        resnet: the file.
        folder: the extractors' folder that both lie in.
    """

    frames: int
    slowfast: str
    resnet: str
    folder: str


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


def load_joined(paths: FeaturePaths) -> np.ndarray:
    """ResNet and SlowFast features side by side (T, D), T = ``paths.frames``.

    Raises:
        FeatureFileError: a file is damaged or has changed.
    """
    parts = [load_features(path)[: paths.frames] for path in (paths.resnet, paths.slowfast)]
    if any(len(part) != paths.frames for part in parts):
        raise FeatureFileError(f"fewer than the {paths.frames} frames it had when paths were noted")
    return np.concatenate(parts, axis=1)


def write_paths(path: Path, paths: dict[str, FeaturePaths]) -> None:
    """Pickle {video: (frames, slowfast file, resnet file, folder)}.

    A file that says the same is left alone: what was made from it stays newer than it.
    """
    if path.is_file() and read_paths(path) == paths:
        return
    write_pickle(path, {vid: dataclasses.astuple(of_video) for vid, of_video in paths.items()})


def read_paths(path: Path) -> dict[str, FeaturePaths]:
    """What :func:`write_paths` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        plain = read_pickle(path)
        return {vid: FeaturePaths(int(entry[0]), *entry[1:]) for vid, entry in plain.items()}
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} holds no feature paths ({error}); run scripts/collect_video_feature_paths.py"
        ) from None


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
