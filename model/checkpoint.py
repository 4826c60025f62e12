"""Loading weights by name, from published and own checkpoints.

:class:`LoadReport` lists every name: loaded, new, ignored, missing or unexpected.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.embed import grow_rows
from utils.errors import UserError
from utils.logger import LOGGER
from utils.tensor_files import UnreadableFileError, infinite_weights, is_unzipped, read_weights

# Constant buffers of published files; RoBERTa's second name of lm_head.bias.
IGNORED = re.compile(
    r"(^|\.)(pad|vocab_padded|tri_mask|one_hot|position_ids|lm_head\.decoder\.bias)$"
)
OLD_NAME = re.compile(r"(?<![^.])(gamma|beta)$")
NEW_NAMES = {"gamma": "weight", "beta": "bias"}
FRAME_POSITIONS = "img_embeddings.position_embeddings.weight"
FEATURE_PROJECTION = "img_embeddings.img_linear.weight"
# Tables that may have more rows in the model than in the file; the new rows start at zero.
GROWING = re.compile(
    r"(word_embeddings\.weight|lm_head\.decoder\.weight|lm_head\.bias"
    r"|img_embeddings\.position_embeddings\.weight)$"
)
TYPE_TABLE = re.compile(r"token_type_embeddings\.weight$")
SHARED_ENCODER = "v_encoder."
ROBERTA_NAME = re.compile(r"(^|\.)roberta\.|^(encoder\.layer\.0|embeddings)\.")
Build = Callable[[int], nn.Module]  # a model for features of a width
MISSING, UNEQUAL = "MISSING", "UNEQUAL"  # kinds of names that are logged as warnings
ALIGNMENT = 64  # bytes, of PyTorch's own memory
MOST_LISTED = 1000  # names, of a kind
# Of the lists of a report, in the log.
TITLES = {
    "loaded": "loaded",
    "grown": "loaded, zero rows added",
    "renamed": "read under another name",
    "tied": "tied to a loaded weight",
    "left_out": "left out, of further layers",
    "reinitialised": "reinitialised, as wide as the features",
    "new_heads": "new head, initialised",
    "ignored": "ignored (buffer, or no tensor)",
    "missing": f"{MISSING} from the checkpoint, initialised",
    "unexpected": "UNEXPECTED in the checkpoint, not used",
    "unequal": f"{UNEQUAL} to the weight that it is tied to, not used",
}


@dataclass
class LoadReport:
    """The names of weights by what happened to them."""

    prefix: str = ""  # removed from all names
    loaded: list[str] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)  # "file's name → model's name"
    tied: list[str] = field(default_factory=list)  # not in the file
    left_out: list[str] = field(default_factory=list)  # layers that a smaller model lacks
    reinitialised: list[str] = field(default_factory=list)
    new_heads: list[str] = field(default_factory=list)  # not in the file, outside the encoder
    ignored: list[str] = field(default_factory=list)  # constant buffers and other entries
    missing: list[str] = field(default_factory=list)  # not in the file, within the encoder
    unexpected: list[str] = field(default_factory=list)  # not in the model
    unequal: list[str] = field(default_factory=list)  # tied in the model, not in the file

    def require_encoder(self, path: str | Path) -> None:
        """Refuse a file without weights of the encoder.

        Raises:
            UserError: with a guess at what the file is.
        """
        loaded = self.loaded + self.grown
        if any(name.startswith(SHARED_ENCODER) for name in loaded):
            return
        if any(ROBERTA_NAME.search(name) for name in self.unexpected):
            raise UserError(
                f"{path} seems to be RoBERTa, not a HERO checkpoint: --load_partial_pretrained "
                "starts the cross-modal transformer from it"
            )
        if loaded:
            problem = f"has no weight of the encoder ({SHARED_ENCODER}*), only {loaded[0]}"
        else:
            first = (self.unexpected or ["none"])[0]
            problem = f"has no weight of this model (its first is {first})"
        raise UserError(f"{path} {problem}: it is no HERO checkpoint; choose another --checkpoint")

    def require_complete(self, path: str | Path) -> None:
        """Refuse the file of a trained model that lacks weights.

        Raises:
            UserError: names one of them.
        """
        absent = self.missing + self.new_heads
        if absent:
            raise UserError(
                f"{path} lacks {len(absent)} weights of this model, such as {absent[0]}: is it a "
                "checkpoint of another task?"
            )

    def lines(self) -> list[str]:
        """Return lines for the log, one per kind of names that occurred."""
        lines = [f"names without their prefix {self.prefix}"] if self.prefix else []
        for kind, title in TITLES.items():
            if names := getattr(self, kind):
                more = [f"… {len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
                listed = f" ({', '.join([*names[:MOST_LISTED], *more])})"
                counted = kind in ("loaded", "left_out")
                lines.append(f"{title}: {len(names)}" + ("" if counted else listed))
        return lines

    def log(self, path: str | Path, partial: bool = False) -> None:
        """Log :meth:`lines`; unequal and missing names (unless the file is ``partial``, known to
        lack a part of the encoder) as warnings."""
        for line in self.lines():
            doubtful = line.startswith(UNEQUAL if partial else (MISSING, UNEQUAL))
            LOGGER.log(logging.WARNING if doubtful else logging.INFO, "%s: %s", path, line)


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Read a ``.pt``/``.bin`` or ``.safetensors`` file of weights, to the CPU.

    Weights are taken out of a restore point (published or own), where they are one entry of
    several.

    Returns:
        Tensors by name, and possibly other entries.

    Raises:
        UserError: the file is missing, damaged, or holds no dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} {_why_no_file(path)}")
    try:
        state, keys = read_weights(path)
    except UnreadableFileError as error:
        raise UserError(f"checkpoint {path} {error}") from None
    if keys:
        LOGGER.info("%s: the weights are its entry %s", path, " → ".join(keys))
    if is_unzipped(path):
        LOGGER.info(
            "%s is in PyTorch's old format, which carries no checksum: damage may go unnoticed",
            path,
        )
    return state


def _why_no_file(path: Path) -> str:
    roberta = "--load_partial_pretrained takes the folder or hub name of a RoBERTa"
    if path.is_dir():
        is_model = (path / "config.json").is_file()
        return "is a folder: " + (roberta if is_model else "name a file, as ckpt/model_step_N.pt")
    return f"does not exist; {roberta}" if "roberta" in path.name.lower() else "does not exist"


def normalise_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Replace old names (``gamma``, ``beta``), and convert floating tensors to fp32."""
    return {
        OLD_NAME.sub(lambda match: NEW_NAMES[match[0]], name): value.float()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in state.items()
    }


