"""Masked frame modelling (paper, section 3.2): predict masked frames from the rest of the video."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import MfmBatch
from data.video import VideoDataset, VideoItem, VideoSource, collate_videos


@dataclass
class MfmItem:
    """A video and which of its frames are masked."""

    video: VideoItem
    mask: np.ndarray  # (T,) bool


def choose_frames(num_frames: int, prob: float, rng: np.random.Generator) -> np.ndarray:
    """Return (T,) bool: each frame is chosen with probability ``prob``, at least one."""
    chosen = rng.random(num_frames) < prob
    if not chosen.any():
        chosen[rng.integers(num_frames)] = True
    return chosen


class MfmDataset(VideoDataset[MfmItem]):
    """Videos with some frames masked.

    Args:
        vids, source, seed: see :class:`data.video.VideoDataset`.
        mask_prob: probability of a frame to be masked.
    """

    def __init__(
        self, vids: Sequence[str], source: VideoSource, mask_prob: float, seed: int
    ) -> None:
        super().__init__(vids, source, seed)
        self.mask_prob = mask_prob

    def item(self, vid: str, rng: np.random.Generator) -> MfmItem:
        """See :class:`data.video.VideoDataset`."""
        video = self.source(vid)
        return MfmItem(video, choose_frames(video.num_frames, self.mask_prob, rng))


def collate_mfm(items: Sequence[MfmItem]) -> MfmBatch:
    """Pack items."""
    mask = torch.from_numpy(np.concatenate([item.mask for item in items]))
    return MfmBatch(
        ids=[item.video.vid for item in items],
        video=collate_videos([item.video for item in items]),
        frame_mask=mask,
        chosen=mask.nonzero()[:, 0],
        others=(~mask).nonzero()[:, 0],
    )
