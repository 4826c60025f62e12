"""Initialising the cross-modal transformer from RoBERTa (arXiv 1907.11692)."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import (
    SHARED_ENCODER,
    LoadReport,
    load_weights,
    named_errors,
    normalise_names,
    read_state_dict,
    strip_prefix,
)
from model.hero import HeroModel
from utils.errors import UserError
from utils.hub import fetch_folder
from utils.tensor_files import FOLDER_FILES, weights_file

TARGET = f"{SHARED_ENCODER}f_encoder."
PREFIX = "roberta."
KNOWN = re.compile(r"(roberta\.)?(encoder\.layer\.\d+|embeddings|pooler|lm_head)\.")
LAYER_NAME = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
OUTPUT_BIAS, OUTPUT_BIAS_AGAIN = "lm_head.bias", "lm_head.decoder.bias"


def load_roberta_checkpoint(model: HeroModel, name_or_path: str, skip_layers: bool) -> LoadReport:
    """Load RoBERTa from a file, folder or hub name by :func:`load_roberta`, and log the report."""
    with named_errors(name_or_path):
        report = load_roberta(model, read_roberta(name_or_path), skip_layers)
    report.log(name_or_path, partial=True)
    return report


def read_roberta(name_or_path: str) -> dict[str, Any]:
    """Read RoBERTa's weights from a file of weights, a model folder, or a hub name.

    Raises:
        UserError: it is none of them, or a HERO checkpoint.
    """
    path = Path(name_or_path)
    path = weights_file(path) if path.exists() else _fetch(name_or_path)
    state = read_state_dict(path)
    if any(SHARED_ENCODER in name for name in state):
        raise UserError(
            f"{path} is a HERO checkpoint, not RoBERTa: it is loaded without "
            "--load_partial_pretrained (--no_load_partial_pretrained where a recipe has it)"
        )
    return state


def _fetch(name: str) -> Path:
    """Return a model's file of weights from the hub (or its local cache)."""
    problem = (
        f"{name} is neither a file of weights, nor a RoBERTa folder, nor a model that the hub gave"
    )
    for file in FOLDER_FILES:  # each has all weights: the second is fetched without the first only
        folder = fetch_folder(name, (file,), problem, "download it and give its folder")
        if (folder / file).is_file():
            break
    return weights_file(folder)


def roberta_to_hero(
    state: dict[str, Any], num_layers: int, skip_layers: bool
) -> tuple[dict[str, Any], list[str]]:
    """Rename RoBERTa's weights to those of the cross-modal transformer.

    Args:
        state: any number of layers, with ``lm_head`` or without; names with ``roberta.`` or not.
        num_layers: n layers of the cross-modal transformer.
        skip_layers: take every (their number / n)-th layer, the last of each group (1, 3, 5, … for
            6 of 12), instead of the first n.

    Returns:
        Entries by their new names (others by their old ones), and the names of the layers that are
        left out.

    Raises:
        UserError: there are fewer layers than needed.
    """
    bare = {name: _bare(name) for name in state}
    layers = {int(layer[1]) for name in bare.values() if (layer := LAYER_NAME.match(name))}
    if len(layers) < num_layers:
        raise UserError(
            f"the RoBERTa checkpoint has {len(layers)} layers under 'roberta.encoder.layer', the "
            f"model needs {num_layers}: is it a RoBERTa state dict?"
        )
    step = len(layers) // num_layers if skip_layers else 1
    own_layer = {(i + 1) * step - 1: i for i in range(num_layers)}
    if OUTPUT_BIAS not in bare.values():
        bare = {n: OUTPUT_BIAS if b == OUTPUT_BIAS_AGAIN else b for n, b in bare.items()}
    renamed, left_out = {}, []
    for name, value in state.items():
        own = bare[name]
        if layer := LAYER_NAME.match(own):
            if int(layer[1]) not in own_layer:
                left_out.append(name)
                continue
            own = f"encoder.layer.{own_layer[int(layer[1])]}.{layer[2]}"
        is_new = KNOWN.match(own) and TARGET + own not in renamed
        renamed[TARGET + own if is_new else name] = value
    return renamed, left_out


def _bare(name: str) -> str:
    """Return a name without ``roberta.``, in HERO's spelling."""
    return name.removeprefix(PREFIX).replace("lm_head.layer_norm.", "lm_head.LayerNorm.")


def load_roberta(model: HeroModel, state: dict[str, Tensor], skip_layers: bool) -> LoadReport:
    """Initialise the cross-modal transformer of ``model`` from RoBERTa's weights."""
    layers = len(model.v_encoder.f_encoder.encoder.layer)
    named, prefix = strip_prefix(normalise_names(state), lambda name: bool(KNOWN.match(name)))
    renamed, left_out = roberta_to_hero(named, layers, skip_layers)
    report = load_weights(model, renamed)
    report.prefix, report.left_out = prefix, left_out
    return report
