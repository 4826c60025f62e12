"""Captioning of clips: TVC (arXiv 2005.00200, section 4.3; the task: arXiv 2001.09099)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import CaptionBatch, ClipBatch, VideoBatch
from model.decoder import CaptionDecoder, KeyValueCache
from model.decoding import DecodingSettings, Stepper, search, until_end
from model.embed import check_positions
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.layers import HEAD_NORM_EPS
from utils.errors import UserError
from utils.packing import PackedLayout


def smoothed_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the KL divergence from the smoothed target to the prediction, per token.

    The target has 1 − ε on the right word and ε / (V − 1) on every other (arXiv 1512.00567, section
    7). PyTorch spreads its smoothing over all V words, so that ε V / (V − 1) there is ε here.
    Logits (P, V), targets (P,) → (P,) fp32; without smoothing, the cross-entropy.
    """
    others = logits.shape[-1] - 1
    spread = smoothing * (others + 1) / others
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=spread, reduction="none")
    if smoothing == 0:
        return loss
    kept = 1 - smoothing
    return loss + kept * math.log(kept) + smoothing * math.log(smoothing / others)


class HeroForTvc(HeroModel):
    """The hierarchical encoder, and a decoder that attends to a clip's frame embeddings.

    Args:
        config: with ``d_config``.
        feature_size, encoder: see :class:`model.hero.HeroModel`.
        label_smoothing: ε of the loss.

    Raises:
        UserError: ``config`` has no decoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        if config.d_config is None:
            raise UserError("the model config has no d_config (caption decoder); see hero_tvc.json")
        super().__init__(config, feature_size, encoder)
        block, hidden = config.d_config, config.d_config.hidden_size
        self.position_embeddings = nn.Embedding(block.max_position_embeddings, hidden)
        self.emb_LayerNorm = nn.LayerNorm(hidden, eps=HEAD_NORM_EPS)
        self.decoder = CaptionDecoder(block)
        self.label_smoothing = label_smoothing

    def forward(self, batch: CaptionBatch) -> dict[str, Tensor]:
        """Return ``caption``: mean over the tokens in training, (P,) one each in evaluation."""
        losses = smoothed_loss(self.logits(batch), batch.targets, self.label_smoothing)
        return {"caption": losses.mean() if self.training else losses}

    def logits(self, batch: CaptionBatch) -> Tensor:
        """Return logits (P, V) of every next token, given the true ones before it."""
        self._check_length(batch.text.layout.max_length)
        frames = self.v_encoder(batch.video)
        x = self.embed(batch.text.token_ids, batch.text.positions)
        x = self.decoder(x, batch.text.layout, frames, batch.clips, batch.by_clip)
        return self.v_encoder.f_encoder.lm_head(x)

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """Embed (P,) ids and positions within their captions → (P, H)."""
        words = self.v_encoder.f_encoder.embeddings.word_embeddings(token_ids)
        return self.emb_LayerNorm(words + self.position_embeddings(positions))

    def _check_length(self, length: int) -> None:
        advice = "lower max_txt_len or max_gen_step"
        check_positions(length, self.position_embeddings, "a caption", advice)

    @torch.no_grad()
    def generate(
        self, video: VideoBatch, clips: ClipBatch, settings: DecodingSettings
    ) -> list[list[int]]:
        """Write a caption for each of C clips, ranges of the videos' frames; return C lists of
        token ids, without ``<s>`` and ``</s>``."""
        return write_captions(self.stepper(video, clips, settings), clips, settings)

    @torch.no_grad()
    def stepper(
        self, video: VideoBatch, clips: ClipBatch, settings: DecodingSettings
    ) -> "CaptionStepper":
        """Return the stepper that writes a caption for every clip; see :meth:`generate`."""
        self._check_length(settings.max_steps)
        return CaptionStepper(self, self.v_encoder(video), clips, settings)


@torch.no_grad()
def write_captions(
    stepper: Stepper, clips: ClipBatch, settings: DecodingSettings
) -> list[list[int]]:
    """Write a caption for every clip; see :meth:`HeroForTvc.generate`."""
    count = len(clips.first)
    return until_end(search(stepper, count, clips.first.device, settings), settings.end)


class CaptionStepper:
    """Writes K = ``settings.beam`` captions for each of C clips, ranges of frame embeddings (F, H),
    token by token (:class:`model.decoding.Stepper`)."""

    def __init__(
        self, model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
    ) -> None:
        self.model, self.layers = model, model.decoder.layers()
        by_clip = PackedLayout.from_lengths([settings.beam] * len(clips.first), attended=False)
        self.by_clip = by_clip.to(frames.device)
        self.memories = [x.dec_enc_attention.project_clips(frames, clips) for x in self.layers]
        self.caches = [KeyValueCache(settings.max_steps) for _ in self.layers]
        self.position = torch.zeros((), dtype=torch.long, device=frames.device)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return logits (C × K, V) after the last tokens (C × K,)."""
        x = self.model.embed(tokens, self.position)
        for layer, cache, memory in zip(self.layers, self.caches, self.memories, strict=True):
            x = layer.step(x, cache, memory, self.by_clip)
        self.position += 1
        return self.model.v_encoder.f_encoder.lm_head(x)

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue row ``rows[r]``."""
        for cache in self.caches:
            cache.reorder(rows)
