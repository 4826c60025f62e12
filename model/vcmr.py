"""Corpus moment retrieval: TVR (arXiv 2001.09099); How2R, DiDeMo (arXiv 2005.00200, section 4)."""

from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.groups import RankingLossOptions, SpanLossOptions
from config.model_config import ModelConfig
from config.pretraining import PretrainOptions
from config.training import RetrievalOptions
from config.value import ListOptions
from data.batch import MomentBatch, QueryBatch, VideoBatch
from model.cosine import unit_vectors
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.query_encoder import QueryEncoder
from model.ranking_loss import PADDED_LOGIT, HardNegatives, RankingLoss, span_loss
from utils.distributed import Communicator, SingleProcess, gather_with_grad
from utils.errors import UserError
from utils.packing import PackedLayout

SPAN_KERNEL = 5
NEVER = -1
RANKING_LOSSES = ("neg_ctx", "neg_q")


def ranking_weights(options: RankingLossOptions) -> dict[str, float]:
    """Return the weights of the ranking losses."""
    return {"neg_ctx": options.lw_neg_ctx, "neg_q": options.lw_neg_q}


def ranking_gradient_factors(kind: str, ranks: int, stand_in: int) -> dict[str, float]:
    """Return factors on the gradients of the ranking losses, in addition to their weights.

    On R ranks :func:`gather_with_grad` leaves 1/R of one process's gradient.

    Args:
        kind: ``published``: a rank that replaces several divides by their number too, so that 1/R
            is that of the recipe's ranks; ``undivided``: the gradient of one process.
        ranks: of this run.
        stand_in: ranks of the recipe that each of them replaces.
    """
    factor = float(ranks) if kind == "undivided" else 1 / stand_in
    return dict.fromkeys(RANKING_LOSSES, factor)


@dataclass
class MomentSchedule:
    """Form of the losses of moment retrieval, and the steps from which they apply.

    Attributes:
        ranking: form of the ranking losses.
        span_start_step: first optimizer step (from 0) with a span loss; −1 = never.
        drop_svmr_prob: probability that a training batch has no span loss.
        hard_start_steps, hard_pool_sizes, hard_weights: pool size and weight of hard negatives from
            step ``hard_start_steps[i]``; −1 = never.
        seed: of random draws, which are the same on all ranks.
    """

    ranking: RankingLoss = field(default_factory=RankingLoss)
    span_start_step: int = 0
    drop_svmr_prob: float = 0.0
    hard_start_steps: list[int] = field(default_factory=list)
    hard_pool_sizes: list[int] = field(default_factory=list)
    hard_weights: list[float] = field(default_factory=list)
    seed: int = 0

    @classmethod
    def from_options(cls, options: PretrainOptions | RetrievalOptions | ListOptions) -> Self:
        """Return the schedule of ranking options and, where the task has spans, span options."""
        spans = options if isinstance(options, SpanLossOptions) else None
        return cls(
            ranking=RankingLoss(options.ranking_loss_type, options.margin, options.use_all_neg),
            span_start_step=spans.train_span_start_step if spans else NEVER,
            drop_svmr_prob=spans.drop_svmr_prob if spans else 0.0,
            hard_start_steps=options.hard_negtiave_start_step,
            hard_pool_sizes=options.hard_pool_size,
            hard_weights=options.hard_neg_weights,
            seed=options.seed,
        )

    def hard_negatives(self, step: int) -> HardNegatives | None:
        """Return the latest stage of hard negatives that has begun at ``step``."""
        stages = zip(self.hard_start_steps, self.hard_pool_sizes, self.hard_weights, strict=True)
        begun = [stage for stage in stages if 0 <= stage[0] <= step]
        if not begun:
            return None
        _, pool_size, weight = max(begun, key=lambda stage: stage[0])
        return HardNegatives(pool_size, weight)

    def span_wanted(self, step: int, generator: torch.Generator) -> bool:
        """Return whether this training batch has a span loss."""
        kept = torch.rand((), generator=generator, device="cpu").item() >= self.drop_svmr_prob
        return kept and 0 <= self.span_start_step <= step


