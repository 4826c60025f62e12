"""HERO as a scorer: its encoders of frames and sentences, and its head for moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from config.config import ScorerOptions, SearchOptions, parse_options
from config.groups import Channel
from config.shared_model import TOKENIZER_FILES, SharedModel
from data.batch import QueryBatch, VideoBatch
from data.bpe_tokenizer import BpeTokenizer
from data.prepare.frame_matching import match_frames
from data.run_features import channel_of
from data.tokenize import (
    FINGERPRINT,
    encode_texts,
    load_tokenizer,
    named_in_environment,
    normalize_query,
    normalize_subtitle,
    tokenizer_meta,
    tokenizer_name,
)
from data.vcmr import query_tokens
from data.video import (
    Subtitle,
    VideoItem,
    collate_texts,
    collate_videos,
    context_tokens,
    kept_frames,
)
from engine.build import build_for_evaluation
from engine.run import Run, finished_run
from evaluation.ranking import SearchSettings, require_finite, top_moments
from model.cosine import unit_vectors
from model.extractors.weights import file_sha256
from model.inference import pack_weights
from model.vcmr import HeroForVcmr, MomentRetrievalModel
from search.records import Line, Maker
from search.scan import Corpus
from search.scorer import Candidates, Queries
from utils.distributed import SingleProcess
from utils.errors import UserError


@dataclass(frozen=True)
class HeroQueries(Queries):
    """Encoded sentences; ``spans`` (N, H) float32 are what the span head compares with frames."""

    spans: Tensor


class HeroScorer:
    """See :class:`search.scorer.Scorer`.

    Args:
        run: of the model; its options say how moments are searched for.
        model: in evaluation mode.
        fingerprint: of the tokenizer.
        known: the maker of the index to be searched.
    """

    label = ""

    def __init__(
        self,
        run: Run[ScorerOptions | SearchOptions],
        model: MomentRetrievalModel,
        tokenizer: BpeTokenizer,
        fingerprint: str,
        known: Maker | None = None,
    ) -> None:
        options = run.options
        self._fingerprint, self._known = fingerprint, known
        self.run, self.model, self.tokenizer = run, model, tokenizer
        self._cls, self._separator = _token(tokenizer, "cls"), _token(tokenizer, "sep")
        self.settings = SearchSettings.for_moments(options)
        self.window = window_frames(run)
        self.overlap = min(options.max_pred_l, self.window // 2)
        self.video_only = channel_of(options.task) == Channel.VIDEO_ONLY
        self.feature_width = model.v_encoder.f_encoder.img_embeddings.img_linear.in_features

    @classmethod
    def open(
        cls,
        run: str | Path | None = None,
        checkpoint: str | Path | None = None,
        toker: str | None = None,
        device: str = "cpu",
        known: Maker | None = None,
    ) -> Self:
        """Load a finished run's model, or an exported one.

        Args:
            run: folder of the run; None: ``checkpoint`` names an exported model.
            checkpoint: step, file, exported model, or best (the default).
            toker: tokenizer; None: the run's.
            known: the maker of the index to be searched.

        Raises:
            UserError: there is no such model, or it is not one for moment retrieval.
        """
        if run is None and checkpoint is None:
            raise UserError("name the model: --run RUN [--checkpoint STEP], or --checkpoint FOLDER")
        given = {"--run_dir": run, "--checkpoint": checkpoint or "best", "--toker": toker}
        words = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
        finished = finished_run(
            parse_options(ScorerOptions, words), SingleProcess(), torch.device(device)
        )
        tokenizer = load_tokenizer(toker_of(finished))
        if known and known.tokenizer and known.opened_by.get("toker_stamp") == stamp_of(tokenizer):
            fingerprint = known.tokenizer  # its files are those that the index was made with
        else:
            identity = tokenizer_meta(tokenizer)
            finished.require_tokenizer(tokenizer.name_or_path, identity)
            fingerprint = identity[FINGERPRINT]
        if len(tokenizer) > finished.vocab_size:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} has {len(tokenizer)} tokens, the model "
                f"{finished.vocab_size}; name the right --toker"
            )
        model = build_for_evaluation(HeroForVcmr, finished, None, window_frames(finished))
        if finished.precision.mode == "fp32":
            pack_weights(model)
        return cls(finished, model, tokenizer, fingerprint, known)

    @cached_property
    def maker(self) -> Maker:
        """See :class:`search.scorer.Scorer`."""
        options, known = self.run.options, self._known
        weights = self.run.folder.find_checkpoint(self.run.evaluated.name)
        stamp = f"{weights.stat().st_size} {weights.stat().st_mtime_ns}"
        same = known and known.opened_by.get("stamp") == stamp
        shared = SharedModel.find(options.checkpoint, options.run_dir)
        return Maker(
            kind="hero",
            # A large file is only hashed if it may have changed.
            model_sha256=known.model_sha256 if known and same else file_sha256(weights),
            interval=self.settings.interval,
            width=self.run.model_config.c_config.hidden_size,
            tokenizer=self._fingerprint,
            video_only=self.video_only,
            settings={"window": self.window, "sub_ctx_len": options.sub_ctx_len},
            opened_by={
                "run": None if shared else str(Path(options.run_dir).absolute()),
                "checkpoint": str(shared.folder.absolute() if shared else weights.absolute()),
                "toker": str(Path(self.tokenizer.name_or_path).absolute()),
                "stamp": stamp,
                "toker_stamp": stamp_of(self.tokenizer),
            },
        )

    def encode_segments(
        self, segments: Sequence[tuple[np.ndarray, Sequence[Line]]]
    ) -> list[np.ndarray]:
        """See :class:`search.scorer.Scorer`."""
        batch = collate_videos([self._item(features, lines) for features, lines in segments])
        arrays = [frames.half().cpu().numpy() for frames in self.encode_batch(batch)]
        if not all(np.isfinite(array).all() for array in arrays):
            raise UserError(
                "frames are encoded as values that are not finite in half precision: are the "
                "features finite, and the model sound?"
            )
        return arrays

    @torch.inference_mode()
    def encode_batch(self, batch: VideoBatch) -> list[Tensor]:
        """Return the frame embeddings (T, H) float32 of the videos of a batch."""
        with self.run.precision.autocast():
            frames = self.model.encode_videos(batch.to(self.run.device)).float()
        return list(frames.split(batch.frame_lens.tolist()))

    def _item(self, features: np.ndarray, lines: Sequence[Line]) -> VideoItem:
        """Return a segment as the databases would hold it."""
        total = len(features)
        if self.video_only:
            return VideoItem("", features, [Subtitle([self._cls], list(range(total)))])
        texts = encode_texts(self.tokenizer, [normalize_subtitle(line.text) for line in lines])
        spans = [(line.start, line.end) for line in lines]
        (matched,) = match_frames([spans], [total], self.settings.interval)
        shown = [(number, frames) for number, frames in matched.unique_sub2frames]
        context, separator = self.run.options.sub_ctx_len, self._separator
        subtitles = [
            Subtitle(context_tokens(texts, number, context, separator), frames)
            for number, frames in kept_frames(shown, total)
        ]
        return VideoItem("", features, subtitles)

    def query_batch(self, sentences: Sequence[str]) -> QueryBatch:
        """Return sentences as queries "0", "1", …"""
        encoded = encode_texts(self.tokenizer, [normalize_query(each) for each in sentences])
        texts = [query_tokens(ids, {"CLS": self._cls}) for ids in encoded]
        numbers = [str(number) for number in range(len(sentences))]
        return QueryBatch(numbers, [*numbers], [None] * len(numbers), collate_texts(texts))

    @torch.inference_mode()
    def encode_queries(self, sentences: Sequence[str]) -> HeroQueries:
        """See :class:`search.scorer.Scorer`."""
        with self.run.precision.autocast():
            vectors = self.model.encode_queries(self.query_batch(sentences).to(self.run.device))
            spans = self.model.span_queries(vectors)
        return HeroQueries(tuple(sentences), vectors.float(), spans.float())

    @torch.inference_mode()
    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """See :class:`search.scorer.Scorer`; a moment's score is that of the evaluation."""
        if not isinstance(queries, HeroQueries):
            raise TypeError("these sentences were encoded by another scorer")
        scores = corpus.segment_scores(queries.vectors, self.model.pool_scores)
        require_finite("video", scores)
        return [
            self._moments(corpus, span, of_query, count)
            for span, of_query in zip(queries.spans, scores, strict=True)
        ]

    def _moments(self, corpus: Corpus, span: Tensor, scores: Tensor, count: int) -> Candidates:
        """Return the best moments for a span query (H,), given the scores (S,) of segments."""
        settings = self.settings
        segments = corpus.best_segments(scores, settings.searched_videos)
        similarities, mask = corpus.products(span, segments)
        start, end = self.model.span_probabilities(similarities, mask)
        require_finite("span", start, end)
        weights = settings.weights(scores[segments.to(scores.device)])
        best = top_moments(
            (weights[:, None] * start)[None],
            torch.where(mask, end, -1)[None],
            settings.min_pred_l,
            settings.max_pred_l,
            count,
        )
        row, first, last, listed = (
            values[0, : int(best.counts[0])].cpu()
            for values in (best.row, best.first, best.last, best.scores)
        )
        return Candidates(
            segments[row].numpy(), first.numpy(), last.numpy(), listed.double().numpy()
        )

    @torch.inference_mode()
    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """See :class:`search.scorer.Scorer`: cosines."""
        frames = corpus.segment_frames(segment)
        cosines = unit_vectors(queries.vectors)[0] @ unit_vectors(frames)[0].T
        return cosines.cpu().numpy()


def _token(tokenizer: BpeTokenizer, role: str) -> int:
    """Return the id of a special token that the model reads: "cls" or "sep".

    Raises:
        UserError: the tokenizer has none.
    """
    token: int | None = getattr(tokenizer, f"{role}_token_id")
    if token is None:
        raise UserError(f"the tokenizer {tokenizer.name_or_path} has no {role}_token; name another")
    return token


def stamp_of(tokenizer: BpeTokenizer) -> str:
    """Return sizes and times of a tokenizer's files, which change with their contents."""
    files = (Path(tokenizer.name_or_path, name) for name in TOKENIZER_FILES)
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def window_frames(run: Run[ScorerOptions | SearchOptions]) -> int:
    """Return the number of frames that the run's model encodes together at most."""
    limit, table = run.options.max_clip_len, run.model_config.c_config.max_position_embeddings
    return table if limit < 0 else min(limit, table)


def toker_of(run: Run[ScorerOptions | SearchOptions]) -> str:
    """Return the tokenizer that is named, or the run's.

    Raises:
        UserError: none is known.
    """
    toker = run.options.toker or named_in_environment() or tokenizer_name(run.tokenizer)
    if toker is None:
        raise UserError("--toker is missing: name the tokenizer of the run's training queries")
    return toker
