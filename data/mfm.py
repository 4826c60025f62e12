"""Masked frame modelling (paper, section 3.2): guess hidden frames from the rest of the video."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import MfmBatch
from data.loader import ItemKey
from data.video import VideoItem, VideoSource, collate_videos


@dataclass
class MfmItem:
    """A video and which of its frames are hidden."""

    video: VideoItem
    mask: np.ndarray  # (T,) bool


def choose_frames(num_frames: int, prob: float, rng: np.random.Generator) -> np.ndarray:
    """(T,) bool: each frame with probability ``prob``, at least one."""
    chosen = rng.random(num_frames) < prob
    if not chosen.any():
        chosen[rng.integers(num_frames)] = True
    return chosen


class MfmDataset:
    """A video with some frames to guess.

    Args:
        vids: the videos.
        source: reads them.
        mask_prob: chance of a frame to be chosen.
        seed: of the masks.
    """

    def __init__(
        self, vids: Sequence[str], source: VideoSource, mask_prob: float, seed: int
    ) -> None:
        self.vids, self.source, self.seed = vids, source, seed
        self.mask_prob = mask_prob

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> MfmItem:
        key = ItemKey.of(key)
        video = self.source(self.vids[key.index])
        mask = choose_frames(video.num_frames, self.mask_prob, key.generator(self.seed))
        return MfmItem(video, mask)


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
