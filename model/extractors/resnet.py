"""ResNet-152 (arXiv 1512.03385) up to its global average pool: 2048 values per image.

The network is that of ``transformers``, with the stride in the 3 × 3 convolution as in torchvision.
Weights come as torchvision's ``resnet152-*.pth`` or as a Hugging Face model (microsoft/resnet-152).
"""

import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetModel

from model.extractors.extractor import StackedExtractor
from model.extractors.weights import Layout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_BLOCK, _OWN_BLOCK = r"layer(\d+)\.(\d+)\.", r"encoder.stages.<1>.layers.\2."

TORCHVISION = Layout(
    title="torchvision's names",
    marker=r"^layer1\.0\.conv1\.",
    unused=r"^fc\.",
    rules=(
        (r"conv1\.(.+)", r"embedder.embedder.convolution.\1"),
        (r"bn1\.(.+)", r"embedder.embedder.normalization.\1"),
        (_BLOCK + r"conv(\d)\.(.+)", _OWN_BLOCK + r"layer.<3>.convolution.\4"),
        (_BLOCK + r"bn(\d)\.(.+)", _OWN_BLOCK + r"layer.<3>.normalization.\4"),
        (_BLOCK + r"downsample\.0\.(.+)", _OWN_BLOCK + r"shortcut.convolution.\3"),
        (_BLOCK + r"downsample\.1\.(.+)", _OWN_BLOCK + r"shortcut.normalization.\3"),
    ),
)
HUGGING_FACE = Layout(
    title="Hugging Face's names",
    marker=r"^(resnet\.)?embedder\.embedder\.",
    unused=r"^classifier\.",
    rules=((r"(?:resnet\.)?((?:embedder|encoder)\..+)", r"\1"),),
)


class ResNetFeatures(StackedExtractor):
    """One feature per image.

    Args:
        depths, widths: blocks and channels of the four stages.
    """

    title = "resnet152"
    source = "https://download.pytorch.org/models/resnet152-394f9c45.pth"
    layouts = (TORCHVISION, HUGGING_FACE)
    branch_end = ".layer.2.normalization"
    frame_times = (0.5,)  # of a feature's window: its centre
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
        """Return features (B, width) of images (B, 1, S, S, 3) uint8, RGB."""
        pixels = (images[:, 0].to(self.mean.dtype) / 255 - self.mean) / self.std
        return self.network(pixels.permute(0, 3, 1, 2)).pooler_output.flatten(1)
