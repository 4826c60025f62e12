"""The two levels of the hierarchy: cross-modal and temporal (arXiv 2005.00200, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import BlockConfig
from data.batch import SubtitleSequences, TextBatch
from model.embed import FrameEmbeddings, PositionEmbeddings, TextEmbeddings, check_positions
from model.layers import HEAD_NORM_EPS, Pooler, TransformerEncoder
from utils.packing import PackedLayout


class LanguageModelHead(nn.Module):
    """Dense, gelu, LayerNorm, then logits by the tied word embedding, plus a bias."""

    def __init__(self, config: BlockConfig, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        rows, hidden = word_embeddings.weight.shape
        self.vocab_size = config.num_words  # further rows are padding
        self.dense = nn.Linear(hidden, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=HEAD_NORM_EPS)
        self.decoder = nn.Linear(hidden, rows, bias=False)
        self.decoder.weight = word_embeddings.weight
        self.bias = nn.Parameter(torch.zeros(rows))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (P, V) of rows (P, H); V: all rows of the word embedding."""
        return self.decoder(self.LayerNorm(F.gelu(self.dense(x)))) + self.bias


class CrossModalTransformer(nn.Module):
    """Attention between the frames and the text of one subtitle; a query has no frames."""

    def __init__(self, config: BlockConfig, feature_size: int) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.img_embeddings = FrameEmbeddings(config, feature_size)
        self.encoder = TransformerEncoder(config)
        self.pooler = Pooler(config)
        self.lm_head = LanguageModelHead(config, self.embeddings.word_embeddings)

    def forward(
        self, sequences: SubtitleSequences, projected: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """Encode the frames and tokens of S subtitles.

        Args:
            projected: (F, H) frames from ``img_embeddings.project``.
            rows: (R,) packed positions to return, as (R, H); None: all, (P, H).
        """
        slots = self.img_embeddings(
            projected, sequences.slot_frames, sequences.slot_positions, self.embeddings.type_row
        )
        tokens = self.embeddings(sequences.token_ids, sequences.token_positions)
        return self.encoder(sequences.join(slots, tokens), sequences.layout, rows)

    def encode_text(self, text: TextBatch) -> Tensor:
        """Encode texts without frames → (P, H)."""
        return self.encoder(self.embeddings(text.token_ids, text.positions), text.layout)


class TemporalTransformer(nn.Module):
    """Attention over all frames of a video.

    The rest of the model calls :meth:`forward` and :meth:`with_texts` only: another temporal
    encoder is a class with these two.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.embeddings = PositionEmbeddings(config)
        self.encoder = TransformerEncoder(config)
        self.pooler = Pooler(config)

    def forward(self, frames: Tensor, positions: Tensor, layout: PackedLayout) -> Tensor:
        """Encode frames (F, H) at positions in time (F,) of B videos → (F, H)."""
        return self.encoder(self._embed(frames, positions, layout.max_length), layout)

    def with_texts(self, frames: Tensor, tokens: Tensor, sequences: SubtitleSequences) -> Tensor:
        """Encode C sequences ``[all frames of a video, tokens of its text]``: frames (F, H) and
        embedded tokens (Q, H) → frame slots (K, H), sequence after sequence."""
        frames = frames.index_select(0, sequences.slot_frames)
        slots = self._embed(frames, sequences.slot_positions, sequences.longest_slots)
        x = sequences.join(slots, tokens)
        return self.encoder(x, sequences.layout, sequences.slot_rows)

    def _embed(self, frames: Tensor, positions: Tensor, longest: int) -> Tensor:
        table = self.embeddings.position_embeddings
        check_positions(longest, table, "a video", "set max_clip_len")
        return self.embeddings(frames, positions)
