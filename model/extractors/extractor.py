"""Several networks that see the same windows of frames."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from model.extractors.weights import Layout


class Extractor(nn.Module):
    """A network that makes features (B, D) of windows (B, K, height, width, 3) uint8.

    A class of the user's only needs these attributes (:mod:`model.extractors.build`).
    """

    name: str  # of the user's
    width: int  # D
    frame_times: tuple[float, ...]  # of the frames of a window that it sees
    whole_pictures: bool


class PublishedExtractor(Extractor):
    """One whose weights are published."""

    title: str
    source: str  # of its weights


class StackedExtractor(PublishedExtractor):
    """Residual blocks, whose weights come in one of several layouts."""

    layouts: tuple[Layout, ...]
    branch_end: str  # of the name of the last normalisation of a block's branch


class FeatureExtractor:
    """Runs the networks over windows of frames.

    Args:
        models: {extractor: network}, all of which see the same windows.
        device: where they compute.

    Attributes:
        times: of the frames of a window that they see, as fractions of it.
        whole: they see whole pictures, not the scaled centre.
    """

    def __init__(self, models: Mapping[str, Extractor], device: torch.device) -> None:
        self._models = models
        self._device = device
        self.times = tuple(sorted({t for model in models.values() for t in model.frame_times}))
        self.whole = any(model.whole_pictures for model in models.values())
        self._places = {
            name: [self.times.index(t) for t in model.frame_times] for name, model in models.items()
        }

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """{extractor: (B, D) float32} of windows (B, K, height, width, 3) uint8."""
        pixels = torch.from_numpy(frames).to(self._device)
        return {
            name: model(pixels[:, self._places[name]]).float().cpu().numpy()
            for name, model in self._models.items()
        }
