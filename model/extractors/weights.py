"""Weights of published networks, whose files use several naming schemes."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from utils.errors import UserError
from utils.tensor_files import UnreadableFileError, infinite_weights, read_weights

COUNTER = "num_batches_tracked"  # of batch norm; old files lack it, inference does not use it


@dataclass(frozen=True)
class Layout:
    r"""Naming scheme of one kind of file.

    Attributes:
        title: for messages.
        marker: pattern of a name that only this kind has.
        unused: pattern of names that features do not need: the classifier.
        rules: (pattern, replacement) from a complete name to the network's own, of which the first
            match applies. In a replacement, ``\1`` is group 1, and ``<1>`` that number less one:
            some files count from 1.
    """

    title: str
    marker: str
    unused: str
    rules: tuple[tuple[str, str], ...]

    def rename(self, name: str) -> str | None:
        """Return the network's own name, or None if no rule matches."""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, name):
                numbered = re.sub(r"<(\d)>", lambda g: str(int(match[int(g[1])]) - 1), replacement)
                return match.expand(numbered)
        return None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_published(model: nn.Module, path: Path, layouts: tuple[Layout, ...]) -> None:
    """Load a file in one of ``layouts``: every weight of ``model``, and no unknown ones.

    Raises:
        UserError: the file is damaged or of another kind, lacks weights, or has other shapes.
    """
    state = _read(path)
    layout = _recognise(state, layouts, path)
    state = {name: v for name, v in state.items() if not re.search(layout.unused, name)}
    own_names = {name: layout.rename(name) for name in state}
    renamed = {own: state[name] for name, own in own_names.items() if own is not None}
    unknown = [name for name, own in own_names.items() if own is None]
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
        listed = (f"{verb} {names[0]} (one of {len(names)})" for verb, names in parts if names)
        raise UserError(f"{where} belongs to another network: it {'; '.join(listed)}")
    for name in needed:
        if renamed[name].shape != own[name].shape:
            raise UserError(
                f"{where} belongs to another network: {name} is {tuple(renamed[name].shape)} there "
                f"and {tuple(own[name].shape)} here"
            )
    if infinite := infinite_weights({name: renamed[name] for name in needed}):
        raise UserError(f"{where} is of no use: {infinite[0]} holds NaN or infinite values")