class MomentRetrievalModel(HeroModel):
    """Encoder, query encoder and span head: shared by pre-training and all retrieval tasks.

    :meth:`pool_scores` and :meth:`span_logits` define the score of a video and of a span's ends:
    training, validation and the search of a corpus all call them, in fp32 and outside autocast.
    Their mask is bool, True = a real frame, and broadcasts against the values, with all T frames in
    its last dimension. Every video has a real frame; its result must not depend on padding.

    Args:
        config: with ``q_config``.
        feature_size, encoder: see :class:`model.hero.HeroModel`.
        schedule: of the losses.
        comm: gathers queries and videos of all ranks for the ranking losses.

    Raises:
        UserError: ``config`` has no query encoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        feature_size: int = FEATURE_SIZE,
        encoder: HierarchicalEncoder | None = None,
        schedule: MomentSchedule | None = None,
        comm: Communicator | None = None,
    ) -> None:
        if config.q_config is None:
            raise UserError(
                "the model config has no q_config (query encoder), which retrieval needs; see "
                "config/hero_finetune.json"
            )
        super().__init__(config, feature_size, encoder)
        hidden = config.f_config.hidden_size
        self.video_query_linear = nn.Linear(hidden, hidden)
        conv = partial(nn.Conv1d, kernel_size=SPAN_KERNEL, padding=SPAN_KERNEL // 2, bias=False)
        self.video_st_predictor = conv(1, 1)
        self.video_ed_predictor = conv(1, 1)
        self.q_feat_attn = QueryEncoder(config.q_config)
        self.schedule = schedule or MomentSchedule()
        self.comm = comm or SingleProcess()
        self.set_step(step=0, micro_step=0)

    def set_step(self, step: int, micro_step: int) -> None:
        """Set span loss, hard negatives and random draws for a batch: accumulation step
        ``micro_step`` after ``step`` optimizer steps."""
        self.generator = torch.Generator()
        entropy = [self.schedule.seed, step, micro_step]
        self.generator.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.hard_negatives = self.schedule.hard_negatives(step)
        self.span_wanted = self.schedule.span_wanted(step, self.generator)

    def encode_videos(self, video: VideoBatch) -> Tensor:
        """Return frame embeddings (F, H), packed."""
        return self.v_encoder(video)

    def encode_queries(self, query: QueryBatch | MomentBatch) -> Tensor:
        """Return query vectors (N, H)."""
        text = query.text
        return self.q_feat_attn(self.v_encoder.encode_text(text), text.positions, text.layout)

    def encode_moments(self, batch: MomentBatch) -> tuple[Tensor, Tensor]:
        """Return :meth:`encode_videos` (F, H) and :meth:`encode_queries` (N, H), by one pass of the
        cross-modal transformer."""
        frames, tokens = self.v_encoder.with_texts(batch.video, batch.text_rows)
        text = batch.text
        return frames, self.q_feat_attn(tokens, text.positions, text.layout)

    def span_queries(self, query_vectors: Tensor) -> Tensor:
        """Project query vectors for the span head: (N, H) → (N, H)."""
        return self.video_query_linear(query_vectors)

    def pool_scores(self, cosines: Tensor, mask: Tensor) -> Tensor:
        """Return scores (…) of videos for queries: the largest of the cosines (…, T) of a query
        vector and a video's frames."""
        if mask.is_cpu and mask.all():  # saves a pass; on a GPU the host would wait
            return cosines.amax(dim=-1)
        padding = torch.where(mask, 0.0, float("-inf"))  # adding is cheaper than masking cosines
        return (cosines + padding).amax(dim=-1)

    def span_logits(self, similarities: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end logits (…, T) from dot products (…, T) of a span query and the
        frames of a video; padded frames count as zeros, and get −1e4."""
        kernels = torch.cat([self.video_st_predictor.weight, self.video_ed_predictor.weight])
        logits = convolve(torch.where(mask, similarities, 0.0), kernels.squeeze(1))
        start, end = torch.where(mask, logits, PADDED_LOGIT)
        return start, end

    def span_probabilities(self, similarities: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (…, T) of a span's first and last frame: the softmax of
        :meth:`span_logits` over the real frames."""
        logits = self.span_logits(similarities, mask)
        start, end = (torch.where(mask, x, float("-inf")).softmax(dim=-1) for x in logits)
        return start, end

    def video_scores(self, vectors: Tensor, frames: Tensor, layout: PackedLayout) -> Tensor:
        """Return scores (N, B) of B videos of frames (F, H) for query vectors (N, H).

        fp32 under any autocast: differences between scores are small compared with the steps of
        half precision, and scaled gradients would overflow in fp16.
        """
        with torch.autocast(frames.device.type, enabled=False):
            cosines = unit_vectors(vectors)[0] @ unit_vectors(frames)[0].T  # (N, F)
            return self.pool_scores(*layout.pad(cosines, dim=1))  # of (N, B, T)

    def own_video_spans(
        self, vectors: Tensor, frames: Tensor, layout: PackedLayout, query_video: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return start and end logits (N, T) of each query over its video ``query_video`` (N,), in
        fp32; other arguments as for :meth:`video_scores`."""
        queries = self.span_queries(vectors)
        with torch.autocast(frames.device.type, enabled=False):
            similarities = queries.float() @ frames.float().T  # (N, F)
            grid, mask = layout.pad(similarities, dim=1)  # (N, B, T), (B, T)
            query = torch.arange(len(grid), device=grid.device)
            return self.span_logits(grid[query, query_video], mask[query_video])

    def span_losses(self, frames: Tensor, batch: MomentBatch, vectors: Tensor) -> Tensor:
        """Return ``st_ed``: mean in training, sum in evaluation."""
        start, end = self.own_video_spans(vectors, frames, batch.video.layout, batch.query_video)
        return span_loss(start, end, batch.targets, "mean" if self.training else "sum")

    def ranking_losses(
        self, frames: Tensor, layout: PackedLayout, vectors: Tensor
    ) -> dict[str, Tensor]:
        """Return ``neg_ctx`` and ``neg_q`` over all ranks' queries and videos: means in training,
        one value per query in evaluation."""
        if self.training and self.comm.size > 1:
            lengths = self.comm.all_gather(torch.from_numpy(layout.host_lengths))
            layout = PackedLayout.from_lengths(lengths.numpy(), attended=False).to(frames.device)
            frames = gather_with_grad(self.comm, frames)
            vectors = gather_with_grad(self.comm, vectors)
        scores = self.video_scores(vectors, frames, layout)
        losses = self.schedule.ranking(scores, self.hard_negatives, self.generator)
        return {
            name: loss.mean() if self.training else loss
            for name, loss in zip(RANKING_LOSSES, losses, strict=True)
        }

    def moment_losses(self, batch: MomentBatch, spans: bool) -> dict[str, Tensor]:
        """Return named losses, unweighted; ``st_ed`` only if ``spans``."""
        frames, vectors = self.encode_moments(batch)
        losses = self.ranking_losses(frames, batch.video.layout, vectors)
        if spans:
            losses["st_ed"] = self.span_losses(frames, batch, vectors)
        return losses


def convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """Return each sequence (…, T) convolved with each kernel (C, K), K odd: (C, …, T).

    As ``nn.Conv1d`` with zero padding. A sum of shifted products: no backend rounds it to fewer
    bits, and no sequence's result depends on how many there are.
    """
    channels, size = kernels.shape
    padded = F.pad(x, (size // 2, size // 2))
    first, *rest = kernels.T.reshape(size, channels, *[1] * x.dim())
    result = first * padded[..., : x.shape[-1]]
    for shift, weight in enumerate(rest, start=1):
        result += weight * padded[..., shift : shift + x.shape[-1]]
    return result


class HeroForVcmr(MomentRetrievalModel):
    """Moment retrieval in a corpus of videos."""

    def forward(self, batch: MomentBatch) -> dict[str, Tensor]:
        """Return named losses of a batch (see :meth:`moment_losses`)."""
        return self.moment_losses(batch, spans=self.span_wanted or not self.training)
