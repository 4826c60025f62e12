"""Pre-training: several objectives on one encoder (paper, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from data.batch import FomBatch, MfmBatch, MlmBatch, MomentBatch, ObjectiveBatch
from model.hero import ORDER_CLASSES
from model.vcmr import MomentRetrievalModel
from utils.errors import UserError


@dataclass
class Answers:
    """What the model made of what a batch asked for.

    Attributes:
        count: of tokens, frames or queries that were asked for.
        losses: unweighted, by name, (count,) each. One that cannot be told apart is a scalar: the
            mean in training, the sum in evaluation.
        measures: how good the answers are, by name, (count,) each.
    """

    count: int
    losses: dict[str, Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def chosen(cls, name: str, logits: Tensor, labels: Tensor, **measures: Tensor) -> "Answers":
        """Choices among classes: their cross-entropy, and ``acc``, whether they are right.

        Args:
            name: of the loss.
            logits: (M, C).
            labels: (M,).
            measures: further ones.
        """
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        right = logits.argmax(dim=1) == labels
        return cls(len(labels), {name: losses}, {"acc": right} | measures)

    def means(self) -> dict[str, Tensor]:
        """Losses to train with; 0, with a gradient of 0, where nothing was asked for."""
        return {name: loss.sum() / max(1, loss.numel()) for name, loss in self.losses.items()}

    def sums(self, weights: Mapping[str, float]) -> tuple[int, dict[str, Tensor]]:
        """``count``, and what validation adds up, in fp64: the weighted ``loss``, its parts by
        their names where it has several, and the measures."""
        parts = {name: weights[name] * loss.sum().double() for name, loss in self.losses.items()}
        several = parts if len(parts) > 1 else {}
        measures = {name: values.sum().double() for name, values in self.measures.items()}
        return self.count, {"loss": reduce(add, parts.values())} | several | measures


class HeroForPretraining(MomentRetrievalModel):
    """Masked language modelling, masked frame modelling (two forms), frame order modelling,
    video-subtitle matching: a method each, which a batch names."""

    def forward(self, batch: ObjectiveBatch) -> dict[str, Tensor]:
        """Named losses, unweighted: means in training, as in :class:`Answers` in evaluation."""
        answers = self.answer(batch)
        return answers.means() if self.training else answers.losses

    def answer(self, batch: ObjectiveBatch) -> Answers:
        """Losses and measures of a batch by the method of its objective."""
        return getattr(self, batch.method)(batch.batch)

    def mlm(self, batch: MlmBatch) -> Answers:
        """Masked language modelling: the chosen tokens."""
        return Answers.chosen("mlm", self.token_logits(batch), batch.labels)

    def mfm_nce(self, batch: MfmBatch) -> Answers:
        """Masked frame modelling: the hidden frames, each to be told from all others."""
        predicted, true, negatives = self.frame_predictions(batch, contrastive=True)
        logits = frame_logits(predicted, true, negatives)
        own = torch.arange(len(logits), device=logits.device)  # the right answer of row m
        return Answers.chosen("mfm-nce", logits, own, **_closeness(predicted, true))

    def mffr(self, batch: MfmBatch) -> Answers:
        """Masked frame modelling: the features of the hidden frames."""
        predicted, true, _ = self.frame_predictions(batch, contrastive=False)
        measures = _closeness(predicted, true)
        return Answers(len(predicted), {"mffr": measures["l2"]}, measures)

    def fom(self, batch: FomBatch) -> Answers:
        """Frame order modelling: the places of the shuffled frames."""
        return Answers.chosen("fom", self.order_logits(batch), batch.targets)

    def vsm(self, batch: MomentBatch) -> Answers:
        """Video-subtitle matching: the queries' videos and moments."""
        losses = self.moment_losses(batch, spans=self.span_wanted or not self.training)
        return Answers(len(batch.targets), losses)

    def token_logits(self, batch: MlmBatch) -> Tensor:
        """(M, V) over the real vocabulary, at the chosen tokens."""
        head = self.v_encoder.f_encoder.lm_head
        features = batch.video.features
        if len(batch.rows) == 0:  # no text at all: there is no sequence to run
            vectors = features.new_zeros(0, head.dense.in_features)
        else:
            vectors = self.v_encoder.subtitle_vectors(batch.video, features, None, batch.rows)
        return head(vectors)[:, : head.vocab_size]

    def frame_predictions(
        self, batch: MfmBatch, contrastive: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the hidden frames are thought to be, in fp32.

        Returns:
            Their predicted features (M, D) and their true ones (M, D); predictions at the frames
            that were not hidden (F − M, D), none of them unless ``contrastive``.
        """
        video = batch.video
        vectors = self.v_encoder.frame_vectors(video, batch.frame_mask)
        vectors = self.v_encoder.temporal(vectors, video)
        rows = torch.cat([batch.chosen, batch.others]) if contrastive else batch.chosen
        features = self.v_encoder.feat_regress(vectors.index_select(0, rows)).float()
        hidden = len(batch.chosen)
        true = video.features.index_select(0, batch.chosen).float()
        return features[:hidden], true, features[hidden:]

    def order_logits(self, batch: FomBatch) -> Tensor:
        """(M, 100) places in the video, at the slots that the shuffled frames went to.

        Raises:
            UserError: a video is longer than there are classes.
        """
        return self.v_encoder.fom_output(self.shuffled_frames(batch).index_select(0, batch.slots))

    def shuffled_frames(self, batch: FomBatch) -> Tensor:
        """Frame embeddings (F, H) of the videos with their frames out of order."""
        if batch.video.layout.max_length > ORDER_CLASSES:
            raise UserError(
                f"frame order modelling knows {ORDER_CLASSES} places, a video has "
                f"{batch.video.layout.max_length} frames; set max_clip_len to {ORDER_CLASSES}"
            )
        frames = self.v_encoder.frame_vectors(batch.video).index_select(0, batch.source)
        return self.v_encoder.temporal(frames, batch.video)


def frame_logits(predicted: Tensor, true: Tensor, negatives: Tensor) -> Tensor:
    """Dot products of every prediction with all true hidden frames, then with all negatives.

    In fp32: over thousands of values, fp16 overflows.

    Args:
        predicted, true: (M, D).
        negatives: (U, D).

    Returns:
        (M, M + U)
    """
    with torch.autocast(predicted.device.type, enabled=False):
        return predicted @ torch.cat([true, negatives]).T


def _closeness(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Euclidean distance and cosine of features (M, D) and (M, D)."""
    distance = (predicted - true).norm(dim=1)
    return {"l2": distance, "cosine": F.cosine_similarity(predicted, true)}
