"""The hierarchical encoder that every task shares (arXiv 2005.00200, section 3.1).

Locally, frames and the subtitle spoken over them attend to each other (cross-modal transformer).
Globally, all frames of the video attend to each other (temporal transformer). The outputs, one
vector per frame, are called frame embeddings.
"""

import torch
from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import TextBatch, VideoBatch
from model.embed import check_positions, zero_padding_row
from model.encoder import CrossModalTransformer, TemporalTransformer
from model.layers import HEAD_NORM_EPS, LinearProjection, PredictionHead

FEATURE_SIZE = 4352  # ResNet-152's 2048 values, then SlowFast's 2304
ORDER_CLASSES = 100  # positions that frame order modelling tells apart


class FeatureRegression(nn.Module):
    """Linear H→H, gelu, LayerNorm, Linear H→D: predicts a masked frame's features."""

    def __init__(self, hidden_size: int, feature_size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.LayerNorm(hidden_size, eps=HEAD_NORM_EPS),
            nn.Linear(hidden_size, feature_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class HierarchicalEncoder(nn.Module):
    """Cross-modal transformer, matching back to frames, temporal transformer."""

    def __init__(self, config: ModelConfig, feature_size: int = FEATURE_SIZE) -> None:
        super().__init__()
        local, temporal = config.f_config, config.c_config
        self.f_encoder = CrossModalTransformer(local, feature_size)
        self.frame_transform = LinearProjection(
            feature_size, local.hidden_size, local.hidden_dropout_prob
        )
        self.c_encoder = TemporalTransformer(temporal)
        self.feat_regress = FeatureRegression(temporal.hidden_size, feature_size)
        self.mask_embedding = nn.Embedding(2, feature_size, padding_idx=0)
        self.fom_output = PredictionHead(temporal.hidden_size, ORDER_CLASSES)
        self._initialise(local.initializer_range)

    def _initialise(self, spread: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=spread)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        zero_padding_row(self.mask_embedding)
        zero_padding_row(self.f_encoder.img_embeddings.mask_embedding)

    def forward(self, video: VideoBatch) -> Tensor:
        """Return frame embeddings (F, H), video after video."""
        return self.temporal(self.frame_vectors(video), video)

    def with_texts(self, video: VideoBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encode videos, and texts packed behind their subtitles at positions ``rows`` (P,).

        Returns:
            Frame embeddings (F, H), and the cross-modal transformer's output of the texts (P, H).
        """
        slots = video.subtitles.slot_rows
        vectors = self.subtitle_vectors(video, video.features, None, torch.cat([slots, rows]))
        shown, texts = vectors.split([len(slots), len(rows)])
        residual = self._transform(video.features, None).float()
        return self.temporal(self._add_to_frames(residual, shown, video), video), texts

    def frame_vectors(
        self, video: VideoBatch, frame_mask: Tensor | None = None, copies: int = 1
    ) -> Tensor:
        """Return frames after the cross-modal transformer, before the temporal one.

        Args:
            frame_mask: (F,) bool, masked frames.
            copies: times that each video is run, with another text each time (candidate answers);
                slot targets then point into ``copies`` × F rows.

        Returns:
            (copies × F, H): the transformer's outputs, summed over the subtitles that contain a
            frame, plus a projection of the frame's features; fp32 under any autocast.
        """
        features = video.features
        if frame_mask is not None:
            features = features.masked_fill(frame_mask[:, None], 0)
        residual = self._transform(features, frame_mask).float()
        if copies > 1:
            residual = residual.repeat(copies, 1)
        rows = video.subtitles.slot_rows
        if len(rows) == 0:
            return residual
        slots = self.subtitle_vectors(video, features, frame_mask, rows)
        return self._add_to_frames(residual, slots, video)

    @staticmethod
    def _add_to_frames(residual: Tensor, vectors: Tensor, video: VideoBatch) -> Tensor:
        """Add the transformer's outputs (R, H) to their frames (F, H)."""
        subtitles = video.subtitles
        if subtitles.slot_sources is not None:
            vectors = vectors.index_select(0, subtitles.slot_sources)
        return residual.index_add(0, subtitles.slot_targets, vectors.float())

    def subtitle_vectors(
        self, video: VideoBatch, features: Tensor, frame_mask: Tensor | None, rows: Tensor
    ) -> Tensor:
        """Run the cross-modal transformer over all subtitles; return the packed ``rows`` (R, H).

        Args:
            features: (F, D), masked frames zeroed.
            frame_mask: (F,) bool, masked frames.
        """
        embedding, longest = self.f_encoder.img_embeddings, video.subtitles.longest_slots
        table = embedding.position_embeddings
        check_positions(longest, table, "a run of frames", "set max_clip_len")
        projected = embedding.project(features, frame_mask)
        return self.f_encoder(video.subtitles, projected, rows)

    def _transform(self, features: Tensor, frame_mask: Tensor | None) -> Tensor:
        if frame_mask is not None:
            features = features + self.mask_embedding(frame_mask.long())
        return self.frame_transform(features)

    def temporal(self, frames: Tensor, video: VideoBatch) -> Tensor:
        """Run the temporal transformer over each video's frames: (F, H) → (F, H)."""
        return self.c_encoder(frames, video.frame_positions, video.layout)

    def encode_text(self, text: TextBatch) -> Tensor:
        """Run texts without frames through the cross-modal transformer → (P, H)."""
        return self.f_encoder.encode_text(text)


class HeroModel(nn.Module):
    """Base class of the tasks' models: the hierarchical encoder, to which they add heads.

    Args:
        config: sizes of all blocks.
        feature_size: D.
        encoder: one to share with another model; None: a new one.
    """

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__()
        self.v_encoder = encoder or HierarchicalEncoder(config, feature_size)
