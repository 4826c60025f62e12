"""Frame order modelling (paper, section 3.2): predict the true positions of shuffled frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import FomBatch
from data.video import VideoDataset, VideoItem, collate_videos

SHUFFLED_SHARE = 0.15


@dataclass
class FomItem:
    """A video and the order in which the temporal transformer sees its frames."""

    video: VideoItem
    order: np.ndarray  # (T,) the slot that each frame moves to
    chosen: np.ndarray  # (M,) the frames that were shuffled, also those that did not move


def shuffle_some(
    num_frames: int, prob: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose each frame with probability ``prob``, and permute the chosen ones' slots.

    Returns:
        order (T,), and the chosen frames (M,), maybe none.
    """
    order = np.arange(num_frames)
    chosen = np.flatnonzero(rng.random(num_frames) < prob)
    order[chosen] = rng.permutation(chosen)
    return order, chosen


class FomDataset(VideoDataset[FomItem]):
    """Videos with some frames shuffled."""

    def item(self, vid: str, rng: np.random.Generator) -> FomItem:
        """See :class:`data.video.VideoDataset`."""
        video = self.source(vid)
        return FomItem(video, *shuffle_some(video.num_frames, SHUFFLED_SHARE, rng))


def collate_fom(items: Sequence[FomItem]) -> FomBatch:
    """Pack items; a batch may have no chosen frame (M = 0)."""
    lengths = np.array([item.video.num_frames for item in items])
    firsts = np.cumsum(lengths) - lengths
    source = [
        first + np.argsort(item.order) for first, item in zip(firsts, items, strict=True)
    ]  # the inverse of a permutation sorts it
    slots = [first + item.order[item.chosen] for first, item in zip(firsts, items, strict=True)]
    return FomBatch(
        ids=[item.video.vid for item in items],
        video=collate_videos([item.video for item in items]),
        source=torch.from_numpy(np.concatenate(source)),
        slots=torch.from_numpy(np.concatenate(slots)),
        targets=torch.from_numpy(np.concatenate([item.chosen for item in items])),
    )
