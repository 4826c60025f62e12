"""Pre-training: several objectives on one encoder (arXiv 2005.00200, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from data.batch import FomBatch, MfmBatch, MlmBatch, MomentBatch, ObjectiveBatch
from model.hero import ORDER_CLASSES
from model.vcmr import MomentRetrievalModel
from utils.errors import UserError


@dataclass
class ObjectiveOutput:
    """Losses and measures of a batch of an objective.

    Attributes:
        count: of masked tokens, masked or shuffled frames, or queries.
        losses: unweighted, by name, (count,) each. One without a value per item is a scalar: the
            mean in training, the sum in evaluation.
        measures: of quality, by name, (count,) each.
    """

    count: int
    losses: dict[str, Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def classified(cls, name: str, logits: Tensor, labels: Tensor, **measures: Tensor) -> Self:
        """Return cross-entropy, as ``name``, and accuracy (``acc``) of logits (M, C) for labels
        (M,), with further measures."""
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        correct = logits.argmax(dim=1) == labels
        return cls(len(labels), {name: losses}, {"acc": correct} | measures)

    def means(self) -> dict[str, Tensor]:
        """Return the losses to train with; 0, with a gradient of 0, if ``count`` is 0."""
        return {name: loss.sum() / max(1, loss.numel()) for name, loss in self.losses.items()}

    def sums(self, weights: Mapping[str, float]) -> tuple[int, dict[str, Tensor]]:
        """Return ``count`` and sums for validation, in fp64: the weighted ``loss``, its parts by
        name if it has several, and the measures."""
        parts = {name: weights[name] * loss.sum().double() for name, loss in self.losses.items()}
        several = parts if len(parts) > 1 else {}
        measures = {name: values.sum().double() for name, values in self.measures.items()}
        return self.count, {"loss": reduce(add, parts.values())} | several | measures


class HeroForPretraining(MomentRetrievalModel):
    """Masked language modelling, masked frame modelling (two forms), frame order modelling and
    video-subtitle matching: one method each, which a batch names."""

    def forward(self, batch: ObjectiveBatch) -> dict[str, Tensor]:
        """Return named losses, unweighted: means in training, else those of :meth:`answer`."""
        output = self.answer(batch)
        return output.means() if self.training else output.losses

    def answer(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """Return losses and measures of a batch by the method of its objective."""
        return getattr(self, batch.method)(batch.batch)

    def mlm(self, batch: MlmBatch) -> ObjectiveOutput:
        """Masked language modelling (arXiv 1810.04805): predict the masked tokens."""
        return ObjectiveOutput.classified("mlm", self.token_logits(batch), batch.labels)

    def mfm_nce(self, batch: MfmBatch) -> ObjectiveOutput:
        """Masked frame modelling, contrastive: identify the masked frames among all frames of the
        batch, by the softmax form of noise-contrastive estimation (arXiv 1602.02410)."""
        predicted, true, negatives = self.frame_predictions(batch, contrastive=True)
        logits = frame_logits(predicted, true, negatives)
        labels = torch.arange(len(logits), device=logits.device)
        return ObjectiveOutput.classified("mfm-nce", logits, labels, **_similarity(predicted, true))

    def mffr(self, batch: MfmBatch) -> ObjectiveOutput:
        """Masked frame modelling, regression: predict the features of the masked frames."""
        predicted, true, _ = self.frame_predictions(batch, contrastive=False)
        measures = _similarity(predicted, true)
        return ObjectiveOutput(len(predicted), {"mffr": measures["l2"]}, measures)

    def fom(self, batch: FomBatch) -> ObjectiveOutput:
        """Frame order modelling: predict the original positions of the shuffled frames."""
        return ObjectiveOutput.classified("fom", self.order_logits(batch), batch.targets)

    def vsm(self, batch: MomentBatch) -> ObjectiveOutput:
        """Video-subtitle matching: find the queries' videos and moments, by the losses of
        :mod:`model.ranking_loss`."""
        losses = self.moment_losses(batch, spans=self.span_wanted or not self.training)
        return ObjectiveOutput(len(batch.targets), losses)

    def token_logits(self, batch: MlmBatch) -> Tensor:
        """Return logits (M, V) of the masked tokens, over the vocabulary without padding rows."""
        head = self.v_encoder.f_encoder.lm_head
        features = batch.video.features
        if len(batch.rows) == 0:  # no text, hence no sequence to run
            vectors = features.new_zeros(0, head.dense.in_features)
        else:
            vectors = self.v_encoder.subtitle_vectors(batch.video, features, None, batch.rows)
        return head(vectors)[:, : head.vocab_size]

    def frame_predictions(
        self, batch: MfmBatch, contrastive: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return predicted and true features (M, D) of the masked frames, in fp32, and predictions
        at the other frames (F − M, D) if ``contrastive``."""
        video = batch.video
        vectors = self.v_encoder.frame_vectors(video, batch.frame_mask)
        vectors = self.v_encoder.temporal(vectors, video)
        rows = torch.cat([batch.chosen, batch.others]) if contrastive else batch.chosen
        features = self.v_encoder.feat_regress(vectors.index_select(0, rows)).float()
        masked = len(batch.chosen)
        true = video.features.index_select(0, batch.chosen).float()
        return features[:masked], true, features[masked:]

    def order_logits(self, batch: FomBatch) -> Tensor:
        """Return logits (M, 100) of positions in the video, at the slots of the shuffled frames.

        Raises:
            UserError: a video is longer than there are classes.
        """
        return self.v_encoder.fom_output(self.shuffled_frames(batch).index_select(0, batch.slots))

    def shuffled_frames(self, batch: FomBatch) -> Tensor:
        """Return frame embeddings (F, H) of the videos with their frames out of order."""
        if batch.video.layout.max_length > ORDER_CLASSES:
            raise UserError(
                f"frame order modelling has {ORDER_CLASSES} positions, a video has "
                f"{batch.video.layout.max_length} frames; set max_clip_len to {ORDER_CLASSES}"
            )
        frames = self.v_encoder.frame_vectors(batch.video).index_select(0, batch.source)
        return self.v_encoder.temporal(frames, batch.video)


def frame_logits(predicted: Tensor, true: Tensor, negatives: Tensor) -> Tensor:
    """Return dot products (M, M + U) of predictions (M, D) with the true features of all masked
    frames (M, D), then with negatives (U, D). In fp32: sums over D values overflow in fp16."""
    with torch.autocast(predicted.device.type, enabled=False):
        return predicted @ torch.cat([true, negatives]).T


def _similarity(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return Euclidean distance and cosine similarity (M,) of features (M, D)."""
    distance = (predicted - true).norm(dim=1)
    return {"l2": distance, "cosine": F.cosine_similarity(predicted, true)}
