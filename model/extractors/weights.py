"""Weights of published networks, whose files name them in several ways."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from utils.errors import UserError
from utils.tensor_files import UnreadableFileError, infinite_weights, read_weights

# Counts training batches; old files lack it, and nothing is computed with it.
COUNTER = "num_batches_tracked"

Replacement = str | Callable[[re.Match], str]


@dataclass(frozen=True)
class Layout:
    """How one kind of file names its weights.

    Attributes:
        title: for messages.
        marker: pattern of a name that only this kind has.
        unused: pattern of names that features do not need: the classifier.
        rules: (pattern, replacement) from a whole name to the network's own; the first that matches
            holds.
    """

    title: str
    marker: str
    unused: str
    rules: tuple[tuple[str, Replacement], ...]

    def rename(self, name: str) -> str | None:
        """The network's own name, or None for one that no rule knows."""
        for pattern, replacement in self.rules:
            renamed, count = re.subn(f"^{pattern}$", replacement, name)
            if count:
                return renamed
        return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_published(model: nn.Module, path: Path, layouts: tuple[Layout, ...]) -> None:
    """Load a file of weights by name: every weight of ``model`` and nothing that it does not know.

    Args:
        model: its names are those that the layouts' rules give.
        path: a file.
        layouts: kinds of file that are known.

    Raises:
        UserError: the file is damaged or of another kind, lacks weights, or has other shapes.
    """
    state = _read(path)
    layout = _recognise(state, layouts, path)
    renamed, unknown = {}, []
    for name, value in state.items():
        if re.search(layout.unused, name):
            continue
        own = layout.rename(name)
        if own is None:
            unknown.append(name)
        else:
            renamed[own] = value
    _check(model.state_dict(), renamed, unknown, f"{path} ({layout.title})")
    model.load_state_dict(renamed, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content, _ = read_weights(path)
    except UnreadableFileError as error:
        raise UserError(f"{path} {error} (Caffe2's .pkl files are no PyTorch files)") from error
    return {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def _recognise(state: dict[str, Tensor], layouts: tuple[Layout, ...], path: Path) -> Layout:
    for layout in layouts:
        if any(re.search(layout.marker, name) for name in state):
            return layout
    known = ", ".join(layout.title for layout in layouts)
    first = next(iter(state), "nothing")
    raise UserError(f"{path} names its weights in no known way ({first}, …; known: {known})")


def _check(
    own: dict[str, Tensor], renamed: dict[str, Tensor], unknown: list[str], where: str
) -> None:
    needed = [name for name in own if not name.endswith(COUNTER)]
    missing = [name for name in needed if name not in renamed]
    unknown = unknown + [name for name in renamed if name not in own]
    if missing or unknown:
        parts = [("lacks", missing), ("has the unknown", unknown)]
        said = "; ".join(
            f"{verb} {names[0]} (one of {len(names)})" for verb, names in parts if names
        )
        raise UserError(f"{where} belongs to another network: it {said}")
    for name in needed:
        if renamed[name].shape != own[name].shape:
            raise UserError(
                f"{where} belongs to another network: {name} is {tuple(renamed[name].shape)} there "
                f"and {tuple(own[name].shape)} here"
            )
    if infinite := infinite_weights({name: renamed[name] for name in needed}):
        raise UserError(f"{where} is of no use: {infinite[0]} holds NaN or infinite values")
