"""Made-up batches of every task, in memory, with the task's model: packed, and padded as one would
write it first."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.padded import PaddedVideos, padded_frame_vectors, padded_with_texts, standing_in
from benchmarks.pretrain_objectives import PaddedEncoder, make_batches, videos_of
from benchmarks.question_candidates import draw_question
from benchmarks.train_step import tvr_like_videos
from config.model_config import ModelConfig
from data.batch import CandidateBatch, MomentBatch, QuestionBatch, SubtitleSequences, VideoBatch
from data.tvc import CaptionItem, pack_captions
from data.vcmr import MomentItem, collate_moments
from data.videoQA import QuestionDataset
from model.hero import HeroModel, HierarchicalEncoder
from model.pretrain import HeroForPretraining
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr
from model.videoQA import HeroForVideoQA
from utils.batch import TensorBatch
from utils.files import read_json

BatchT = TypeVar("BatchT", bound=TensorBatch)

CONFIGS = Path(__file__).resolve().parents[1] / "config"
OBJECTIVES = ("mlm", "mfm-nce", "mffr", "fom", "vsm")
QUERY_TOKENS, CAPTION_TOKENS, CLIPS, CAPTIONS = 12, 14, 3, 2


@dataclass(frozen=True)
class Sizes:
    """How large the batches and models are: the recipes', or what a test can afford.

    Attributes:
        models: start of the names of the models' sizes in ``config/``.
        videos: of retrieval and pre-training.
        questions: with five answers each.
        captioned: videos with clips to caption.
    """

    models: str
    videos: int
    questions: int
    captioned: int


RECIPE, SMALL = Sizes("hero", 32, 4, 4), Sizes("hero_debug", 2, 1, 2)


@dataclass
class Case:
    """A task's batch, on the CPU, and its model.

    Attributes:
        video: of the batch.
        padded: the encoder that computes the same, everything padded to the longest.
    """

    model: HeroModel
    batch: TensorBatch
    video: VideoBatch
    padded: Callable[[HierarchicalEncoder, TensorBatch], nn.Module]

    @property
    def positions(self) -> int:
        """Of all sequences of the cross-modal transformer, padding not counted."""
        return int(self.video.subtitles.layout.lengths.sum())


class PaddedCandidates(nn.Module):
    """Answers like the encoder that it wraps when texts are judged by videos."""

    def __init__(self, encoder: HierarchicalEncoder, candidates: CandidateBatch) -> None:
        super().__init__()
        self.encoder, self.f_encoder = encoder, encoder.f_encoder
        self.video = PaddedVideos(candidates.video)

    @property
    def c_encoder(self) -> "PaddedCandidates":
        return self

    def frame_vectors(self, video: VideoBatch, copies: int) -> Tensor:
        return padded_frame_vectors(self.encoder, self.video, copies)

    def with_texts(self, frames: Tensor, tokens: Tensor, sequences: SubtitleSequences) -> Tensor:
        return padded_with_texts(self.encoder.c_encoder, frames, tokens, sequences)


def model_config(sizes: Sizes, kind: str) -> ModelConfig:
    """Sizes of a model: ``finetune``, ``pretrain`` or ``tvc``; the words are always RoBERTa's."""
    small = {"finetune": "", "pretrain": "", "tvc": "_tvc"}
    name = f"hero_debug{small[kind]}" if sizes.models == "hero_debug" else f"hero_{kind}"
    blocks = read_json(CONFIGS / f"{name}.json", dict)
    blocks["f_config"]["vocab_size"] = 50265
    return ModelConfig.from_dict(blocks)


def _draw(rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(4, 50000, size=count).tolist()


def _around_candidates(encoder: HierarchicalEncoder, batch: TensorBatch) -> nn.Module:
    assert isinstance(batch, QuestionBatch)
    return PaddedCandidates(encoder, batch.candidates)


def retrieval_batch(videos: int) -> MomentBatch:
    """A query and its moment for each video."""
    rng = np.random.default_rng(1)
    items = [
        MomentItem(video, [_draw(rng, QUERY_TOKENS)], [(3, 9)], [video.vid])
        for video in tvr_like_videos(videos)
    ]
    return collate_moments(items)


def retrieval(sizes: Sizes) -> Case:
    """TVR."""
    batch = retrieval_batch(sizes.videos)
    return Case(HeroForVcmr(model_config(sizes, "finetune")), batch, batch.video, PaddedEncoder)


def question_answering(sizes: Sizes) -> Case:
    """TVQA: five answers to each question."""
    rng = np.random.default_rng(1)
    batch = QuestionDataset.collate([draw_question(rng) for _ in range(sizes.questions)])
    return Case(
        HeroForVideoQA(model_config(sizes, "finetune")),
        batch,
        batch.candidates.video,
        _around_candidates,
    )


def captioning(sizes: Sizes) -> Case:
    """TVC: clips of each video, with captions."""
    rng = np.random.default_rng(1)
    words = [[_draw(rng, CAPTION_TOKENS) for _ in range(CAPTIONS)] for _ in range(CLIPS)]
    spans = [(2 + 8 * number, 9 + 8 * number) for number in range(CLIPS)]
    items = [
        CaptionItem(video, [video.vid], spans, words) for video in tvr_like_videos(sizes.captioned)
    ]
    batch = pack_captions(items, {"BOS": 0, "EOS": 2}, max_txt_len=60)
    return Case(HeroForTvc(model_config(sizes, "tvc")), batch, batch.video, PaddedEncoder)


def pretraining(objective: str, sizes: Sizes) -> Case:
    """One of the pre-training objectives. Mask embeddings are zero: padding leaves them out."""
    model = HeroForPretraining(model_config(sizes, "pretrain"))
    tables = (model.v_encoder.mask_embedding, model.v_encoder.f_encoder.img_embeddings)
    for table in (tables[0], tables[1].mask_embedding):
        nn.init.zeros_(table.weight)
    batch = make_batches(sizes.videos)[objective]
    return Case(model, batch, videos_of(batch), PaddedEncoder)


CASES: dict[str, Callable[[Sizes], Case]] = {
    "TVR": retrieval,
    "TVQA": question_answering,
    "TVC": captioning,
    **{name: partial(pretraining, name) for name in OBJECTIVES},
}


@torch.no_grad()
def difference(case: Case, batch: TensorBatch) -> float:
    """By how much the losses of the two versions differ, as a share; ``batch`` is on the device."""
    encoder, found = case.model.v_encoder, []
    case.model.eval()
    for version in (encoder, case.padded(encoder, batch)):
        with standing_in(case.model, version):
            found.append(sum(loss.double().sum().item() for loss in case.model(batch).values()))
    case.model.train()
    packed, padded = found
    return abs(packed - padded) / abs(packed)


def half_precision(batch: BatchT) -> BatchT:
    """The batch with features as a half-precision store gives them."""

    def halve(tensor: Tensor) -> Tensor:
        return tensor.half() if tensor.dtype == torch.float32 else tensor

    return batch.map_tensors(halve)
