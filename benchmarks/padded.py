"""The encoder without packing: every sequence padded to the longest, with the same weights.

To be compared with: outputs must agree, time and memory show what packing saves.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data.batch import ObjectiveBatch, SubtitleSequences, VideoBatch
from model.hero import HeroModel, HierarchicalEncoder
from model.layers import TransformerEncoder, TransformerLayer
from utils.batch import TensorBatch


@contextmanager
def replaced_encoder(model: HeroModel, version: nn.Module) -> Iterator[None]:
    """Replace the model's encoder by another module."""
    encoder = model.v_encoder
    model.add_module("v_encoder", version)
    try:
        yield
    finally:
        model.add_module("v_encoder", encoder)


def _attention(block, x: Tensor, mask: Tensor) -> Tensor:
    """Run self-attention and its residual norm: (S, L, H) with mask (S, L) → (S, L, H)."""
    count, length, width = x.shape
    attention = block.self

    def heads(layer) -> Tensor:
        shape = (count, length, attention.num_heads, width // attention.num_heads)
        return layer(x).view(shape).transpose(1, 2)

    result = F.scaled_dot_product_attention(
        heads(attention.query),
        heads(attention.key),
        heads(attention.value),
        attn_mask=mask[:, None, None, :],
        dropout_p=attention.dropout.p if attention.training else 0.0,
    )
    return block.output(result.transpose(1, 2).reshape(count, length, width), x)


def _encode(encoder: TransformerEncoder, x: Tensor, mask: Tensor) -> Tensor:
    for layer in encoder.layer:
        assert isinstance(layer, TransformerLayer)
        attended = _attention(layer.attention, x, mask)
        x = layer.output(layer.intermediate(attended), attended)
    return x


class PaddedVideos:
    """A packed batch, padded: one row per subtitle and per video."""

    def __init__(self, video: VideoBatch) -> None:
        device, video = video.features.device, video.to("cpu")
        subtitles = video.subtitles
        lengths = subtitles.layout.lengths.tolist()
        slot_of_row = torch.full((subtitles.layout.total,), -1)
        slot_of_row[subtitles.slot_rows] = torch.arange(len(subtitles.slot_rows))
        if subtitles.layout.real is not None:
            slot_of_row = slot_of_row[subtitles.layout.real]
        parts = slot_of_row.split(lengths)
        frames = [part[part >= 0] for part in parts]
        counts = [len(part) for part in frames]
        texts = [length - count for length, count in zip(lengths, counts, strict=True)]
        self.layout = video.layout
        self.video_features, self.video_mask = video.layout.pad(video.features)
        self.features = pad_sequence(
            [video.features[subtitles.slot_frames[part]] for part in frames], batch_first=True
        )
        self.targets = pad_sequence(
            [subtitles.slot_targets[part] for part in frames], batch_first=True
        )
        self.tokens = pad_sequence(list(subtitles.token_ids.split(texts)), batch_first=True)
        self.frame_mask = _mask(counts, self.features.shape[1])
        self.token_mask = _mask(texts, self.tokens.shape[1])
        # Column of each position of "frames, then tokens" without the padding between the two.
        wide = torch.cat([self.frame_mask, self.token_mask], dim=1)
        self.gather = (~wide).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(lengths)]
        self.mask = _mask(lengths, max(lengths))
        # Real cells, computed once here: on the device the host would wait for them.
        frame_cells = F.pad(self.frame_mask, (0, max(lengths) - self.frame_mask.shape[1]))
        self.frame_cells = frame_cells.flatten().nonzero()[:, 0]
        self.frame_targets = self.targets[self.frame_mask]
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))


