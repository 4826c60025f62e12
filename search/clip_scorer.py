"""An image–text model (CLIP, SigLIP) as a scorer, where there is no trained HERO.

It sees single frames, without motion, and spoken lines are matched separately, word by word. The
score of a frame for a sentence is

    cosine(frame, sentence) + SPOKEN_WEIGHT · b / (b + SPOKEN_HALF)

where b is the BM25 score (SQLite's FTS5) of the best matching line spoken during the frame, 0
without one. Rare words that all match count about as much as a matching picture; frequent ones,
such as "the", which BM25 rates near 0, hardly count. Moments are peaks of that curve (peaks.py) and
score exp(SHARPNESS · peak), so that the shares of those listed form a softmax.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from data.prepare.extraction import Provenance
from engine.extractors import describe
from evaluation.ranking import require_finite
from model.cosine import unit_vectors
from model.extractors.extractor import FeatureExtractor
from model.extractors.image_text import ClipFeatures
from search.peaks import find_peaks, smooth
from search.records import Line, Maker
from search.scan import Corpus
from search.scorer import Candidates, Queries
from utils.errors import UserError

INTERVAL = 1.5  # seconds a frame, by default
SPOKEN_WEIGHT = 0.1  # about the difference of CLIP's cosines between matching and other pictures
SPOKEN_HALF = 5.0  # BM25 that counts half; about that of one rare word
SPOKEN_LINES = 200  # the best of an index
SHARPNESS = 20.0
LONGEST_SECONDS = 60.0  # of a moment
WINDOW = 2048  # frames of a segment; they are encoded independently


class ClipScorer:
    """See :class:`search.scorer.Scorer`.

    Args:
        name: of the model in the hub, or its folder.
        interval: seconds a frame.
        known: the maker of the index to be searched.
    """

    def __init__(
        self,
        model: ClipFeatures,
        name: str,
        interval: float = INTERVAL,
        device: torch.device | str = "cpu",
        known: Maker | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.interval = interval
        self.feature_width = model.width
        self.longest = max(1, round(LONGEST_SECONDS / interval))  # frames of a moment
        self.window, self.overlap = WINDOW, min(self.longest, WINDOW // 2)
        self._name, self._known = name, known
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        model: str,
        device: str = "cpu",
        interval: float | None = None,
        known: Maker | None = None,
    ) -> Self:
        """Load a model of the hub, or of a folder.

        Args:
            interval: seconds a frame; None: that of ``known``, or :data:`INTERVAL`.
            known: the maker of the index to be searched.

        Raises:
            UserError: there is none, or it cannot be used; says how to get one.
        """
        interval = interval or (known.interval if known else INTERVAL)
        name = str(Path(model).absolute()) if Path(model).is_dir() else model
        return cls(ClipFeatures.load(model), name, interval, device, known)

    @property
    def label(self) -> str:
        """See :class:`search.scorer.Scorer`."""
        name = Path(self._name).name if Path(self._name).is_absolute() else self._name
        kind = self.model.title
        return f"not HERO: by the image–text model {name} ({kind}), which sees single frames"

    @cached_property
    def maker(self) -> Maker:
        """See :class:`search.scorer.Scorer`."""
        known, stamp = self._known, self.model.stamp
        same = known and known.opened_by.get("stamp") == stamp
        return Maker(
            kind="clip",
            # A large file is only hashed if it may have changed.
            model_sha256=known.model_sha256 if known and same else self.model.sha256,
            interval=self.interval,
            width=self.model.width,
            video_only=True,
            settings={"model": self.model.title, "window": WINDOW},
            opened_by={"checkpoint": self._name, "stamp": stamp},
        )

    def extraction(self, half: bool = False) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        """See :class:`search.scorer.OwnFeatures`."""
        provenance = describe(self.model, self._name, self.interval)
        model = self.model.half() if half else self.model
        return FeatureExtractor({"clip": model}, self.device), {"clip": provenance}

    def encode_segments(
        self, segments: Sequence[tuple[np.ndarray, Sequence[Line]]]
    ) -> list[np.ndarray]:
        """See :class:`search.scorer.Scorer`: features of length 1, without the spoken lines."""
        encoded = []
        for features, _ in segments:
            unit = unit_vectors(torch.from_numpy(np.asarray(features, np.float32)))[0]
            if not unit.isfinite().all():
                raise UserError("its features are not finite: are the film and the model sound?")
            encoded.append(unit.half().numpy())
        return encoded

    def encode_queries(self, sentences: Sequence[str]) -> Queries:
        """See :class:`search.scorer.Scorer`."""
        with self._lock:  # the library's tokenizer serves one thread at a time
            return Queries(tuple(sentences), self.model.encode_texts(sentences).float())

    @torch.inference_mode()
    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """See :class:`search.scorer.Scorer`."""
        seen = corpus.segment_scores(queries.vectors, _highest)
        require_finite("frame", seen)
        each = zip(queries.sentences, _unit_queries(corpus, queries), seen, strict=True)
        return [self._moments(corpus, *of_query, count) for of_query in each]

    def _moments(
        self, corpus: Corpus, sentence: str, vector: Tensor, scores: Tensor, count: int
    ) -> Candidates:
        """Return the best moments of a sentence.

        Args:
            vector: (H,) of length 1.
            scores: (S,) the highest value of each segment's curve, without spoken lines.
        """
        curves = {
            segment: _curve(corpus, vector, segment, bonus)
            for segment, bonus in sorted(spoken_bonuses(corpus, sentence, self.interval).items())
        }
        for segment, curve in curves.items():
            scores[segment] = float(curve.max())
        candidates = []
        for segment in corpus.best_segments(scores, count).tolist():
            if segment not in curves:
                curves[segment] = _curve(corpus, vector, segment)
            moments = find_peaks(curves[segment], self.longest, count)
            candidates += [(segment, *moment) for moment in moments]
        candidates.sort(key=lambda moment: -moment[3])
        *columns, peaks = np.array(candidates[:count]).reshape(-1, 4).T
        segments, first, last = (column.astype(np.int64) for column in columns)
        return Candidates(segments, first, last, np.exp(SHARPNESS * peaks))

    @torch.inference_mode()
    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """See :class:`search.scorer.Scorer`: the curve whose peaks are moments."""
        vectors = _unit_queries(corpus, queries)
        curves = []
        for sentence, vector in zip(queries.sentences, vectors, strict=True):
            bonus = spoken_bonuses(corpus, sentence, self.interval).get(segment)
            curves.append(_curve(corpus, vector, segment, bonus))
        return np.stack(curves)


def _unit_queries(corpus: Corpus, queries: Queries) -> Tensor:
    return unit_vectors(queries.vectors.to(corpus.device))[0]


def _curve(
    corpus: Corpus, vector: Tensor, segment: int, bonus: np.ndarray | None = None
) -> np.ndarray:
    """Return the smoothed scores (T,) of a segment's frames for a sentence (H,)."""
    cosines = unit_vectors(corpus.segment_frames(segment))[0] @ vector
    if bonus is not None:
        cosines += torch.from_numpy(bonus).to(cosines)
    real = torch.ones_like(cosines, dtype=torch.bool)
    return smooth(cosines[None], real[None])[0].cpu().numpy()


def _highest(cosines: Tensor, mask: Tensor) -> Tensor:
    """Return the highest value of smoothed curves: (N, n, T) → (N, n)."""
    mask = mask.expand_as(cosines)
    return smooth(cosines, mask).masked_fill(~mask, -torch.inf).amax(dim=-1)


def spoken_bonuses(corpus: Corpus, sentence: str, interval: float) -> dict[int, np.ndarray]:
    """Return {segment: what is added to the scores of its frames (T,) float32} where lines
    match."""
    bonuses: dict[int, np.ndarray] = {}
    words = dict.fromkeys(re.findall(r"\w+", sentence.casefold()))
    for line, relevance in corpus.index.find_words(words, SPOKEN_LINES):
        value = SPOKEN_WEIGHT * relevance / (relevance + SPOKEN_HALF)
        for number in corpus.index.segments_of[line.film]:
            segment = corpus.index.segments[number]
            first = int(line.start // interval) - segment.first_frame
            stop = int(np.ceil(line.end / interval)) - segment.first_frame
            if first < segment.rows and stop > 0:
                frames = bonuses.setdefault(number, np.zeros(segment.rows, np.float32))
                part = frames[max(first, 0) : stop]
                np.maximum(part, value, out=part)
    return bonuses
