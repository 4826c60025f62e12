"""Loading weights by name: published and own checkpoints.

Nothing is dropped in silence: :class:`LoadReport` tells what was loaded, what is new, what was
ignored and what nobody expected.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from utils.tensor_files import (
    UnreadableFileError,
    infinite_weights,
    is_unzipped,
    read_weights,
)

# Buffers that hold no knowledge, found in published files; RoBERTa's second name of lm_head.bias.
IGNORED = re.compile(
    r"(^|\.)(pad|vocab_padded|tri_mask|one_hot|position_ids|lm_head\.decoder\.bias)$"
)
OLD_NAMES = {"gamma": "weight", "beta": "bias"}
FRAME_POSITIONS = "img_embeddings.position_embeddings.weight"
FEATURE_PROJECTION = "img_embeddings.img_linear.weight"
# Tables whose rows a model may have more of than the file; the new rows start at zero.
GROWING = re.compile(
    r"(word_embeddings\.weight|lm_head\.decoder\.weight|lm_head\.bias"
    r"|img_embeddings\.position_embeddings\.weight)$"
)
TYPE_TABLE = re.compile(r"token_type_embeddings\.weight$")
SHARED_ENCODER = "v_encoder."
ROBERTA_NAME = re.compile(r"(^|\.)roberta\.|^(encoder\.layer\.0|embeddings)\.")
Build = Callable[[int], nn.Module]  # a model for features of a width
# Kinds of names in a report that a run may not want to have.
MISSING, UNEQUAL = "MISSING", "UNEQUAL"
ALIGNMENT = 64  # bytes, of PyTorch's own memory
MOST_LISTED = 1000  # names, of a kind


@dataclass
class LoadReport:
    """What became of every name."""

    prefix: str = ""  # taken off all names
    loaded: list[str] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)  # loaded, and padded with zero rows
    renamed: list[str] = field(default_factory=list)  # "name of the file → the model's name"
    tied: list[str] = field(default_factory=list)  # not in the file, but the same as one that is
    left_out: list[str] = field(default_factory=list)  # layers that a smaller model does not take
    afresh: list[str] = field(default_factory=list)  # as wide as the features, by wish not loaded
    ignored: list[str] = field(default_factory=list)  # buffers without knowledge, and no tensors
    new_heads: list[str] = field(default_factory=list)  # not in the file, outside the encoder
    missing: list[str] = field(default_factory=list)  # not in the file, within the encoder
    unexpected: list[str] = field(default_factory=list)  # in the file, unknown to the model
    unequal: list[str] = field(default_factory=list)  # tied here, other values in the file

    def require_encoder(self, path: str | Path) -> None:
        """Refuse a file that holds nothing of the encoder.

        Raises:
            UserError: says what the file seems to be.
        """
        fitting = self.loaded + self.grown
        if any(name.startswith(SHARED_ENCODER) for name in fitting):
            return
        if any(ROBERTA_NAME.search(name) for name in self.unexpected):
            raise UserError(
                f"{path} seems to be RoBERTa, not a HERO checkpoint: --load_partial_pretrained "
                "starts the cross-modal transformer from it"
            )
        if fitting:
            found = f"has no weight of the encoder ({SHARED_ENCODER}*), only {fitting[0]}"
        else:
            found = f"has no weight of this model (its first is {(self.unexpected or ['none'])[0]})"
        raise UserError(f"{path} {found}: it is no HERO checkpoint; choose another --checkpoint")

    def require_complete(self, path: str | Path) -> None:
        """Refuse a trained model whose file lacks weights.

        Raises:
            UserError: names what is missing.
        """
        absent = self.missing + self.new_heads
        if absent:
            raise UserError(
                f"{path} lacks {len(absent)} weights of this model, such as {absent[0]}: is it a "
                "checkpoint of another task?"
            )

    def lines(self) -> list[str]:
        """For the log: one line per kind that occurred."""
        kinds = {
            "loaded": self.loaded,
            "loaded, zero rows added": self.grown,
            "read under another name": self.renamed,
            "tied to a loaded weight": self.tied,
            "left out, of further layers": self.left_out,
            "started afresh, as wide as the features": self.afresh,
            "new head, initialised": self.new_heads,
            "ignored (buffer, or no tensor)": self.ignored,
            f"{MISSING} from the checkpoint, initialised": self.missing,
            "UNEXPECTED in the checkpoint, not used": self.unexpected,
            f"{UNEQUAL} to the weight that it is tied to, not used": self.unequal,
        }
        counted = (self.loaded, self.left_out)
        lines = [
            f"{kind}: {len(names)}"
            + ("" if any(names is each for each in counted) else f" ({_listed(names)})")
            for kind, names in kinds.items()
            if names
        ]
        return [f"names without their prefix {self.prefix}", *lines] if self.prefix else lines

    def log(self, path: str | Path, partial: bool = False) -> None:
        """Log :meth:`lines`; what a run may not want is a warning.

        Args:
            path: of the file.
            partial: it is known to lack a part of the encoder.
        """
        for line in self.lines():
            doubtful = line.startswith(UNEQUAL if partial else (MISSING, UNEQUAL))
            LOGGER.log(logging.WARNING if doubtful else logging.INFO, "%s: %s", path, line)


def _listed(names: Sequence[str]) -> str:
    more = [f"… {len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    return ", ".join([*names[:MOST_LISTED], *more])


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Read a ``.pt``/``.bin`` or ``.safetensors`` file of weights, to the CPU.

    Weights that lie beside training code's own state (a restore point, published or own) are taken
    out of it.

    Returns:
        Tensors by name; a file may hold other entries beside them.

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
    """Old names (``gamma``, ``beta``) become today's; floating tensors become fp32."""

    def today(name: str) -> str:
        head, _, last = name.rpartition(".")
        return f"{head}.{OLD_NAMES[last]}" if last in OLD_NAMES else name

    return {
        today(name): value.float()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in state.items()
    }


