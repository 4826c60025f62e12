"""Transformer blocks over packed sequences, and small heads.

Layers run on cells (C, H): sequences next to each other in :class:`utils.packing.Bins`, in which
they attend. Blocks and names of weights are BERT's, post-norm (arXiv 1810.04805).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config.model_config import BlockConfig
from utils.packing import Bins, PackedLayout, pick

HEAD_NORM_EPS = 1e-5  # every norm outside the transformer blocks


class AttentionProjections(nn.Module):
    """Query, key and value projections of a multi-head attention, and its dropout."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)


class SelfAttention(AttentionProjections):
    """Multi-head attention within each sequence (arXiv 1706.03762, section 3.2)."""

    causal = False  # whether a cell attends to earlier cells of its sequence only

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.packed_qkv: nn.Module | None = None  # all projections, for inference only

    def qkv_weights(self) -> tuple[Tensor, Tensor]:
        """Return weight (3H, H) and bias (3H,) of the three projections."""
        layers = (self.query, self.key, self.value)
        return torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers])

    def forward(self, x: Tensor, bins: Bins) -> Tensor:
        """Attend: cells (C, H) → (C, H)."""
        qkv = self.packed_qkv(x) if self.packed_qkv else F.linear(x, *self.qkv_weights())
        heads = (bins.count, bins.width, 3, self.num_heads, -1)
        query, key, value = (part.transpose(1, 2) for part in qkv.view(heads).unbind(2))
        result = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bins.mask(query, self.causal),
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return result.transpose(1, 2).reshape(x.shape)


class ResidualNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))): the end of every sub-layer."""

    def __init__(self, in_size: int, config: BlockConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class AttentionBlock(nn.Module):
    """Self-attention, output projection, residual norm."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualNorm(config.hidden_size, config)

    def forward(self, x: Tensor, bins: Bins, selected: Tensor | None = None) -> Tensor:
        """Map cells (C, H) to (C, H), or to (R, H) of the ``selected`` cells."""
        return self.output(pick(self.self(x, bins), selected), pick(x, selected))


class Intermediate(nn.Module):
    """First half of a feed-forward network: dense, then exact (erf) gelu."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class TransformerLayer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.attention = AttentionBlock(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualNorm(config.intermediate_size, config)

    def forward(self, x: Tensor, bins: Bins, selected: Tensor | None = None) -> Tensor:
        """Map cells (C, H) to (C, H), or to (R, H) of the ``selected`` cells."""
        x = self.attention(x, bins, selected)
        return self.output(self.intermediate(x), x)


class TransformerEncoder(nn.Module):
    """A stack of layers over packed sequences."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            TransformerLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.recompute = False  # activation checkpointing: keep layer inputs only

    def forward(self, x: Tensor, layout: PackedLayout, rows: Tensor | None = None) -> Tensor:
        """Run all layers on packed rows (P, H) → (P, H), or (R, H) with distinct ``rows`` (R,).

        The last layer computes ``rows`` only: exact, since its rows do not depend on each other.
        """
        bins = layout.attention
        x, selected = bins.spread(x), bins.cells_of(rows)
        last = len(self.layer) - 1
        for number, layer in enumerate(self.layer):
            inputs = (x, bins, selected if number == last else None)
            if self.recompute and self.training:
                x = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x = layer(*inputs)
        return x if last >= 0 else pick(x, selected)


class Pooler(nn.Module):
    """BERT's pooler: unused, but its weights belong to the checkpoint format."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)


class LinearProjection(nn.Module):
    """LayerNorm → dropout → Linear → ReLU; (…, in) → (…, out)."""

    def __init__(self, in_size: int, out_size: int, dropout: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_size, eps=HEAD_NORM_EPS)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_size, out_size))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.net(self.LayerNorm(x)))


class PredictionHead(nn.Module):
    """Two-layer head: Linear H→2H, gelu, LayerNorm, Linear 2H→out."""

    def __init__(self, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(hidden_size, 2 * hidden_size)
        self.LayerNorm = nn.LayerNorm(2 * hidden_size, eps=HEAD_NORM_EPS)
        self.linear_2 = nn.Linear(2 * hidden_size, out_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.LayerNorm(F.gelu(self.linear_1(x))))


def set_activation_checkpointing(module: nn.Module, recompute: bool) -> None:
    """Set activation checkpointing of every encoder (arXiv 1604.06174): only layers' inputs are
    kept, the rest is recomputed in backward; less memory for about a third more time."""
    for child in module.modules():
        if isinstance(child, TransformerEncoder):
            child.recompute = recompute


def set_dropout(module: nn.Module, probability: float) -> None:
    """Set the probability of every dropout in ``module``, attention's included."""
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = probability
