"""Colours, shapes and motion as features: an extractor that needs no training.

``--models scripts.demo_corpus.film_features:ColoursAndShapes`` (see model/extractors/build.py). Of
the saturated pixels of a picture it gives hues, outline, position, and motion in the window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HUES = 12
GRID = 6  # squares that an outline's box is cut into, each way
STEPS = 4  # left, right, up, down
SATURATED = 70  # difference of the brightest and the darkest channel
LEAST_PIXELS = 12
_STEP_GAIN = 8.0  # a shape crosses some tenth of the picture within a window


class ColoursAndShapes(nn.Module):
    """HUES shares, GRID² shares of filled ground, place and size, STEPS: all from 0 to about 1."""

    name = "shapes"
    width = HUES + GRID**2 + 3 + STEPS
    frame_times = (0.2, 0.5, 0.8)
    whole_pictures = True

    def forward(self, windows: Tensor) -> Tensor:
        """(B, 3, height, width, 3) uint8, RGB → (B, width)."""
        return torch.stack([self._window(window.float()) for window in windows])

    def _window(self, pictures: Tensor) -> Tensor:
        looks, places = zip(*map(self._picture, pictures), strict=True)
        look = torch.stack(looks).mean(dim=0)
        step = look.new_zeros(2)
        if all(place is not None for place in places):
            step = _STEP_GAIN * (places[-1] - places[0])
        return torch.cat([look, torch.stack([-step, step], dim=1).flatten().clamp(0, 2)])

    @staticmethod
    def _picture(picture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features of a picture (height, width, 3), and the place (x, y) of its shape."""
        brightest, darkest = picture.amax(dim=-1), picture.amin(dim=-1)
        mask = brightest - darkest > SATURATED
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows) < LEAST_PIXELS:
            return picture.new_zeros(ColoursAndShapes.width - STEPS), None
        height, width = mask.shape
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        filled = F.adaptive_avg_pool2d(box.float()[None], GRID).flatten()
        place = torch.stack([columns.float().mean() / width, rows.float().mean() / height])
        size = (len(rows) / mask.numel()) ** 0.5
        looks = [_hues(picture[rows, columns]), filled, place, place.new_tensor([size])]
        return torch.cat(looks), place


def _hues(pixels: Tensor) -> Tensor:
    """Return shares (HUES,) of the hues of pixels (n, 3), interpolated between two hues."""
    red, green, blue = pixels.unbind(dim=-1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)  # −π to π, 0: red
    position = angle / (2 * torch.pi) % 1 * HUES
    lower = position.floor()
    weight = position - lower
    shares = pixels.new_zeros(HUES)
    shares.index_add_(0, lower.long() % HUES, 1 - weight)
    shares.index_add_(0, (lower.long() + 1) % HUES, weight)
    return shares / len(pixels)
