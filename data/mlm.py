"""Masked language modelling (paper, section 3.2): predict masked words of the subtitles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.batch import MlmBatch
from data.tokenize import SPECIAL
from data.video import (
    Subtitle,
    SubtitleSource,
    Transcript,
    VideoDataset,
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
    labels: list[dict[int, int]]  # of each subtitle: position in its text → true token


@dataclass(frozen=True)
class TokenMasking:
    """How tokens are masked."""

    prob: float  # of a token to be chosen; where none is drawn, the first one is masked
    mask_id: int  # replaces most of the chosen tokens
    replacements: np.ndarray  # ids that a random replacement may be

    @classmethod
    def of(cls, prob: float, meta: dict) -> "TokenMasking":
        """Return the masking for a database's ``meta.json``; special ids are no replacements."""
        special = [meta[name] for name in SPECIAL if isinstance(meta.get(name), int)]
        return cls(prob, meta["MASK"], np.setdiff1d(np.arange(*meta["v_range"]), special))

    def __call__(
        self, tokens: Sequence[int], rng: np.random.Generator
    ) -> tuple[list[int], dict[int, int]]:
        """Return ``tokens`` (one or more), some of them masked, and the true one of each chosen
        position."""
        true = np.asarray(tokens)
        chosen = rng.random(len(true)) < self.prob
        fate = rng.random(len(true))
        if not chosen.any():
            chosen[0], fate[0] = True, 0.0
        masked = chosen & (fate < MASKED_SHARE)
        random = chosen & ~masked & (fate < MASKED_SHARE + RANDOM_SHARE)
        read = np.where(masked, self.mask_id, true)
        drawn = rng.integers(len(self.replacements), size=int(random.sum()))
        read[random] = self.replacements[drawn]
        return read.tolist(), {int(i): int(true[i]) for i in np.flatnonzero(chosen)}


class MlmDataset(VideoDataset[MlmItem]):
    """Videos with all of their subtitles that have text, also those without a frame.

    Args:
        vids, source, seed: see :class:`data.video.VideoDataset`.
        mask_prob: probability of a token to be chosen.
        max_txt_len: tokens that are kept of each subtitle; −1 keeps all.
    """

    source: SubtitleSource

    def __init__(
        self,
        vids: Sequence[str],
        source: SubtitleSource,
        mask_prob: float,
        max_txt_len: int,
        seed: int,
    ) -> None:
        super().__init__(vids, source, seed)
        self.max_txt_len = max_txt_len
        self.cls_id = source.subtitles.meta["CLS"]
        self.masking = TokenMasking.of(mask_prob, source.subtitles.meta)

    def item(self, vid: str, rng: np.random.Generator) -> MlmItem:
        """See :class:`data.video.VideoDataset`."""
        features = read_features(self.source.features, vid)
        full = self.source.transcript(vid, len(features))
        transcript = Transcript(cut_texts(full.texts, self.max_txt_len), full.frames)
        subtitles, labels = [], []
        for subtitle in self.source.with_context(transcript):
            text = subtitle.tokens[1:]  # without the separator in front
            if text:
                read, true = self.masking(text, rng)
                subtitles.append(Subtitle([self.cls_id, *read], subtitle.frames))
                labels.append({position + 1: token for position, token in true.items()})
        return MlmItem(VideoItem(vid, features, subtitles), labels)


def collate_mlm(items: Sequence[MlmItem]) -> MlmBatch:
    """Pack items; a batch without any text has no chosen token (M = 0)."""
    video = collate_videos([item.video for item in items], text_alone=True)
    subtitles = [subtitle for item in items for subtitle in item.video.subtitles]
    labels = [label for item in items for label in item.labels]
    starts = video.subtitles.layout.offsets.tolist()
    rows = [
        start + len(subtitle.frames) + position
        for start, subtitle, label in zip(starts, subtitles, labels)
        for position in label
    ]
    return MlmBatch(
        ids=[item.video.vid for item in items],
        video=video,
        rows=torch.tensor(rows, dtype=torch.long),
        labels=torch.tensor([t for label in labels for t in label.values()], dtype=torch.long),
    )
