"""Loading weights: published and own checkpoints by name, RoBERTa layer by layer.

Nothing is dropped in silence: :class:`LoadReport` tells what was loaded, what is new, what was
ignored and what nobody expected.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.embed import grow_rows
from utils.errors import UserError
from utils.tensor_files import UnreadableFileError, load_tensors

# Buffers that hold no knowledge, found in published files.
IGNORED = re.compile(r"(^|\.)(pad|vocab_padded|tri_mask|one_hot)$")
OLD_NAMES = {"gamma": "weight", "beta": "bias"}
FRAME_POSITIONS = "img_embeddings.position_embeddings.weight"
# Tables whose rows a model may have more of than the file; the new rows start at zero.
GROWING = re.compile(
    r"(word_embeddings\.weight|lm_head\.decoder\.weight|lm_head\.bias"
    r"|img_embeddings\.position_embeddings\.weight)$"
)
TYPE_TABLE = re.compile(r"token_type_embeddings\.weight$")
SHARED_ENCODER = "v_encoder."


@dataclass
class LoadReport:
    """What became of every name."""

    loaded: list[str] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)  # loaded, and padded with zero rows
    ignored: list[str] = field(default_factory=list)  # buffers without knowledge
    new_heads: list[str] = field(default_factory=list)  # not in the file, outside the encoder
    missing: list[str] = field(default_factory=list)  # not in the file, within the encoder
    unexpected: list[str] = field(default_factory=list)  # in the file, unknown to the model

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
            "new head, initialised": self.new_heads,
            "ignored buffer": self.ignored,
            "MISSING from the checkpoint, initialised": self.missing,
            "UNEXPECTED in the checkpoint, not used": self.unexpected,
        }
        return [
            f"{kind}: {len(names)}" + ("" if kind == "loaded" else f" ({', '.join(names)})")
            for kind, names in kinds.items()
            if names
        ]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a ``.pt``/``.bin`` or ``.safetensors`` file of weights, to the CPU.

    Raises:
        UserError: the file is missing, cut short, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        state = load_tensors(path)
    except UnreadableFileError as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}); was it cut short?") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"checkpoint {path} is no flat dictionary of tensors (a state_dict)")
    return state


def normalise_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old names (``gamma``, ``beta``) become today's; floating tensors become fp32."""

    def today(name: str) -> str:
        head, _, last = name.rpartition(".")
        return f"{head}.{OLD_NAMES[last]}" if last in OLD_NAMES else name

    return {
        today(name): value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> LoadReport:
    """Load by name.

    Tables grow: where the model has more words or frame positions than the file, its further rows
    become zero; where the file has more frame positions, the model's table grows.

    Raises:
        UserError: a weight has another shape than the model's.
    """
    report = LoadReport()
    state = normalise_names(state)
    _grow_frame_positions(model, state)
    own = model.state_dict()
    usable, clashes = {}, []
    for name, value in state.items():
        if name not in own:
            known = report.ignored if IGNORED.search(name) else report.unexpected
            known.append(name)
            continue
        fitted = _fit(name, value, own[name].shape)
        if fitted is None:
            clashes.append((name, tuple(value.shape), tuple(own[name].shape)))
            continue
        (report.loaded if fitted is value else report.grown).append(name)
        usable[name] = fitted
    if clashes:
        raise UserError(_describe_clashes(clashes))
    for name in own:
        if name not in usable:
            (report.missing if name.startswith(SHARED_ENCODER) else report.new_heads).append(name)
    model.load_state_dict(usable, strict=False)
    return report


def _grow_frame_positions(model: nn.Module, state: dict[str, Tensor]) -> None:
    for name, module in model.named_modules():
        table = state.get(f"{name}.{FRAME_POSITIONS}")
        if table is not None:
            grow_rows(module.img_embeddings.position_embeddings, len(table))


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


def _describe_clashes(clashes: list[tuple[str, tuple, tuple]]) -> str:
    for name, theirs, ours in clashes:
        if name.endswith("img_linear.weight") and theirs[0] == ours[0]:
            return (
                f"the checkpoint was trained on features {theirs[1]} values wide, these are "
                f"{ours[1]} wide: use features of the same extractors, or another checkpoint"
            )
    listed = "; ".join(f"{name}: file {theirs}, model {ours}" for name, theirs, ours in clashes[:8])
    more = f" and {len(clashes) - 8} more" if len(clashes) > 8 else ""
    return (
        f"{len(clashes)} weights of the checkpoint have another shape than the model ({listed}"
        f"{more}): do model_config and checkpoint belong together?"
    )


# --- RoBERTa ---------------------------------------------------------------------------------

OUTSIDE_LAYERS = re.compile(
    r"^roberta\.(pooler\.dense\.(weight|bias)|embeddings\.(LayerNorm\.(weight|bias)"
    r"|(word|position|token_type)_embeddings\.weight))$"
)
LAYER_NAME = re.compile(r"^roberta\.encoder\.layer\.(\d+)\.(.+)$")


def read_roberta(name_or_path: str) -> dict[str, Tensor]:
    """RoBERTa's weights from a file of weights, a model folder, or a hub name.

    Raises:
        UserError: it is none of them.
    """
    path = Path(name_or_path)
    if path.is_file():
        return read_state_dict(path)
    from transformers import RobertaForMaskedLM

    try:
        return RobertaForMaskedLM.from_pretrained(name_or_path).state_dict()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name_or_path} is neither a file of weights, nor a RoBERTa folder, nor a model that "
            f"the hub gave ({reason}); download it and give its folder"
        ) from None


