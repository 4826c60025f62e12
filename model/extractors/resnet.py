"""ResNet-152 (arXiv 1512.03385) up to its global average pool: 2048 values an image.

The network is that of ``transformers``, with the stride in the 3 × 3 convolution, as torchvision's.
Weights come as torchvision's ``resnet152-*.pth`` or as a Hugging Face model (microsoft/resnet-152).
"""

import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetModel

from model.extractors.extractor import StackedExtractor
from model.extractors.weights import Layout, Replacement

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_BLOCK = r"layer(\d+)\.(\d+)\."


def _in_block(rest: str) -> Replacement:
    """A replacement that counts stages from 0."""
    return lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}." + m.expand(rest)


def _in_unit(part: str) -> Replacement:
    """The same for convolution or normalisation ``m[3]`` of a block, counted from 0 too."""
    return lambda m: (
        f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.layer.{int(m[3]) - 1}.{part}.{m[4]}"
    )


TORCHVISION = Layout(
    title="torchvision's names",
    marker=r"^layer1\.0\.conv1\.",
    unused=r"^fc\.",
    rules=(
        (r"conv1\.(.+)", r"embedder.embedder.convolution.\1"),
        (r"bn1\.(.+)", r"embedder.embedder.normalization.\1"),
        (_BLOCK + r"conv(\d)\.(.+)", _in_unit("convolution")),
        (_BLOCK + r"bn(\d)\.(.+)", _in_unit("normalization")),
        (_BLOCK + r"downsample\.0\.(.+)", _in_block(r"shortcut.convolution.\3")),
        (_BLOCK + r"downsample\.1\.(.+)", _in_block(r"shortcut.normalization.\3")),
    ),
)
HUGGING_FACE = Layout(
    title="Hugging Face's names",
    marker=r"^(resnet\.)?embedder\.embedder\.",
    unused=r"^classifier\.",
    rules=((r"(?:resnet\.)?((?:embedder|encoder)\..+)", r"\1"),),
)


class ResNetFeatures(StackedExtractor):
    """One feature an image.

    Args:
        depths, widths: blocks and channels of the four stages.
    """

    title = "resnet152"
    source = "https://download.pytorch.org/models/resnet152-394f9c45.pth"
    layouts = (TORCHVISION, HUGGING_FACE)
    branch_end = ".layer.2.normalization"  # the last normalisation of a block's branch
    frame_times = (0.5,)  # of the window that a feature covers: its centre
    whole_pictures = False
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 8, 36, 3),
        widths: tuple[int, ...] = (256, 512, 1024, 2048),
    ) -> None:
        super().__init__()
        self.network = ResNetModel(ResNetConfig(depths=list(depths), hidden_sizes=list(widths)))
        self.width = widths[-1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S, 3) uint8, RGB → (B, width)."""
        pixels = (images[:, 0].to(self.mean.dtype) / 255 - self.mean) / self.std
        return self.network(pixels.permute(0, 3, 1, 2)).pooler_output.flatten(1)