def strip_prefix(
    state: Mapping[str, Any], known: Callable[[str], bool]
) -> tuple[dict[str, Any], str]:
    """Take off the prefix (``module.``) that all weights share, where more names fit without it.

    Args:
        state: weights, and possibly other entries.
        known: whether a name fits.

    Returns:
        The entries by their new names, and the prefix ("" where nothing was taken off).
    """
    names = [name for name, value in state.items() if isinstance(value, Tensor)]
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    prefixes = list(accumulate((f"{part}." for part in shared), initial=""))
    prefix = max(prefixes, key=lambda each: sum(known(name.removeprefix(each)) for name in names))
    return {name.removeprefix(prefix): value for name, value in state.items()}, prefix


class _NoInitialValues(TorchFunctionMode):
    """Skips what draws the first values of weights: on the meta device, PyTorch would load its
    compiler for them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Models that are built here have weights with shapes only (on the meta device)."""
    with torch.device("meta"), _NoInitialValues():
        yield


def feature_axes(build: Build) -> dict[str, int]:
    """Return the weights whose shape follows the width D of the features: name → dimension.

    Args:
        build: called twice, on the meta device: the models have shapes only.
    """
    with without_values():
        one, other = (build(width).state_dict() for width in (1, 2))
    return {
        name: axis
        for name, value in one.items()
        for axis, size in enumerate(value.shape)
        if size != other[name].shape[axis]
    }


def feature_width(state: Mapping[str, Any]) -> int | None:
    """Return the width D of the features that a file's weights are for; None: it does not tell."""
    widths = (
        value.shape[-1]
        for name, value in state.items()
        if name.endswith(FEATURE_PROJECTION) and isinstance(value, Tensor) and value.dim() == 2
    )
    return next(widths, None)


