"""Transformer blocks over packed sequences, and small heads.

Rows (P, H) go through every linear layer, norm and feed-forward without padding; attention lays
them out in the buckets of a :class:`utils.packing.PackedLayout`. Blocks are BERT's, post-norm
(arXiv 1810.04805), and so are the names of their weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config.model_config import BlockConfig
from utils.packing import PackedLayout

HEAD_NORM_EPS = 1e-5  # every norm outside the transformer blocks


class _RowsToCells(torch.autograd.Function):
    """Rows → padded cells. Backward is a gather too: padding cells never carry a gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, to_cells: Tensor, to_rows: Tensor) -> Tensor:
        ctx.save_for_backward(to_rows)
        return rows.index_select(0, to_cells)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (to_rows,) = ctx.saved_tensors
        return grad.index_select(0, to_rows), None, None


class _CellsToRows(torch.autograd.Function):
    """Padded cells → rows. No two rows share a cell, so backward copies instead of adding."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, to_rows: Tensor) -> Tensor:
        ctx.save_for_backward(to_rows)
        ctx.shape = cells.shape
        return cells.index_select(0, to_rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (to_rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, to_rows, grad), None


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
    """Multi-head attention within each packed sequence; padding does not exist for it."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.joint: nn.Module | None = None  # all projections, where weights no longer change

    def forward(self, x: Tensor, layout: PackedLayout, rows: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (P, H) packed rows.
            layout: the sequences.
            rows: (R,) the only rows whose result is wanted; None = all.

        Returns:
            (P, H), or (R, H) with ``rows``.
        """
        qkv = self.joint(x) if self.joint else F.linear(x, *self.joined())
        if layout.to_cells is not None:
            qkv = _RowsToCells.apply(qkv, layout.to_cells, layout.to_rows)
        sizes = [bucket.count * bucket.length for bucket in layout.buckets]
        results = [
            self._attend(part, bucket.count, bucket.length, bucket.mask)
            for part, bucket in zip(qkv.split(sizes), layout.buckets, strict=True)
        ]
        cells = torch.cat(results) if len(results) > 1 else results[0]
        wanted = layout.to_rows if rows is None else _compose(layout.to_rows, rows)
        return cells if wanted is None else _CellsToRows.apply(cells, wanted)

    def joined(self) -> tuple[Tensor, Tensor]:
        """Weight (3H, H) and bias (3H,) of the three projections."""
        layers = (self.query, self.key, self.value)
        return torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers])

    def _attend(self, qkv: Tensor, count: int, length: int, mask: Tensor | None) -> Tensor:
        width = qkv.shape[-1] // 3
        heads = (count, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.view(heads).permute(2, 0, 3, 1, 4)
        result = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout.p if self.training else 0.0
        )
        return result.transpose(1, 2).reshape(count * length, width)


def _compose(to_rows: Tensor | None, rows: Tensor) -> Tensor:
    return rows if to_rows is None else to_rows.index_select(0, rows)


class ResidualNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))): how every sub-layer of a block ends."""

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

    def forward(self, x: Tensor, layout: PackedLayout, rows: Tensor | None = None) -> Tensor:
        residual = x if rows is None else x.index_select(0, rows)
        return self.output(self.self(x, layout, rows), residual)


class Intermediate(nn.Module):
    """The widening half of a feed-forward: dense, then the exact (erf) gelu."""

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

    def forward(self, x: Tensor, layout: PackedLayout, rows: Tensor | None = None) -> Tensor:
        x = self.attention(x, layout, rows)
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
        """Run all layers.

        Args:
            x: (P, H) packed rows.
            layout: the sequences.
            rows: (R,) the rows that anybody reads. The last layer computes only those: exact,
                since a row of the last layer feeds no other.

        Returns:
            (P, H), or (R, H) with ``rows``.
        """
        last = len(self.layer) - 1
        for number, layer in enumerate(self.layer):
            wanted = rows if number == last else None
            if self.recompute and self.training:
                x = checkpoint(layer, x, layout, wanted, use_reentrant=False)
            else:
                x = layer(x, layout, wanted)
        return x if rows is None or last >= 0 else x.index_select(0, rows)


class Pooler(nn.Module):
    """BERT's pooler. No task reads it; its weights belong to the checkpoint format."""

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
    """Let every encoder keep only its layers' inputs and compute the rest again in backward:
    less memory for about a third more time (arXiv 1604.06174)."""
    for child in module.modules():
        if isinstance(child, TransformerEncoder):
            child.recompute = recompute


def set_dropout(module: nn.Module, probability: float) -> None:
    """Set the probability of every dropout in ``module``, attention's included."""
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = probability
