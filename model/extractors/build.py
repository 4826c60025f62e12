"""A feature extractor: one of those below from its weights or untrained, or a class of yours.

A class of yours is named ``package.module:Class`` (PYTHONPATH leads to it) and constructed without
arguments. It is an ``nn.Module`` with the class attributes

    name            of its features: <name>_features
    width           D
    frame_times     of the frames of a window that it sees, as fractions of the window: (0.5,)
    whole_pictures  False: it sees the centre of a scaled frame (224 × 224); True: all of the frame

whose ``forward`` makes features (B, D) of windows (B, K, height, width, 3) uint8, RGB.
"""

import importlib
import inspect
from pathlib import Path

import torch
from torch import nn

from model.extractors.extractor import Extractor, PublishedExtractor, StackedExtractor
from model.extractors.image_text import ClipFeatures
from model.extractors.resnet import ResNetFeatures
from model.extractors.slowfast import SlowFastFeatures
from model.extractors.weights import load_published
from utils.errors import UserError
from utils.tensor_files import weights_file

STACKED: dict[str, type[StackedExtractor]] = {
    "resnet": ResNetFeatures,
    "slowfast": SlowFastFeatures,
}
EXTRACTORS: dict[str, type[PublishedExtractor]] = {**STACKED, "clip": ClipFeatures}
HERO_EXTRACTORS = ("resnet", "slowfast")  # whose features HERO was published with
_ATTRIBUTES = ("name", "width", "frame_times", "whole_pictures")
UNTRAINED_SEED = 0
# Factor on what a residual block adds: with 1, untrained activations double from block to block.
UNTRAINED_BRANCH = 0.25


def build_extractor(name: str, weights: str | None, device: torch.device, half: bool) -> Extractor:
    """An extractor in evaluation mode.

    Args:
        name: key of ``EXTRACTORS``, or a class of the user's.
        weights: file or Hugging Face folder, of CLIP also its name on the hub; None: untrained,
            always with the same weights.
        device: where it computes.
        half: compute in half precision.

    Raises:
        UserError: the weights, or the class, cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        model: Extractor
        if name not in EXTRACTORS:
            model = find_class(name)()
        elif name in STACKED:
            model = _stacked(STACKED[name], weights)
        else:
            model = ClipFeatures.load(weights)
    model = model.to(device).eval()
    return model.half() if half else model


def _stacked(kind: type[StackedExtractor], weights: str | None) -> StackedExtractor:
    model = kind()
    if weights is None:
        _initialise_untrained(model)
    else:
        network = model.network if isinstance(model, ResNetFeatures) else model
        load_published(network, weights_file(weights), model.layouts)
    return model


def find_class(name: str) -> type[Extractor]:
    """Return the user's extractor ``package.module:Class``.

    Raises:
        UserError: there is none, or it lacks something that an extractor has.
    """
    module, _, title = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), title)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the extractor {name} cannot be found ({error})") from error
    missing = [each for each in _ATTRIBUTES if not hasattr(found, each)]
    is_module = inspect.isclass(found) and issubclass(found, nn.Module)
    if missing or not is_module:
        raise UserError(
            f"the extractor {name} must be an nn.Module with {', '.join(_ATTRIBUTES)}"
            + (f": it lacks {missing[0]}" if missing else "")
        )
    if found.name in EXTRACTORS:
        raise UserError(f"the extractor {name} must not be called {found.name}, as another is")
    return found


def source_file(kind: type[nn.Module]) -> Path:
    """The file of a user's extractor: what made its features."""
    return Path(inspect.getfile(kind))


@torch.no_grad()
def _initialise_untrained(model: StackedExtractor) -> None:
    """Weights that keep activations in range through all blocks (He et al., arXiv 1502.01852)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif name.endswith(model.branch_end):
            module.weight.fill_(UNTRAINED_BRANCH)