def roberta_to_hero(
    state: dict[str, Tensor], num_layers: int, skip_layers: bool
) -> dict[str, Tensor]:
    """Rename RoBERTa's weights to those of the cross-modal transformer.

    Args:
        state: 12 (or any number of) layers under ``roberta.``, with ``lm_head`` or without.
        num_layers: n layers of the cross-modal transformer.
        skip_layers: take every (their number / n)-th layer, the last of each group (1, 3, 5, … for
            6 of 12), instead of the first n.

    Raises:
        UserError: there are fewer layers than needed.
    """
    state = {
        name.replace("lm_head.layer_norm.", "lm_head.LayerNorm."): value
        for name, value in normalise_names(state).items()
    }
    target = f"{SHARED_ENCODER}f_encoder."
    numbers = {int(m[1]) for name in state if (m := LAYER_NAME.match(name))}
    if len(numbers) < num_layers:
        raise UserError(
            f"the RoBERTa checkpoint has {len(numbers)} layers under 'roberta.encoder.layer', the "
            f"model needs {num_layers}: is it a RoBERTa state dict?"
        )
    step = len(numbers) // num_layers if skip_layers else 1
    place = {(i + 1) * step - 1: i for i in range(num_layers)}
    renamed = {}
    for name, value in state.items():
        layer = LAYER_NAME.match(name)
        if layer and int(layer[1]) in place:
            renamed[f"{target}encoder.layer.{place[int(layer[1])]}.{layer[2]}"] = value
        elif name.startswith("lm_head.") and not name.startswith("lm_head.decoder.bias"):
            renamed[target + name] = value
        elif OUTSIDE_LAYERS.match(name):
            renamed[target + name.removeprefix("roberta.")] = value
    return renamed


def load_roberta(model: nn.Module, state: dict[str, Tensor], skip_layers: bool) -> LoadReport:
    """Start the cross-modal transformer of ``model`` from RoBERTa (arXiv 1907.11692)."""
    layers = len(model.v_encoder.f_encoder.encoder.layer)
    return load_weights(model, roberta_to_hero(state, layers, skip_layers))


# --- From options -------------------------------------------------------------------------


def initialise(model: nn.Module, options: Any, log: Callable[[str], None]) -> LoadReport | None:
    """Give ``model`` the start that the options ask for and log what was loaded.

    Args:
        options: ``checkpoint`` (empty: random weights), ``load_partial_pretrained`` (it is a
            RoBERTa), ``skip_layer_loading``.
        log: takes lines.
    """
    if not options.checkpoint:
        log("no checkpoint: random weights")
        return None
    if options.load_partial_pretrained:
        report = load_roberta(model, read_roberta(options.checkpoint), options.skip_layer_loading)
    else:
        report = load_weights(model, read_state_dict(options.checkpoint))
    for line in report.lines():
        log(f"{options.checkpoint}: {line}")
    return report
