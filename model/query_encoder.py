"""Query vectors of video-subtitle matching and retrieval (arXiv 2005.00200, section 3.2)."""

import torch
from torch import Tensor, nn

from config.model_config import BlockConfig
from model.embed import PositionEmbeddings, check_positions
from model.layers import AttentionBlock, LinearProjection
from utils.packing import PackedLayout


class QueryEncoder(nn.Module):
    """Attention pooling of a query's token outputs (TVR's modular vector, arXiv 2001.09099)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.query_input_proj = LinearProjection(hidden, hidden, config.hidden_dropout_prob)
        self.query_pos_embed = PositionEmbeddings(config)
        self.query_self_attention = AttentionBlock(config)
        self.modular_vector_mapping = nn.Linear(hidden, 1, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor, layout: PackedLayout) -> Tensor:
        """Pool the cross-modal transformer's outputs (P, H) of N queries → vectors (N, H)."""
        table = self.query_pos_embed.position_embeddings
        check_positions(layout.max_length, table, "a query", "shorten it")
        x = self.query_pos_embed(self.query_input_proj(tokens), positions)
        bins = layout.attention
        x = self.query_self_attention(bins.spread(x), bins, bins.to_rows)
        return segment_attention_pool(x, self.modular_vector_mapping(x), layout)


def segment_attention_pool(x: Tensor, logits: Tensor, layout: PackedLayout) -> Tensor:
    """Return sums (N, H) of each sequence's packed rows (P, H), weighted by
    :func:`segment_attention`; fp32 under any autocast."""
    cells, _ = layout.pad(x.float())  # (N, L, H)
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("nl,nlh->nh", segment_attention(logits, layout), cells)


def segment_attention(logits: Tensor, layout: PackedLayout) -> Tensor:
    """Return the softmax (N, L) of packed logits (P, 1) over each of N sequences, 0 beyond its end;
    in fp32."""
    grid, mask = layout.pad(logits[:, 0].float())
    return grid.masked_fill(~mask, float("-inf")).softmax(dim=-1)