def strip_prefix(
    state: Mapping[str, Any], known: Callable[[str], bool]
) -> tuple[dict[str, Any], str]:
    """Remove the prefix (``module.``) that all weights share, if more names are known without it.

    Args:
        state: weights, and possibly other entries.
        known: whether the model has a name.

    Returns:
        The entries by their new names, and the prefix ("" if none was removed).
    """
    names = [name for name, value in state.items() if isinstance(value, Tensor)]
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    prefixes = list(accumulate((f"{part}." for part in shared), initial=""))
    prefix = max(prefixes, key=lambda each: sum(known(name.removeprefix(each)) for name in names))
    return {name.removeprefix(prefix): value for name, value in state.items()}, prefix


class _NoInitialisation(TorchFunctionMode):
    """Skips ``torch.nn.init``: for the meta device, PyTorch would load its compiler."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Build models on the meta device, whose weights have shapes but no values."""
    with torch.device("meta"), _NoInitialisation():
        yield


def feature_axes(build: Build) -> dict[str, int]:
    """Return {name: dimension} of the weights whose shape depends on the width D of the features.

    Args:
        build: called twice, on the meta device.
    """
    with without_values():
        narrow, wide = (build(width).state_dict() for width in (1, 2))
    return {
        name: axis
        for name, value in narrow.items()
        for axis, size in enumerate(value.shape)
        if size != wide[name].shape[axis]
    }


