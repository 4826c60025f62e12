"""Pre-training: five objectives on one encoder (paper, section 3.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.batch import FomBatch, MfmBatch, MlmBatch, MomentBatch
from model.hero import ORDER_CLASSES
from model.vcmr import MomentRetrievalModel
from utils.errors import UserError

PretrainBatch = MlmBatch | MfmBatch | FomBatch | MomentBatch


@dataclass
class Scores:
    """Sums over what a batch asked for, as a validation adds them up.

    Attributes:
        count: tokens, frames or queries that were asked for.
        sums: by name, scalars on the device.
    """

    count: int
    sums: dict[str, Tensor]


class HeroForPretraining(MomentRetrievalModel):
    """Masked language modelling, masked frame modelling (two forms), frame order modelling,
    video-subtitle matching. The type of a batch says which objective it is for."""

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """Named losses, unweighted: means in training, sums (``neg_*``: vectors) in evaluation.

        A batch that asks for nothing (no text; no shuffled frame) has a loss of zero, whose
        gradient is zero.
        """
        if isinstance(batch, MomentBatch):
            return self.moment_losses(batch, spans=self.span_wanted or not self.training)
        name, losses = self.single_losses(batch)
        total = losses.sum()
        return {name: total / max(1, len(losses)) if self.training else total}

    def single_losses(self, batch: MlmBatch | MfmBatch | FomBatch) -> tuple[str, Tensor]:
        """Name of the objective, and the loss of each of the M chosen tokens or frames (M,)."""
        if isinstance(batch, MlmBatch):
            return "mlm", _cross_entropy(self.token_logits(batch), batch.labels)
        if isinstance(batch, FomBatch):
            return "fom", _cross_entropy(self.order_logits(batch), batch.places)
        predicted, true, negatives = self.frame_predictions(batch)
        if not batch.contrastive:
            return "mffr", (predicted - true).norm(dim=1)
        logits = frame_logits(predicted, true, negatives)
        return "mfm-nce", _cross_entropy(logits, _own(logits))

    def token_logits(self, batch: MlmBatch) -> Tensor:
        """(M, V) over the real vocabulary, at the chosen tokens."""
        head = self.v_encoder.f_encoder.lm_head
        features = batch.video.features
        if len(batch.rows) == 0:  # no text at all: there is no sequence to run
            vectors = features.new_zeros(0, head.dense.in_features)
        else:
            vectors = self.v_encoder.subtitle_vectors(batch.video, features, None, batch.rows)
        return head(vectors)[:, : head.vocab_size]

    def frame_predictions(self, batch: MfmBatch) -> tuple[Tensor, Tensor, Tensor]:
        """What the hidden frames are thought to be, in fp32.

        Returns:
            Their predicted features (M, D) and their true ones (M, D); predictions at the frames
            that were not hidden (F − M, D), or none where the batch is not contrastive.
        """
        video = batch.video
        vectors = self.v_encoder.frame_vectors(video, batch.frame_mask)
        vectors = self.v_encoder.temporal(vectors, video)
        rows = batch.chosen
        if batch.contrastive:
            rows = torch.cat([batch.chosen, batch.others])
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

    def scores(self, batch: PretrainBatch) -> Scores:
        """Losses and how good the answers are, in evaluation mode.

        Names: ``loss``; ``acc`` (share of right answers); of hidden frames ``l2`` (Euclidean
        distance) and ``cosine`` between prediction and truth; of video-subtitle matching the three
        losses by their names.
        """
        if isinstance(batch, MomentBatch):
            sums = {name: loss.sum() for name, loss in self(batch).items()}
            return Scores(len(batch.targets), sums)
        if isinstance(batch, MlmBatch):
            return Scores(len(batch.rows), _answers(self.token_logits(batch), batch.labels))
        if isinstance(batch, FomBatch):
            return Scores(len(batch.slots), _answers(self.order_logits(batch), batch.places))
        predicted, true, negatives = self.frame_predictions(batch)
        distances = (predicted - true).norm(dim=1).sum()
        sums = {"loss": distances}
        if batch.contrastive:
            logits = frame_logits(predicted, true, negatives)
            sums = _answers(logits, _own(logits))
        sums |= {"l2": distances, "cosine": F.cosine_similarity(predicted, true).sum()}
        return Scores(len(batch.chosen), sums)


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


def _own(logits: Tensor) -> Tensor:
    """The right answer of row m is column m."""
    return torch.arange(len(logits), device=logits.device)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="none")


def _answers(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    right = (logits.argmax(dim=1) == labels).sum()
    return {"loss": _cross_entropy(logits, labels).sum(), "acc": right}
