"""The encoder as one would write it first: everything padded to the longest, same weights.

It exists to be compared with: outputs must agree, time and memory show what packing saves.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data.batch import SubtitleSequences, VideoBatch
from model.encoder import TemporalTransformer
from model.hero import HeroModel, HierarchicalEncoder
from model.layers import TransformerEncoder, TransformerLayer


@contextmanager
def standing_in(model: HeroModel, version: nn.Module) -> Iterator[None]:
    """Let another module answer in place of the model's encoder."""
    encoder = model.v_encoder
    model.add_module("v_encoder", version)
    try:
        yield
    finally:
        model.add_module("v_encoder", encoder)


def _attention(block, x: Tensor, mask: Tensor) -> Tensor:
    """(S, L, H) with mask (S, L) → (S, L, H)."""
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
    """A packed batch unpacked: per subtitle and per video, everything padded to the longest."""

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
        # Where each position of "frames, then tokens" stands once the padding between is closed.
        wide = torch.cat([self.frame_mask, self.token_mask], dim=1)
        self.gather = (~wide).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(lengths)]
        self.mask = _mask(lengths, max(lengths))
        # Which cells are real, found once: asking the device would make the host wait.
        frame_cells = F.pad(self.frame_mask, (0, max(lengths) - self.frame_mask.shape[1]))
        self.frame_cells = frame_cells.flatten().nonzero()[:, 0]
        self.frame_targets = self.targets[self.frame_mask]
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))


def _mask(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def padded_sequences(encoder: HierarchicalEncoder, video: PaddedVideos) -> Tensor:
    """Outputs of the cross-modal transformer (S, L, H)."""
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
    """Frames before the temporal transformer, packed: (``copies`` × F, H), as
    :meth:`model.hero.HierarchicalEncoder.frame_vectors` gives them.

    Args:
        encoder: the weights.
        video: the batch.
        copies: how often each video was run.
        sequences: (S, L, H) of :func:`padded_sequences`, where they are there already.
    """
    x = padded_sequences(encoder, video) if sequences is None else sequences
    x = x.flatten(0, 1).index_select(0, video.frame_cells)
    vectors = encoder.frame_transform(video.video_features)
    flat = video.layout.unpad(vectors).float().repeat(copies, 1)
    return flat.index_add(0, video.frame_targets, x.float())


def padded_temporal(encoder: HierarchicalEncoder, vectors: Tensor, mask: Tensor) -> Tensor:
    """The temporal transformer: (B, T, H) with mask (B, T) → (B, T, H)."""
    time = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    vectors = encoder.c_encoder.embeddings(vectors, time)
    return _encode(encoder.c_encoder.encoder, vectors, mask) * mask[..., None]


def padded_forward(encoder: HierarchicalEncoder, video: PaddedVideos) -> Tensor:
    """Frame embeddings (B, T, H); padded frames hold zeros."""
    vectors, mask = video.layout.pad(padded_frame_vectors(encoder, video))
    return padded_temporal(encoder, vectors, mask)


def padded_with_texts(
    temporal: TemporalTransformer, frames: Tensor, tokens: Tensor, sequences: SubtitleSequences
) -> Tensor:
    """Whole videos with a text behind each, as
    :meth:`model.encoder.TemporalTransformer.with_texts` takes and returns them."""
    frames = frames.index_select(0, sequences.slot_frames)
    slots = temporal.embeddings(frames, sequences.slot_positions)
    embedded, mask = sequences.layout.pad(sequences.join(slots, tokens))
    outputs = sequences.layout.unpad(_encode(temporal.encoder, embedded, mask))
    return outputs.index_select(0, sequences.slot_rows)
