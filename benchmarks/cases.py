"""Synthetic batches of every task with the task's model, packed and padded."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import VOCABULARY, draw_tokens, model_config, tvr_like_batch, tvr_like_videos
from benchmarks.padded import PaddedCandidates, PaddedEncoder, content_of, replaced_encoder
from config.model_config import ModelConfig
from data.batch import VideoBatch
from data.fom import SHUFFLED_SHARE, FomItem, shuffle_some
from data.mfm import MfmItem, choose_frames
from data.mlm import MlmItem, TokenMasking
from data.pretraining import OBJECTIVES
from data.tvc import CaptionItem, pack_captions
from data.vcmr import QUERIES_PER_VIDEO, MomentItem
from data.video import Subtitle, VideoItem
from data.videoQA import QuestionDataset, QuestionItem
from data.vsm import subtitle_frames
from model.hero import FEATURE_SIZE, HeroModel, HierarchicalEncoder
from model.pretrain import HeroForPretraining
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr
from model.videoQA import HeroForVideoQA
from utils.batch import TensorBatch

BatchT = TypeVar("BatchT", bound=TensorBatch)

MASK_PROB = 0.15
MASKING = TokenMasking(MASK_PROB, mask_id=50264, replacements=np.arange(4, 50000))
ANSWERS, FRAMES, SUBTITLES, TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 5, 50, 25, 12, 16, 8
CAPTION_TOKENS, CLIPS, CAPTIONS = 14, 3, 2


@dataclass(frozen=True)
class Sizes:
    """Sizes of batches and models: the recipes', or what a test can afford.

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
        padded: makes the encoder that computes the same, everything padded to the longest.
    """

    model: HeroModel
    batch: TensorBatch
    video: VideoBatch
    padded: Callable[[HierarchicalEncoder, TensorBatch], nn.Module] = PaddedEncoder

    @property
    def positions(self) -> int:
        """Of all sequences of the cross-modal transformer, padding not counted."""
        return int(self.video.subtitles.layout.lengths.sum())


def sized_config(sizes: Sizes, kind: str) -> ModelConfig:
    """Return the config of a model: ``finetune``, ``pretrain`` or ``tvc``; the vocabulary is always
    RoBERTa's."""
    small = "hero_debug_tvc" if kind == "tvc" else "hero_debug"
    config = model_config(small if sizes.models == "hero_debug" else f"hero_{kind}")
    return dataclasses.replace(
        config, f_config=dataclasses.replace(config.f_config, vocab_size=VOCABULARY)
    )


def retrieval(sizes: Sizes) -> Case:
    """Return TVR's case."""
    batch = tvr_like_batch(sizes.videos)
    return Case(HeroForVcmr(sized_config(sizes, "finetune")), batch, batch.video)


def draw_question(rng: np.random.Generator) -> QuestionItem:
    """Return a question about a video of TVQA's usual size, subtitles over two frames each."""
    features = rng.standard_normal((FRAMES, FEATURE_SIZE), dtype=np.float32)
    runs = np.split(np.arange(FRAMES), SUBTITLES)
    subtitles = [Subtitle(draw_tokens(rng, TOKENS), run.tolist()) for run in runs]
    question = draw_tokens(rng, QUESTION_TOKENS)
    texts = [question + draw_tokens(rng, ANSWER_TOKENS) for _ in range(ANSWERS)]
    return QuestionItem(["question"], VideoItem("video", features, subtitles), texts, [0], (0, 1))


def question_answering(sizes: Sizes) -> Case:
    """Return TVQA's case: five answers to each question."""
    rng = np.random.default_rng(1)
    batch = QuestionDataset.collate([draw_question(rng) for _ in range(sizes.questions)])
    model = HeroForVideoQA(sized_config(sizes, "finetune"))
    return Case(model, batch, batch.candidates.video, PaddedCandidates)


