"""Embeddings of tokens, frames and time steps.

Tokens and frames of a subtitle both use row 1 of one token-type table, as the published models do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import BlockConfig
from model.layers import HEAD_NORM_EPS
from utils.errors import UserError

TYPE_ROW = 1
LAST_TEXT_POSITION = 511
FRAME_POSITIONS = 100


def padded_vocabulary(vocab_size: int) -> int:
    """Return the rows of the word embedding: a multiple of 8, for tensor cores."""
    return -(-vocab_size // 8) * 8


class TextEmbeddings(nn.Module):
    """Word + position + type, LayerNorm, dropout."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(padded_vocabulary(config.num_words), hidden)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, hidden)
        # RoBERTa has one type; HERO uses the second row, so there are always two.
        self.token_type_embeddings = nn.Embedding(max(2, config.type_vocab_size), hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=HEAD_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Embed (P,) ids and positions in their text (from 0, clamped to 511) → (P, H)."""
        last = min(LAST_TEXT_POSITION, self.position_embeddings.num_embeddings - 1)
        embedded = self.word_embeddings(token_ids)
        embedded = embedded + self.position_embeddings(positions.clamp(max=last))
        return self.dropout(self.LayerNorm(embedded + self.type_row))

    @property
    def type_row(self) -> Tensor:
        """(H,) the type embedding of tokens and frames."""
        return self.token_type_embeddings.weight[TYPE_ROW]


class FrameEmbeddings(nn.Module):
    """LayerNorm and projection of frame features, + position + type, LayerNorm, dropout."""

    def __init__(self, config: BlockConfig, feature_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.img_linear = nn.Linear(feature_size, hidden)
        self.img_LayerNorm = nn.LayerNorm(feature_size, eps=HEAD_NORM_EPS)
        self.position_embeddings = nn.Embedding(FRAME_POSITIONS, hidden)
        self.mask_embedding = nn.Embedding(2, feature_size, padding_idx=0)
        self.LayerNorm = nn.LayerNorm(hidden, eps=HEAD_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def project(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Project features (F, D), with masked frames (F,) or None, to (F, H): once per frame,
        however many sequences contain it."""
        if mask is not None:
            features = features + self.mask_embedding(mask.long())
        return self.img_linear(self.img_LayerNorm(features))

    def forward(
        self, projected: Tensor, frames: Tensor, positions: Tensor, type_row: Tensor
    ) -> Tensor:
        """Embed frame slots: projected frames (F, H), the frame of each slot (K,), its position in
        its sequence (K,) from 0, type embedding (H,) → (K, H)."""
        slots = projected.index_select(0, frames) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(slots + type_row))


class PositionEmbeddings(nn.Module):
    """x + position, LayerNorm, dropout: of frames in a video, of tokens in a query."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=HEAD_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Embed rows (P, H) at positions in time (P,) → (P, H)."""
        return self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))


def check_positions(longest: int, table: nn.Embedding, what: str, advice: str) -> None:
    """Refuse sequences that are longer than a position table.

    Raises:
        UserError: ``longest`` exceeds the table's rows.
    """
    if longest > table.num_embeddings:
        raise UserError(
            f"{what} of {longest} positions is longer than the model's table of "
            f"{table.num_embeddings}; {advice}"
        )


def grow_rows(table: nn.Embedding, rows: int) -> None:
    """Give ``table`` at least ``rows`` rows; new ones are zero."""
    missing = rows - table.num_embeddings
    if missing > 0:
        table.weight = nn.Parameter(F.pad(table.weight.detach(), (0, 0, 0, missing)))
        table.num_embeddings = rows


def zero_padding_row(table: nn.Embedding) -> None:
    """Zero row 0 of a mask embedding, "not masked"; as the padding row it has no gradient."""
    with torch.no_grad():
        table.weight[0].zero_()