def _mask(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def padded_sequences(encoder: HierarchicalEncoder, video: PaddedVideos) -> Tensor:
    """Return the outputs of the cross-modal transformer (S, L, H)."""
    local = encoder.f_encoder
    count, longest = video.frame_mask.shape
    device = video.features.device
    positions = torch.arange(longest, device=device).expand(count, longest)
    projected = local.img_embeddings.project(video.features)
    slots = local.img_embeddings(
        projected.flatten(0, 1),
        torch.arange(count * longest, device=device),
        positions.flatten(),
        local.embeddings.type_row,
    ).view(count, longest, -1)
    text_positions = torch.arange(video.tokens.shape[1], device=device).expand(video.tokens.shape)
    x = torch.cat([slots, local.embeddings(video.tokens, text_positions)], dim=1)
    x = x.gather(1, video.gather[..., None].expand(-1, -1, x.shape[2]))
    return _encode(local.encoder, x, video.mask)


def padded_frame_vectors(
    encoder: HierarchicalEncoder,
    video: PaddedVideos,
    copies: int = 1,
    sequences: Tensor | None = None,
) -> Tensor:
    """Return packed frames before the temporal transformer, (``copies`` × F, H), as
    :meth:`model.hero.HierarchicalEncoder.frame_vectors` does.

    Args:
        encoder: the weights.
        video: the batch.
        copies: how many times each video was run.
        sequences: (S, L, H) of :func:`padded_sequences`; None: computed here.
    """
    x = padded_sequences(encoder, video) if sequences is None else sequences
    x = x.flatten(0, 1).index_select(0, video.frame_cells)
    vectors = encoder.frame_transform(video.video_features)
    flat = video.layout.unpad(vectors).float().repeat(copies, 1)
    return flat.index_add(0, video.frame_targets, x.float())


def content_of(batch: TensorBatch) -> Any:
    """Return the batch of the task itself."""
    return batch.batch if isinstance(batch, ObjectiveBatch) else batch


class PaddedEncoder(nn.Module):
    """Computes what :class:`model.hero.HierarchicalEncoder` does, padded to the longest."""

    def __init__(self, encoder: HierarchicalEncoder, batch: TensorBatch) -> None:
        super().__init__()
        self.encoder, self.f_encoder = encoder, encoder.f_encoder
        self.feat_regress, self.fom_output = encoder.feat_regress, encoder.fom_output
        video = content_of(batch).video
        mask = getattr(content_of(batch), "frame_mask", None)
        if mask is not None:
            hidden = video.features.masked_fill(mask[:, None], 0)
            video = dataclasses.replace(video, features=hidden)
        self.video = PaddedVideos(video)

    def forward(self, video: VideoBatch) -> Tensor:
        return self.temporal(self.frame_vectors(video), video)

    def frame_vectors(self, video: VideoBatch, frame_mask: Tensor | None = None) -> Tensor:
        return padded_frame_vectors(self.encoder, self.video)

    def temporal(self, frames: Tensor, video: VideoBatch) -> Tensor:
        temporal = self.encoder.c_encoder
        frames, mask = video.layout.pad(frames)  # (B, T, H), (B, T)
        time = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        outputs = _encode(temporal.encoder, temporal.embeddings(frames, time), mask)
        return video.layout.unpad(outputs)

    def subtitle_vectors(
        self, video: VideoBatch, features: Tensor, frame_mask: Tensor | None, rows: Tensor
    ) -> Tensor:
        outputs = video.subtitles.layout.unpad(padded_sequences(self.encoder, self.video))
        return outputs.index_select(0, rows)

    def with_texts(self, video: VideoBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
        sequences = padded_sequences(self.encoder, self.video)
        frames = padded_frame_vectors(self.encoder, self.video, sequences=sequences)
        texts = video.subtitles.layout.unpad(sequences).index_select(0, rows)
        return self.temporal(frames, video), texts


class PaddedCandidates(nn.Module):
    """The same for videos with candidate texts."""

    def __init__(self, encoder: HierarchicalEncoder, batch: TensorBatch) -> None:
        super().__init__()
        self.encoder, self.f_encoder = encoder, encoder.f_encoder
        self.video = PaddedVideos(content_of(batch).candidates.video)

    @property
    def c_encoder(self) -> "PaddedCandidates":
        return self

    def frame_vectors(self, video: VideoBatch, copies: int) -> Tensor:
        return padded_frame_vectors(self.encoder, self.video, copies)

    def with_texts(self, frames: Tensor, tokens: Tensor, sequences: SubtitleSequences) -> Tensor:
        temporal, layout = self.encoder.c_encoder, sequences.layout
        frames = frames.index_select(0, sequences.slot_frames)
        slots = temporal.embeddings(frames, sequences.slot_positions)
        embedded, mask = layout.pad(sequences.join(slots, tokens))
        outputs = layout.unpad(_encode(temporal.encoder, embedded, mask))
        return outputs.index_select(0, sequences.slot_rows)