def captioning(sizes: Sizes) -> Case:
    """Return TVC's case: clips of each video, with captions."""
    rng = np.random.default_rng(1)
    words = [[draw_tokens(rng, CAPTION_TOKENS) for _ in range(CAPTIONS)] for _ in range(CLIPS)]
    spans = [(2 + 8 * number, 9 + 8 * number) for number in range(CLIPS)]
    videos = tvr_like_videos(sizes.captioned)
    items = [CaptionItem(video, [video.vid], spans, words) for video in videos]
    batch = pack_captions(items, {"BOS": 0, "EOS": 2}, max_txt_len=60)
    return Case(HeroForTvc(sized_config(sizes, "tvc")), batch, batch.video)


def mlm_item(video: VideoItem, rng: np.random.Generator) -> MlmItem:
    """Return a video with tokens masked."""
    masked = [MASKING(subtitle.tokens, rng) for subtitle in video.subtitles]
    subtitles = [
        Subtitle(read, subtitle.frames)
        for (read, _), subtitle in zip(masked, video.subtitles, strict=True)
    ]
    return MlmItem(dataclasses.replace(video, subtitles=subtitles), [true for _, true in masked])


def mfm_item(video: VideoItem, rng: np.random.Generator) -> MfmItem:
    """Return a video with frames masked."""
    return MfmItem(video, choose_frames(video.num_frames, MASK_PROB, rng))


def fom_item(video: VideoItem, rng: np.random.Generator) -> FomItem:
    """Return a video with frames shuffled."""
    return FomItem(video, *shuffle_some(video.num_frames, SHUFFLED_SHARE, rng))


def vsm_item(video: VideoItem, rng: np.random.Generator) -> MomentItem:
    """Return a video with some of its subtitles as queries."""
    drawn = np.sort(rng.permutation(len(video.subtitles))[:QUERIES_PER_VIDEO])
    queries = [video.subtitles[number] for number in drawn]
    subtitles = [
        Subtitle(subtitle.tokens[:1] if subtitle in queries else subtitle.tokens, subtitle.frames)
        for subtitle in video.subtitles
    ]
    return MomentItem(
        dataclasses.replace(video, subtitles=subtitles),
        [query.tokens for query in queries],
        [subtitle_frames(query.frames, video.num_frames) for query in queries],
        [video.vid] * QUERIES_PER_VIDEO,
    )


MAKE_ITEM: dict[str, Callable[[VideoItem, np.random.Generator], object]] = {
    "mlm": mlm_item,
    "mfm-nce": mfm_item,
    "mffr": mfm_item,
    "fom": fom_item,
    "vsm": vsm_item,
}


def pretraining(objective: str, sizes: Sizes) -> Case:
    """Return an objective's case. Mask embeddings are zero: the padded version has none."""
    model = HeroForPretraining(sized_config(sizes, "pretrain"))
    encoder = model.v_encoder
    for table in (encoder.mask_embedding, encoder.f_encoder.img_embeddings.mask_embedding):
        nn.init.zeros_(table.weight)
    rng = np.random.default_rng(0)
    items: Sequence[object] = [
        MAKE_ITEM[objective](video, rng) for video in tvr_like_videos(sizes.videos)
    ]
    batch = OBJECTIVES[objective].batch(items)
    return Case(model, batch, content_of(batch).video)


CASES: dict[str, Callable[[Sizes], Case]] = {
    "TVR": retrieval,
    "TVQA": question_answering,
    "TVC": captioning,
    **{name: partial(pretraining, name) for name in MAKE_ITEM},
}


@torch.no_grad()
def difference(case: Case, batch: TensorBatch) -> float:
    """Return by how much the losses of the two versions differ, as a share; ``batch`` is on the
    model's device."""
    encoder, losses = case.model.v_encoder, []
    case.model.eval()
    for version in (encoder, case.padded(encoder, batch)):
        with replaced_encoder(case.model, version):
            losses.append(sum(loss.double().sum().item() for loss in case.model(batch).values()))
    case.model.train()
    packed, padded = losses
    return abs(packed - padded) / abs(packed)


def half_precision(batch: BatchT) -> BatchT:
    """Return the batch with features as a half-precision store gives them."""

    def halve(tensor: Tensor) -> Tensor:
        return tensor.half() if tensor.dtype == torch.float32 else tensor

    return batch.map_tensors(halve)
