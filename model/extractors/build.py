"""A feature extractor from a file of weights, or untrained."""

import torch
from torch import nn

from model.extractors.resnet import ResNetFeatures
from model.extractors.slowfast import SlowFastFeatures
from model.extractors.weights import load_published
from utils.tensor_files import weights_file

EXTRACTORS: dict[str, type[nn.Module]] = {"resnet": ResNetFeatures, "slowfast": SlowFastFeatures}
UNTRAINED_SEED = 0
# Factor on what a residual block adds: with 1, untrained activations double from block to block.
UNTRAINED_BRANCH = 0.25


def build_extractor(name: str, weights: str | None, device: torch.device, half: bool) -> nn.Module:
    """An extractor in evaluation mode.

    Args:
        name: key of ``EXTRACTORS``.
        weights: file or Hugging Face folder; None: untrained, always with the same weights.
        device: where it computes.
        half: compute in half precision.

    Raises:
        UserError: the weights cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        model = EXTRACTORS[name]()
        if weights is None:
            _initialise_untrained(model)
    if weights is not None:
        load_published(model.network, weights_file(weights), model.layouts)
    model = model.to(device).eval()
    return model.half() if half else model


@torch.no_grad()
def _initialise_untrained(model: nn.Module) -> None:
    """Weights that keep activations in range through all blocks (He et al., arXiv 1502.01852)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif name.endswith(model.branch_end):
            module.weight.fill_(UNTRAINED_BRANCH)
