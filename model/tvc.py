"""Captioning of clips: TVC (paper, section 4.3; the task: arXiv 2001.09099)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.model_config import ModelConfig
from data.batch import CaptionBatch, ClipBatch, VideoBatch
from model.decoder import CaptionDecoder, DecoderSteps
from model.decoding import DecodingSettings, Stepper, search, until_end
from model.embed import check_positions
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.layers import HEAD_NORM_EPS
from utils.errors import UserError


def smoothed_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """KL divergence from the smoothed target to the prediction, one value per token.

    The target has 1 − ε on the word and ε / (V − 1) on every other. PyTorch's smoothing spreads its
    share over all V words, the right one too, so its share is ε V / (V − 1).

    Args:
        logits: (P, V).
        targets: (P,).
        smoothing: ε; 0 gives plain cross-entropy.

    Returns:
        (P,) fp32.
    """
    others = logits.shape[-1] - 1
    share = smoothing * (others + 1) / others
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=share, reduction="none")
    if smoothing == 0:
        return loss
    kept = 1 - smoothing
    return loss + kept * math.log(kept) + smoothing * math.log(smoothing / others)


class HeroForTvc(HeroModel):
    """The hierarchical encoder, and a decoder that attends to a clip's frame embeddings.

    Args:
        config: with ``d_config``.
        feature_size: D.
        label_smoothing: ε of the loss.
        encoder: to share with another model; None: one of its own.

    Raises:
        UserError: ``config`` has no decoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        label_smoothing: float = 0.0,
        encoder: HierarchicalEncoder | None = None,
    ) -> None:
        super().__init__()
        if config.d_config is None:
            raise UserError("the model config has no d_config (caption decoder); see hero_tvc.json")
        decoder = config.d_config
        self.v_encoder = encoder or HierarchicalEncoder(config, feature_size)
        self.position_embeddings = nn.Embedding(
            decoder.max_position_embeddings, decoder.hidden_size
        )
        self.emb_LayerNorm = nn.LayerNorm(decoder.hidden_size, eps=HEAD_NORM_EPS)
        self.decoder = CaptionDecoder(decoder)
        self.label_smoothing = label_smoothing

    def forward(self, batch: CaptionBatch) -> dict[str, Tensor]:
        """``caption``: mean over the batch's tokens in training, (P,) one each in evaluation."""
        losses = smoothed_loss(self.logits(batch), batch.targets, self.label_smoothing)
        return {"caption": losses.mean() if self.training else losses}

    def logits(self, batch: CaptionBatch) -> Tensor:
        """Scores of every next token, given the true ones before it: (P, V)."""
        self._check_length(batch.text.layout.max_length)
        frames = self.v_encoder(batch.video)
        x = self.embed(batch.text.token_ids, batch.text.positions)
        x = self.decoder(x, batch.text.layout, frames, batch.clips, batch.by_clip)
        return self.v_encoder.f_encoder.lm_head(x)

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """(P,) ids and places within their caption → (P, H)."""
        words = self.v_encoder.f_encoder.embeddings.word_embeddings(token_ids)
        return self.emb_LayerNorm(words + self.position_embeddings(positions))

    def _check_length(self, length: int) -> None:
        cure = "lower max_txt_len or max_gen_step"
        check_positions(length, self.position_embeddings, "a caption", cure)

    @torch.no_grad()
    def generate(
        self, video: VideoBatch, clips: ClipBatch, settings: DecodingSettings
    ) -> list[list[int]]:
        """Write a caption for every clip.

        Args:
            video: B videos.
            clips: C stretches of their frames.
            settings: how to write.

        Returns:
            C lists of token ids, without ``<s>`` and ``</s>``.
        """
        return write_captions(self.stepper(video, clips, settings), clips, settings)

    @torch.no_grad()
    def stepper(
        self, video: VideoBatch, clips: ClipBatch, settings: DecodingSettings
    ) -> "CaptionStepper":
        """Return what writes a caption for every clip, token by token; see :meth:`generate`."""
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
    """Writes captions token by token, K for each of C clips (:class:`model.decoding.Stepper`)."""

    def __init__(
        self, model: HeroForTvc, frames: Tensor, clips: ClipBatch, settings: DecodingSettings
    ) -> None:
        self.model = model
        self.position = torch.zeros((), dtype=torch.long, device=frames.device)
        self.decoder = DecoderSteps(model.decoder, frames, clips, settings.beam, settings.max_steps)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(C × K,) last tokens → logits (C × K, V)."""
        x = self.decoder(self.model.embed(tokens, self.position))
        self.position += 1
        return self.model.v_encoder.f_encoder.lm_head(x)

    def reorder(self, rows: Tensor) -> None:
        """Row r goes on from what row ``rows[r]`` holds."""
        self.decoder.reorder(rows)
