"""Masked language modelling (paper, section 3.2): guess hidden words of the subtitles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import MlmBatch
from data.loader import ItemKey
from data.tokenize import SPECIAL
from data.video import (
    Subtitle,
    SubtitleSource,
    Transcript,
    VideoItem,
    collate_videos,
    cut_texts,
    read_features,
)

MASKED_SHARE = 0.8  # of the chosen tokens; BERT's shares (arXiv 1810.04805)
RANDOM_SHARE = 0.1


@dataclass
class MlmItem:
    """A video whose subtitles are masked."""

    video: VideoItem
    labels: list[dict[int, int]]  # per subtitle: place in its text → the token that stood there


@dataclass(frozen=True)
class TokenMasking:
    """How tokens are hidden.

    Attributes:
        prob: share of tokens to choose; where none is drawn, the first one is masked.
        mask_id: what replaces most of them.
        replacements: the ids that a random replacement may be.
    """

    prob: float
    mask_id: int
    replacements: np.ndarray

    @classmethod
    def of(cls, prob: float, meta: dict) -> "TokenMasking":
        """Return the masking with the ids of a database's ``meta.json``: never a special one."""
        special = [meta[name] for name in SPECIAL if isinstance(meta.get(name), int)]
        return cls(prob, meta["MASK"], np.setdiff1d(np.arange(*meta["v_range"]), special))

    def __call__(
        self, tokens: Sequence[int], rng: np.random.Generator
    ) -> tuple[list[int], dict[int, int]]:
        """Hide some of ``tokens`` (one or more).

        Returns:
            The tokens to read, and the true token at every chosen place.
        """
        true = np.asarray(tokens)
        chosen = rng.random(len(true)) < self.prob
        fate = rng.random(len(true))
        if not chosen.any():
            chosen[0], fate[0] = True, 0.0
        masked = chosen & (fate < MASKED_SHARE)
        random = chosen & ~masked & (fate < MASKED_SHARE + RANDOM_SHARE)
        read = np.where(masked, self.mask_id, true)
        places = rng.integers(len(self.replacements), size=int(random.sum()))
        read[random] = self.replacements[places]
        return read.tolist(), {int(place): int(true[place]) for place in np.flatnonzero(chosen)}


class MlmDataset:
    """A video with all of its subtitles that have text, also those without a frame.

    Args:
        vids: the videos.
        source: reads them.
        mask_prob: share of tokens to choose.
        max_txt_len: subtitles are cut to so many tokens each; −1 keeps all.
        seed: of the masks.
    """

    def __init__(
        self,
        vids: Sequence[str],
        source: SubtitleSource,
        mask_prob: float,
        max_txt_len: int,
        seed: int,
    ) -> None:
        meta = source.subtitles.meta
        self.vids, self.source, self.seed = vids, source, seed
        self.max_txt_len = max_txt_len
        self.cls_id = meta["CLS"]
        self.masking = TokenMasking.of(mask_prob, meta)

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> MlmItem:
        key = ItemKey.of(key)
        vid = self.vids[key.index]
        features = read_features(self.source.features, vid)
        whole = self.source.transcript(vid, len(features))
        transcript = Transcript(cut_texts(whole.texts, self.max_txt_len), whole.frames)
        rng = key.generator(self.seed)
        subtitles, labels = [], []
        for subtitle in self.source.with_context(transcript):
            text = subtitle.tokens[1:]  # without the separator in front
            if text:
                read, true = self.masking(text, rng)
                subtitles.append(Subtitle([self.cls_id, *read], subtitle.frames))
                labels.append({place + 1: token for place, token in true.items()})
        return MlmItem(VideoItem(vid, features, subtitles), labels)


def collate_mlm(items: Sequence[MlmItem]) -> MlmBatch:
    """Pack items; a batch without any text has no chosen token (M = 0)."""
    video = collate_videos([item.video for item in items], text_alone=True)
    subtitles = [subtitle for item in items for subtitle in item.video.subtitles]
    labels = [label for item in items for label in item.labels]
    starts = video.subtitles.layout.offsets.tolist()
    rows = [
        start + len(subtitle.frames) + place
        for start, subtitle, label in zip(starts, subtitles, labels)
        for place in label
    ]
    return MlmBatch(
        ids=[item.video.vid for item in items],
        video=video,
        rows=torch.tensor(rows, dtype=torch.long),
        labels=torch.tensor([t for label in labels for t in label.values()], dtype=torch.long),
    )
