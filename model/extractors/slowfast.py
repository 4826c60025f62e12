"""SlowFast R50 8×8 (arXiv 1812.03982) up to its global average pools: 2048 + 256 values per clip.

Two ResNet-50s process one clip: the slow pathway few frames with many channels, the fast pathway
all frames with few. After each stage but the last, the fast pathway's activations are concatenated
to the slow one's. Weights (Kinetics-400) come as PySlowFast's checkpoint or as PyTorchVideo's.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.extractors.extractor import StackedExtractor
from model.extractors.weights import Layout

CLIP_FRAMES = 32  # T of the fast pathway
ALPHA = 4  # the slow pathway has T / ALPHA frames …
BETA_INVERSE = 8  # … and this many times the fast pathway's channels
FUSION_RATIO = 2  # channels of a lateral connection, in multiples of the fast pathway's
FUSION_KERNEL = 7
KINETICS_MEAN, KINETICS_STD = 0.45, 0.225
DEPTHS = (3, 4, 6, 3)
STEM_WIDTH = 64
# Temporal size of the first convolution of a stage's blocks.
SLOW_KERNELS, FAST_KERNELS = (1, 1, 3, 3), (3, 3, 3, 3)

_PYSLOWFAST_BLOCK = r"s([2-5])\.pathway([01])_res(\d+)\."
_PYTORCHVIDEO_BLOCK = r"blocks\.([1-4])\.multipathway_blocks\.([01])\.res_blocks\.(\d+)\."
_PYTORCHVIDEO_STEM = r"blocks\.(0)\.multipathway_blocks\.([01])\."
_PYTORCHVIDEO_FUSION = r"blocks\.([0-3])\.multipathway_fusion\."

PYSLOWFAST = Layout(
    title="PySlowFast's names",
    marker=r"^s1\.pathway0_stem\.",
    unused=r"^head\.",
    rules=(
        (r"s(1)\.pathway([01])_stem\.conv\.(.+)", r"levels.<1>.pathways.\2.conv.\3"),
        (r"s(1)\.pathway([01])_stem\.bn\.(.+)", r"levels.<1>.pathways.\2.norm.\3"),
        (r"s([1-4])_fuse\.conv_f2s\.(.+)", r"levels.<1>.fuse.conv.\2"),
        (r"s([1-4])_fuse\.bn\.(.+)", r"levels.<1>.fuse.norm.\2"),
        (_PYSLOWFAST_BLOCK + r"branch1\.(.+)", r"levels.<1>.pathways.\2.\3.shortcut.conv.\4"),
        (_PYSLOWFAST_BLOCK + r"branch1_bn\.(.+)", r"levels.<1>.pathways.\2.\3.shortcut.norm.\4"),
        (_PYSLOWFAST_BLOCK + r"branch2\.([abc])\.(.+)", r"levels.<1>.pathways.\2.\3.\4.conv.\5"),
        (_PYSLOWFAST_BLOCK + r"branch2\.([abc])_bn\.(.+)", r"levels.<1>.pathways.\2.\3.\4.norm.\5"),
    ),
)
PYTORCHVIDEO = Layout(
    title="PyTorchVideo's names",
    marker=r"^blocks\.0\.multipathway_blocks\.",
    unused=r"^blocks\.6\.",
    rules=(
        (_PYTORCHVIDEO_STEM + r"(conv|norm)\.(.+)", r"levels.\1.pathways.\2.\3.\4"),
        (_PYTORCHVIDEO_FUSION + r"conv_fast_to_slow\.(.+)", r"levels.\1.fuse.conv.\2"),
        (_PYTORCHVIDEO_FUSION + r"norm\.(.+)", r"levels.\1.fuse.norm.\2"),
        (
            _PYTORCHVIDEO_BLOCK + r"branch1_(conv|norm)\.(.+)",
            r"levels.\1.pathways.\2.\3.shortcut.\4.\5",
        ),
        (
            _PYTORCHVIDEO_BLOCK + r"branch2\.(conv|norm)_([abc])\.(.+)",
            r"levels.\1.pathways.\2.\3.\5.\4.\6",
        ),
    ),
)

Triple = tuple[int, int, int]  # frames, height, width


class ConvNorm(nn.Module):
    """A convolution over time, height and width, "same" padding at stride 1, and batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        frames, height, width = kernel
        padding = frames // 2, height // 2, width // 2
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Stem(ConvNorm):
    """The first convolution of a pathway, and its max pool."""

    def __init__(self, outputs: int, frames: int) -> None:
        super().__init__(3, outputs, (frames, 7, 7), (1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(super().forward(x).relu_(), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Bottleneck(nn.Module):
    """A residual block; ``a`` is temporal, ``b`` spatial."""

    def __init__(self, inputs: int, outputs: int, frames: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.a = ConvNorm(inputs, inner, (frames, 1, 1))
        self.b = ConvNorm(inner, inner, (1, 3, 3), (1, stride, stride))
        self.c = ConvNorm(inner, outputs, (1, 1, 1))
        self.shortcut = None
        if inputs != outputs or stride != 1:
            self.shortcut = ConvNorm(inputs, outputs, (1, 1, 1), (1, stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        return (self.c(self.b(self.a(x).relu_()).relu_()) + residual).relu_()


def _stage(inputs: int, outputs: int, depth: int, frames: int, stride: int) -> nn.Sequential:
    widths = itertools.pairwise([inputs, *[outputs] * depth])
    return nn.Sequential(
        *(Bottleneck(*io, frames, stride if number == 0 else 1) for number, io in enumerate(widths))
    )


class Level(nn.Module):
    """One stage of both pathways, and the lateral connection after it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fast_width: int | None) -> None:
        super().__init__()
        self.pathways = nn.ModuleList([slow, fast])
        self.fuse = None
        if fast_width is not None:
            kernel, stride = (FUSION_KERNEL, 1, 1), (ALPHA, 1, 1)
            self.fuse = ConvNorm(fast_width, FUSION_RATIO * fast_width, kernel, stride)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.pathways[0](slow), self.pathways[1](fast)
        if self.fuse is not None:
            slow = torch.cat([slow, self.fuse(fast).relu_()], dim=1)
        return slow, fast


class SlowFastFeatures(StackedExtractor):
    """One feature per clip of 32 frames.

    Args:
        stem_width: channels of the slow pathway's stem; all others are multiples.
        depths: blocks of the four stages.
    """

    title = "slowfast_8x8_r50"
    source = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth"
    layouts = (PYSLOWFAST, PYTORCHVIDEO)
    branch_end = ".c.norm"
    frame_times = tuple((n + 0.5) / CLIP_FRAMES for n in range(CLIP_FRAMES))  # of a window
    whole_pictures = False
    slow_frames: Tensor

    def __init__(self, stem_width: int = STEM_WIDTH, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        fast_width = stem_width // BETA_INVERSE
        levels = [Level(Stem(stem_width, frames=1), Stem(fast_width, frames=5), fast_width)]
        slow, fast = stem_width, fast_width
        for number, depth in enumerate(depths):
            outputs = stem_width * 4 * 2**number
            stride = 1 if number == 0 else 2
            joined = slow + FUSION_RATIO * fast
            pathways = (
                _stage(joined, outputs, depth, SLOW_KERNELS[number], stride),
                _stage(fast, outputs // BETA_INVERSE, depth, FAST_KERNELS[number], stride),
            )
            slow, fast = outputs, outputs // BETA_INVERSE
            levels.append(Level(*pathways, fast if number < len(depths) - 1 else None))
        self.levels = nn.ModuleList(levels)
        self.width = slow + fast
        # The published weights were trained with these frames: 0, 31 and six in between.
        slow_frames = torch.linspace(0, CLIP_FRAMES - 1, CLIP_FRAMES // ALPHA).long()
        self.register_buffer("slow_frames", slow_frames, persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return features (B, width), slow | fast, of clips (B, 32, S, S, 3) uint8, RGB."""
        dtype = next(self.parameters()).dtype
        pixels = (clips.to(dtype) / 255 - KINETICS_MEAN) / KINETICS_STD
        fast = pixels.permute(0, 4, 1, 2, 3)  # (B, 3, 32, S, S)
        slow = fast[:, :, self.slow_frames]
        for level in self.levels:
            slow, fast = level(slow, fast)
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)