def feature_width(state: Mapping[str, Any]) -> int | None:
    """Return the width D of the features of a file's model, or None if it is unknown."""
    for name, value in state.items():
        if name.endswith(FEATURE_PROJECTION) and isinstance(value, Tensor) and value.dim() == 2:
            return value.shape[1]
    return None


@contextmanager
def named_errors(path: str | Path) -> Iterator[None]:
    """Add the file's name to error messages about its weights."""
    try:
        yield
    except UserError as error:
        named = str(path) in str(error)
        raise UserError(str(error) if named else f"{path}: {error}") from error.__cause__


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    build: Build | None = None,
    reinit_features: bool = False,
    state: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load a HERO checkpoint by :func:`load_weights`, and log the report.

    Args:
        model, build, reinit_features: see :func:`load_weights`.
        path: of the file.
        state: its content by :func:`read_state_dict`; None: it is read here.

    Raises:
        UserError: the file cannot be read, has other shapes, or no weights of the encoder.
    """
    with named_errors(path):
        if state is None:
            state = read_state_dict(path)
        report = load_weights(model, state, build, reinit_features)
    report.require_encoder(path)
    report.log(path)
    return report


def load_weights(
    model: nn.Module,
    state: Mapping[str, Any],
    build: Build | None = None,
    reinit_features: bool = False,
) -> LoadReport:
    """Load weights by name, without a prefix that all names share.

    Where the model has more words or frame positions than the file, its additional rows become
    zero; where the file has more frame positions, the model's table grows.

    Args:
        model: one on the meta device takes the tensors of ``state`` without a copy.
        state: weights, and possibly other entries.
        build: builds this model for features of a width, to find the weights that depend on it.
        reinit_features: leave those as the model initialised them, whatever width the file has.

    Raises:
        UserError: a weight has another shape or dtype than the model's, or is not finite.
    """
    report = LoadReport()
    state, report.prefix = strip_prefix(normalise_names(state), model.state_dict().__contains__)
    state = _by_own_names(model, state, report)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    report.ignored = [name for name in state if name not in tensors]
    _grow_frame_positions(model, tensors)
    own = model.state_dict()
    by_width = feature_axes(build) if reinit_features and build else {}
    report.reinitialised = list(by_width)
    usable, clashes = {}, []
    _check_numbers(tensors, own)
    for name, value in tensors.items():
        if name not in own:
            (report.ignored if IGNORED.search(name) else report.unexpected).append(name)
        elif name in by_width and _differ_only_in(by_width[name], value.shape, own[name].shape):
            continue
        elif (fitted := _fit(name, value, own[name].shape)) is None:
            clashes.append((name, tuple(value.shape), tuple(own[name].shape)))
        else:
            (report.loaded if fitted is value else report.grown).append(name)
            usable[name] = fitted
    if clashes:
        raise UserError(_describe_clashes(clashes, feature_axes(build) if build else {}))
    _resolve_ties(model, usable, report)
    _report_absent(own, usable, report)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    values = _assignable(model, usable) if on_meta else usable
    model.load_state_dict(values, strict=False, assign=on_meta)
    return report


def _by_own_names(model: nn.Module, state: Mapping[str, Any], report: LoadReport) -> dict[str, Any]:
    """Replace the beginnings of names in the model's ``OTHER_NAMES`` {beginning: its own}, unless
    the file has the model's names too."""
    renamed = dict(state)
    for beginning, own in getattr(model, "OTHER_NAMES", {}).items():
        for name in state:
            new = own + name.removeprefix(beginning)
            if name.startswith(beginning) and new not in state:
                report.renamed.append(f"{name} → {new}")
                renamed[new] = renamed.pop(name)
    return renamed


