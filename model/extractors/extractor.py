"""Several networks that see the same windows of frames."""

import numpy as np
import torch
from torch import nn


class FeatureExtractor:
    """Runs the networks over windows of frames.

    Args:
        models: {extractor: network}, all of which see the same windows.
        device: where they compute.

    Attributes:
        times: of the frames of a window that they see, as fractions of it.
        whole: they see whole pictures, not the scaled centre.
    """

    def __init__(self, models: dict[str, nn.Module], device: torch.device) -> None:
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
