"""Frame order modelling (paper, section 3.2): find out where shuffled frames came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import FomBatch
from data.loader import ItemKey
from data.video import VideoItem, VideoSource, collate_videos

SHUFFLED_SHARE = 0.15


@dataclass
class FomItem:
    """A video and the order in which the temporal transformer sees its frames."""

    video: VideoItem
    order: np.ndarray  # (T,) the slot that each frame moves to
    chosen: np.ndarray  # (M,) the frames that were shuffled, also those that stayed in place


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


class FomDataset:
    """A video with some frames out of order.

    Args:
        vids: the videos.
        source: reads them.
        seed: of the shuffles.
    """

    def __init__(self, vids: Sequence[str], source: VideoSource, seed: int) -> None:
        self.vids, self.source, self.seed = vids, source, seed

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> FomItem:
        key = ItemKey.of(key)
        video = self.source(self.vids[key.index])
        order, chosen = shuffle_some(video.num_frames, SHUFFLED_SHARE, key.generator(self.seed))
        return FomItem(video, order, chosen)


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
        places=torch.from_numpy(np.concatenate([item.chosen for item in items])),
    )
