"""The caption decoder: causal self-attention, then attention to the clip's frames.

A transformer decoder (arXiv 1706.03762, for TVC 2001.09099). In training all captions run at once,
packed; in generation one token at a time, with cached keys and values of earlier tokens and of the
frames. Weight names are those of the published checkpoints, misspelling included.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import BlockConfig
from data.batch import ClipBatch
from model.layers import AttentionProjections, Intermediate, ResidualNorm, SelfAttention
from utils.packing import PackedLayout, pick


@dataclass
class ClipMemory:
    """Keys and values of the frames of C clips, for one layer."""

    keys: Tensor  # (C, heads, M, H / heads)
    values: Tensor  # (C, heads, M, H / heads)
    mask: Tensor  # (C, 1, 1, M) bool, True = a real frame


class KeyValueCache:
    """Keys and values of the tokens of R rows so far, for one layer.

    Args:
        steps: most tokens per row.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.length = 0
        self.buffers: list[Tensor] = []  # keys, values: (R, heads, steps, H / heads)

    def append(self, *new: Tensor) -> list[Tensor]:
        """Add one token's keys and values (R, heads, H / heads); return all, (…, length, …)."""
        if not self.buffers:
            self.buffers = [x.new_empty(*x.shape[:2], self.steps, x.shape[2]) for x in new]
        for buffer, x in zip(self.buffers, new, strict=True):
            buffer[:, :, self.length] = x
        self.length += 1
        return [buffer[:, :, : self.length] for buffer in self.buffers]

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue row ``rows[r]``."""
        for buffer in self.buffers:
            buffer[:, :, : self.length] = buffer[:, :, : self.length].index_select(0, rows)


class CausalSelfAttention(SelfAttention):
    """Each token attends to itself and to those before it in its caption."""

    causal = True

    def step(self, x: Tensor, cache: KeyValueCache) -> Tensor:
        """Attend from one more token of every row: (R, H) → (R, H)."""
        query, key, value = (
            layer(x).unflatten(1, (self.num_heads, -1))
            for layer in (self.query, self.key, self.value)
        )
        keys, values = cache.append(key, value)
        result = F.scaled_dot_product_attention(query[:, :, None], keys, values)
        return result.reshape(x.shape)


class ClipAttention(AttentionProjections):
    """Tokens attend to the frames of their clip."""

    def project_clips(self, frames: Tensor, clips: ClipBatch) -> ClipMemory:
        """Return keys and values of clips; every one of the frames (F, H) is projected once."""
        rows, mask = clips.grid()
        both = F.linear(
            frames,
            torch.cat([self.key.weight, self.value.weight]),
            torch.cat([self.key.bias, self.value.bias]),
        )
        cells = both.index_select(0, rows.flatten()).view(*rows.shape, 2, self.num_heads, -1)
        keys, values = cells.permute(2, 0, 3, 1, 4)
        return ClipMemory(keys, values, mask[:, None, None, :])

    def forward(self, x: Tensor, memory: ClipMemory, by_clip: PackedLayout) -> Tensor:
        """Attend from tokens (P, H), packed by ``by_clip``, to their clips' frames → (P, H)."""
        query, _ = by_clip.pad(self.query(x))  # (C, L, H)
        result = F.scaled_dot_product_attention(
            query.unflatten(2, (self.num_heads, -1)).transpose(1, 2),
            memory.keys,
            memory.values,
            attn_mask=memory.mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return by_clip.unpad(result.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the clip, feed-forward; each with its residual norm."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.self_attention = CausalSelfAttention(config)
        self.add_norm_1 = ResidualNorm(hidden, config)
        self.dec_enc_attention = ClipAttention(config)
        self.add_norm_2 = ResidualNorm(hidden, config)
        self.intermidiate = Intermediate(config)
        self.add_norm_3 = ResidualNorm(config.intermediate_size, config)

    def forward(
        self, x: Tensor, layout: PackedLayout, memory: ClipMemory, by_clip: PackedLayout
    ) -> Tensor:
        """Run complete captions, packed: (P, H) → (P, H)."""
        bins = layout.attention
        attended = pick(self.self_attention(bins.spread(x), bins), bins.to_rows)
        return self._attend_clip(x, attended, memory, by_clip)

    def step(
        self, x: Tensor, cache: KeyValueCache, memory: ClipMemory, by_clip: PackedLayout
    ) -> Tensor:
        """Run one more token of every caption: (R, H) → (R, H)."""
        return self._attend_clip(x, self.self_attention.step(x, cache), memory, by_clip)

    def _attend_clip(
        self, x: Tensor, attended: Tensor, memory: ClipMemory, by_clip: PackedLayout
    ) -> Tensor:
        x = self.add_norm_1(attended, x)
        x = self.add_norm_2(self.dec_enc_attention(x, memory, by_clip), x)
        return self.add_norm_3(self.intermidiate(x), x)


class CaptionDecoder(nn.Module):
    """A stack of decoder layers."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))

    def layers(self) -> list[DecoderLayer]:
        """Return the layers, from the first to the last."""
        return cast("list[DecoderLayer]", list(self.layer))

    def forward(
        self,
        x: Tensor,
        layout: PackedLayout,
        frames: Tensor,
        clips: ClipBatch,
        by_clip: PackedLayout,
    ) -> Tensor:
        """Run all layers on embedded tokens (P, H) → (P, H).

        Args:
            layout: N captions, packed clip by clip.
            frames: (F, H) frame embeddings.
            clips: C ranges of frames.
            by_clip: the tokens of each clip's captions.
        """
        for layer in self.layers():
            x = layer(x, layout, layer.dec_enc_attention.project_clips(frames, clips), by_clip)
        return x
