"""Base classes of feature extractors, and several of them over the same windows of frames."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from model.extractors.weights import Layout


class Extractor(nn.Module):
    """A network that computes features (B, D) of windows (B, K, height, width, 3) uint8.

    A class of the user's needs these attributes only (:mod:`model.extractors.build`).
    """

    name: str  # of the user's
    width: int  # D
    frame_times: tuple[float, ...]  # of the K frames of a window, as fractions of it
    whole_pictures: bool  # not the scaled centre


class PublishedExtractor(Extractor):
    """A network with published weights."""

    title: str
    source: str  # of its weights


class StackedExtractor(PublishedExtractor):
    """Residual blocks, with weights in one of several layouts."""

    layouts: tuple[Layout, ...]
    branch_end: str  # end of the name of the last normalisation of a block's branch


class FeatureExtractor:
    """Runs several networks over the same windows of frames.

    Args:
        models: {extractor: network}.
        device: where they compute.

    Attributes:
        times: of the frames of a window that any of them reads, as fractions of it.
        whole: they read complete pictures, not the scaled centre.
    """

    def __init__(self, models: Mapping[str, Extractor], device: torch.device) -> None:
        self._models = models
        self._device = device
        self.times = tuple(sorted({t for model in models.values() for t in model.frame_times}))
        self.whole = any(model.whole_pictures for model in models.values())
        self._indices = {
            name: [self.times.index(t) for t in model.frame_times] for name, model in models.items()
        }

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Return {extractor: (B, D) float32} of windows (B, K, height, width, 3) uint8."""
        pixels = torch.from_numpy(frames).to(self._device)
        return {
            name: model(pixels[:, self._indices[name]]).float().cpu().numpy()
            for name, model in self._models.items()
        }