@contextmanager
def named_errors(path: str | Path) -> Iterator[None]:
    """Let the file's name stand in front of what is wrong with its weights."""
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
    """:func:`load_weights` of a file of HERO's, and log what became of its names.

    Args:
        model, build, reinit_features: as there.
        path: of the file.
        state: what :func:`read_state_dict` gave of it; None: it is read.

    Raises:
        UserError: the file cannot be read, has other shapes, or nothing of the encoder.
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
    """Load by name, without a prefix that all names have in common.

    Tables grow: where the model has more words or frame positions than the file, its further rows
    become zero; where the file has more frame positions, the model's table grows.

    Args:
        model: to be filled. One on the meta device takes the tensors of ``state`` themselves.
        state: weights, and possibly other entries.
        build: makes this model for features of a width; tells which weights depend on it.
        reinit_features: leave those as the model initialised them, whatever width the file has.

    Raises:
        UserError: a weight has another shape or kind of number than the model's, or is not finite.
    """
    report = LoadReport()
    state, report.prefix = strip_prefix(normalise_names(state), model.state_dict().__contains__)
    state = _by_own_names(model, state, report)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    report.ignored = [name for name in state if name not in tensors]
    _grow_frame_positions(model, tensors)
    own = model.state_dict()
    afresh = feature_axes(build) if reinit_features and build else {}
    report.afresh = list(afresh)
    usable, clashes = {}, []
    _check_numbers(tensors, own)
    for name, value in tensors.items():
        if name not in own:
            known = report.ignored if IGNORED.search(name) else report.unexpected
            known.append(name)
        elif name in afresh and _differ_only_in(afresh[name], value.shape, own[name].shape):
            continue
        elif (fitted := _fit(name, value, own[name].shape)) is None:
            clashes.append((name, tuple(value.shape), tuple(own[name].shape)))
        else:
            (report.loaded if fitted is value else report.grown).append(name)
            usable[name] = fitted
    if clashes:
        raise UserError(_describe_clashes(clashes, feature_axes(build) if build else {}))
    _settle_ties(model, usable, report)
    _name_absent(own, usable, report)
    empty = any(parameter.is_meta for parameter in model.parameters())
    model.load_state_dict(_to_take(model, usable) if empty else usable, False, assign=empty)
    return report


def _by_own_names(model: nn.Module, state: Mapping[str, Any], report: LoadReport) -> dict[str, Any]:
    """Weights whose names begin as in the model's ``OTHER_NAMES`` {beginning: its own} get the
    model's, unless the file has those too."""

    def own(name: str) -> str:
        for beginning, ours in getattr(model, "OTHER_NAMES", {}).items():
            renamed = ours + name.removeprefix(beginning)
            if name.startswith(beginning) and renamed not in state:
                report.renamed.append(f"{name} → {renamed}")
                return renamed
        return name

    return {own(name): value for name, value in state.items()}


def _check_numbers(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no finite floating-point numbers where the model's are."""
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


def _name_absent(own: Iterable[str], usable: Collection[str], report: LoadReport) -> None:
    """Tell of the model's weights that got no value whether the encoder lacks them, or a head."""
    accounted = {*usable, *report.tied, *report.unequal, *report.afresh}
    for name in own:
        if name not in accounted:
            (report.missing if name.startswith(SHARED_ENCODER) else report.new_heads).append(name)


def _names_of_parameters(model: nn.Module) -> Iterable[list[str]]:
    """The names of each parameter: several where it is tied."""
    names_of = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of[id(parameter)].append(name)
    return names_of.values()


def _to_take(model: nn.Module, usable: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that a model may keep, under every name that it has for them.

    What lies in memory as PyTorch itself would not put it is copied: products of it would be
    rounded otherwise than those of the same weights from another kind of file.
    """
    given = {
        name: value if value.data_ptr() % ALIGNMENT == 0 else value.clone()
        for name, value in usable.items()
    }
    for names in _names_of_parameters(model):
        values = [given[name] for name in names if name in given]
        if values:
            given |= dict.fromkeys(names, values[0])
    return given


def _settle_ties(model: nn.Module, usable: dict[str, Tensor], report: LoadReport) -> None:
    """Of the names of one weight, one is enough; where several differ, the first holds."""
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
    """``value`` with the rows that the model has more, or None where the shapes clash."""
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
    """Return whether two shapes are equal but, at most, for the dimension ``axis``."""
    return len(one) == len(other) and all(n == axis or one[n] == other[n] for n in range(len(one)))


def _describe_clashes(
    clashes: list[tuple[str, tuple[int, ...], tuple[int, ...]]], axes: Mapping[str, int]
) -> str:
    widths, others, by_width = set(), [], []
    for name, theirs, ours in clashes:
        listed = f"{name}: file {theirs}, model {ours}"
        if name in axes and _differ_only_in(axes[name], theirs, ours):
            widths.add((theirs[axes[name]], ours[axes[name]]))
            by_width.append(listed)
        else:
            others.append(listed)
    if not others and len(widths) == 1:
        ((width, own),) = widths
        return (
            f"the checkpoint was trained on features {width} values wide, these are {own} wide: "
            "use features of the same extractors, or another checkpoint, or train with "
            "--reinit_feature_layers, which starts the layers that depend on the width afresh"
        )
    more = f" and {len(clashes) - 8} more" if len(clashes) > 8 else ""
    return (
        f"{len(clashes)} weights of the checkpoint have another shape than the model "
        f"({'; '.join((others + by_width)[:8])}{more}): do model_config and checkpoint belong "
        "together?"
    )
