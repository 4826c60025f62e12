"""Building a feature extractor: a known one, trained or untrained, or a class of the user's.

A class of the user's is named ``package.module:Class`` (on PYTHONPATH) and constructed without
arguments. It is an ``nn.Module`` with the class attributes

    name            of its features: <name>_features
    width           D
    frame_times     of the frames of a window that it reads, as fractions of the window: (0.5,)
    whole_pictures  False: it reads the centre of a scaled frame (224 × 224); True: the whole frame

whose ``forward`` maps windows (B, K, height, width, 3) uint8, RGB, to features (B, D).
"""

import importlib
import inspect
from pathlib import Path

import torch
from torch import nn

from model.extractors.extractor import Extractor, StackedExtractor
from model.extractors.image_text import ClipFeatures
from model.extractors.resnet import ResNetFeatures
from model.extractors.slowfast import SlowFastFeatures
from model.extractors.weights import load_published
from utils.errors import UserError
from utils.tensor_files import weights_file

EXTRACTORS: dict[str, type[StackedExtractor] | type[ClipFeatures]] = {
    "resnet": ResNetFeatures,
    "slowfast": SlowFastFeatures,
    "clip": ClipFeatures,
}
HERO_EXTRACTORS = ("resnet", "slowfast")  # of the published HERO's features
_ATTRIBUTES = ("name", "width", "frame_times", "whole_pictures")
UNTRAINED_SEED = 0
UNTRAINED_BRANCH = 0.25  # scale of a residual branch; with 1, untrained activations would explode


def build_extractor(name: str, weights: str | None, device: torch.device, half: bool) -> Extractor:
    """Return an extractor in evaluation mode.

    Args:
        name: key of ``EXTRACTORS``, or a class of the user's.
        weights: file or Hugging Face folder, for CLIP also a name on the hub; None: random ones,
            the same at every call.
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
        elif issubclass(kind := EXTRACTORS[name], StackedExtractor):
            model = kind()
            if weights is None:
                _initialise_untrained(model)
            else:
                network = model.network if isinstance(model, ResNetFeatures) else model
                load_published(network, weights_file(weights), kind.layouts)
        else:
            model = kind.load(weights)
    model = model.to(device).eval()
    return model.half() if half else model


def find_class(name: str) -> type[Extractor]:
    """Return the user's extractor ``package.module:Class``.

    Raises:
        UserError: there is none, or it lacks an attribute of an extractor.
    """
    module, _, title = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), title)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the extractor {name} cannot be found ({error})") from error
    missing = [each for each in _ATTRIBUTES if not hasattr(cls, each)]
    is_module = inspect.isclass(cls) and issubclass(cls, nn.Module)
    if missing or not is_module:
        raise UserError(
            f"the extractor {name} must be an nn.Module with {', '.join(_ATTRIBUTES)}"
            + (f": it lacks {missing[0]}" if missing else "")
        )
    if cls.name in EXTRACTORS:
        raise UserError(f"the extractor {name} must not be called {cls.name}, as another is")
    return cls


def source_file(kind: type[nn.Module]) -> Path:
    """Return the source file of a user's extractor."""
    return Path(inspect.getfile(kind))


@torch.no_grad()
def _initialise_untrained(model: StackedExtractor) -> None:
    """Draw weights that keep activations in range through all blocks (arXiv 1502.01852)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif name.endswith(model.branch_end):
            module.weight.fill_(UNTRAINED_BRANCH)
