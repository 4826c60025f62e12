"""The extractors' networks, made small: few channels, and they see every eighth pixel.

``python -m tests.support.small_extractors`` runs scripts/extract_features.py with them.
"""

import sys
from collections.abc import Callable

from torch import Tensor

from model.extractors.build import EXTRACTORS
from model.extractors.resnet import ResNetFeatures
from model.extractors.slowfast import SlowFastFeatures


class SmallResNet(ResNetFeatures):
    """One block a stage."""

    WIDTH = 32

    def __init__(self) -> None:
        super().__init__(depths=(1, 1, 1, 1), widths=(16, 16, 32, self.WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images[..., ::8, ::8, :])


class SmallSlowFast(SlowFastFeatures):
    """One block a stage, a stem of eight channels."""

    WIDTH = 256 + 32

    def __init__(self) -> None:
        super().__init__(stem_width=8, depths=(1, 1, 1, 1))

    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips[..., ::8, ::8, :])


def use_small_networks(replace: Callable[[str, type], None] = EXTRACTORS.__setitem__) -> None:
    """Let the script build these instead of ResNet-152 and SlowFast R50."""
    replace("resnet", SmallResNet)
    replace("slowfast", SmallSlowFast)


if __name__ == "__main__":
    from scripts.extract_features import main

    use_small_networks()
    main(sys.argv[1:])