def _check_numbers(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights whose kind of number differs from the model's, or that are not finite."""
    for name, value in tensors.items():
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            raise UserError(
                f"the checkpoint's weight {name} holds numbers of the type {value.dtype}, the "
                f"model's {own[name].dtype}; choose another checkpoint"
            )
    if infinite := infinite_weights({name: v for name, v in tensors.items() if name in own}):
        raise UserError(
            f"{len(infinite)} weights of the checkpoint are not finite, such as {infinite[0]}: "
            "they hold NaN or infinite values, as after a training that diverged; take an earlier "
            "checkpoint"
        )


def _report_absent(own: Iterable[str], usable: Iterable[str], report: LoadReport) -> None:
    """Report the model's names without a value, as missing in the encoder or as a new head."""
    accounted = {*usable, *report.tied, *report.unequal, *report.reinitialised}
    for name in own:
        if name not in accounted:
            (report.missing if name.startswith(SHARED_ENCODER) else report.new_heads).append(name)


def _names_of_parameters(model: nn.Module) -> Iterable[list[str]]:
    """Return the names of each parameter: several if it is tied."""
    names_of = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of[id(parameter)].append(name)
    return names_of.values()


def _assignable(model: nn.Module, usable: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that a model may keep, under every name that it has for them.

    Tensors with another alignment than PyTorch's are copied: their products would be rounded
    differently from those of the same weights of another kind of file.
    """
    aligned = {
        name: value if value.data_ptr() % ALIGNMENT == 0 else value.clone()
        for name, value in usable.items()
    }
    for names in _names_of_parameters(model):
        if given := [name for name in names if name in usable]:
            aligned |= dict.fromkeys(names, aligned[given[0]])
    return aligned


def _resolve_ties(model: nn.Module, usable: dict[str, Tensor], report: LoadReport) -> None:
    """Use the first value of a tied weight; report its other names, and other values."""
    for names in _names_of_parameters(model):
        given = [name for name in names if name in usable]
        if not given:
            continue
        report.tied += [name for name in names if name not in usable]
        for name in given[1:]:
            if not torch.equal(usable[name], usable[given[0]]):
                del usable[name]
                (report.loaded if name in report.loaded else report.grown).remove(name)
                report.unequal.append(name)


def _grow_frame_positions(model: nn.Module, state: dict[str, Tensor]) -> None:
    for name, module in model.named_modules():
        table = state.get(f"{name}.{FRAME_POSITIONS}")
        if table is not None:
            own = module.img_embeddings.position_embeddings
            if table.shape[1:] == own.weight.shape[1:]:
                grow_rows(own, len(table))


def _fit(name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """Return ``value`` with the additional rows of the model, or None if the shapes clash."""
    if value.shape == shape:
        return value
    missing = shape[0] - len(value) if value.dim() == len(shape) > 0 else 0
    if value.shape[1:] != shape[1:] or missing <= 0:
        return None
    if TYPE_TABLE.search(name) and len(value) == 1:
        return value.expand(shape).clone()
    if GROWING.search(name):
        return F.pad(value, (0, 0) * (value.dim() - 1) + (0, missing))
    return None


def _differ_only_in(axis: int, one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two shapes are equal except, at most, for the dimension ``axis``."""
    return len(one) == len(other) and all(n == axis or one[n] == other[n] for n in range(len(one)))


def _describe_clashes(
    clashes: list[tuple[str, tuple[int, ...], tuple[int, ...]]], axes: Mapping[str, int]
) -> str:
    def by_width(clash: tuple[str, tuple[int, ...], tuple[int, ...]]) -> bool:
        return clash[0] in axes and _differ_only_in(axes[clash[0]], *clash[1:])

    clashes = sorted(clashes, key=by_width)  # others first
    widths = {(theirs[axes[n]], ours[axes[n]]) for n, theirs, ours in filter(by_width, clashes)}
    if by_width(clashes[0]) and len(widths) == 1:
        ((width, own),) = widths
        return (
            f"the checkpoint was trained on features {width} values wide, these are {own} wide: "
            "use features of the same extractors, or another checkpoint, or train with "
            "--reinit_feature_layers, which reinitialises the layers that depend on the width"
        )
    listed = [f"{name}: file {theirs}, model {ours}" for name, theirs, ours in clashes[:8]]
    more = f" and {len(clashes) - 8} more" if len(clashes) > 8 else ""
    return (
        f"{len(clashes)} weights of the checkpoint have another shape than the model "
        f"({'; '.join(listed)}{more}): do model_config and checkpoint belong together?"
    )
