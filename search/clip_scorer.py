"""An image–text model (CLIP, SigLIP) as a scorer, for whoever has no trained HERO.

It is not HERO: it sees single frames, without what happens between them, and what is spoken is
matched beside it, word by word. How well a frame fits a sentence is

    cosine(frame, sentence) + SPOKEN_WEIGHT · b / (b + SPOKEN_HALF)

where b is the BM25 score (SQLite's FTS5) of the best matching line spoken during the frame, 0 where
none is. So words that are all there and rare count about as much as a picture that fits does over
one that does not; words such as "the", which BM25 gives next to nothing, count next to nothing.
Moments are peaks of that curve (search/peaks.py). The score of one is exp(SHARPNESS · peak), so
that the shares of those listed are what a softmax would give.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
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

INTERVAL = 1.5  # seconds a frame, where nobody says
SPOKEN_WEIGHT = 0.1  # what cosines of CLIP and SigLIP gain about where the picture fits
SPOKEN_HALF = 5.0  # BM25 that counts half; a line with one rare word has about as much
SPOKEN_LINES = 200  # the best of an index
SHARPNESS = 20.0
LONGEST_SECONDS = 60.0  # of a moment
WINDOW = 2048  # frames of a segment; they do not see each other, so it is only how films are cut


class ClipScorer:
    """See :class:`search.scorer.Scorer`.

    Args:
        model: CLIP, SigLIP, or one like them.
        name: of the hub, or its folder.
        interval: seconds a frame.
        device: where it computes.
        known: what made the index that is to be searched.
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
        self.window, self.overlap = WINDOW, min(self.longest, WINDOW // 2)
        self._name, self._known = name, known
        self._turn = threading.Lock()

    @classmethod
    def open(
        cls,
        model: str,
        device: str = "cpu",
        interval: float | None = None,
        known: Maker | None = None,
    ) -> Self:
        """A model of the hub, or of a folder.

        Args:
            model: its name or folder.
            device: where it computes.
            interval: seconds a frame; None: that of ``known``, or :data:`INTERVAL`.
            known: what made the index that is to be searched.

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

    @property
    def longest(self) -> int:
        """Frames of a moment."""
        return max(1, round(LONGEST_SECONDS / self.interval))

    @cached_property
    def maker(self) -> Maker:
        """What an index is made by, as far as the model tells."""
        known, stamp = self._known, self.model.stamp
        same = known if known and known.opened_by.get("stamp") == stamp else None
        return Maker(
            kind="clip",
            # Of a large file only where it may be another than before.
            model_sha256=same.model_sha256 if same else self.model.sha256,
            interval=self.interval,
            width=self.model.width,
            video_only=True,
            settings={"model": self.model.title, "window": WINDOW},
            opened_by={"checkpoint": self._name, "stamp": stamp},
        )

    def extraction(self, half: bool = False) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        """Return what makes the features of films, and how they are described."""
        provenance = describe(self.model, self._name, self.interval)
        model = self.model.half() if half else self.model
        return FeatureExtractor({"clip": model}, self.device), {"clip": provenance}

    def encode_segments(
        self, segments: Sequence[tuple[np.ndarray, Sequence[Line]]]
    ) -> list[np.ndarray]:
        """See :class:`search.scorer.Scorer`: features, of length 1, without what is spoken."""
        encoded = []
        for features, _ in segments:
            unit = unit_vectors(torch.from_numpy(np.asarray(features, np.float32)))[0]
            if not unit.isfinite().all():
                raise UserError("its features are not finite: are the film and the model sound?")
            encoded.append(unit.half().numpy())
        return encoded

    def encode_queries(self, sentences: Sequence[str]) -> Queries:
        """See :class:`search.scorer.Scorer`."""
        with self._turn:  # the library's tokenizer serves one thread at a time
            return Queries(tuple(sentences), self.model.encode_texts(sentences).float())

    @torch.inference_mode()
    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """See :class:`search.scorer.Scorer`."""
        seen = corpus.segment_scores(queries.vectors, _highest)
        require_finite("frame", seen)
        spoken = spoken_bonuses(corpus, queries.sentences, self.interval)
        vectors = unit_vectors(queries.vectors.to(corpus.device))[0]
        return [
            self._moments(corpus, *of_query, count)
            for of_query in zip(vectors, seen, spoken, strict=True)
        ]

    def _moments(
        self,
        corpus: Corpus,
        vector: Tensor,
        scores: Tensor,
        spoken: Mapping[int, np.ndarray],
        count: int,
    ) -> Candidates:
        """The best moments of a sentence.

        Args:
            vector: (H,) of length 1.
            scores: (S,) the highest value of each segment's curve, by what is seen alone.
            spoken: what is added to a segment's frames (T,).
        """
        heard = self._curves(corpus, vector, sorted(spoken), spoken)
        for segment, curve in heard.items():
            scores[segment] = float(curve.max())
        chosen = corpus.best_segments(scores, count).tolist()
        rest = self._curves(corpus, vector, [each for each in chosen if each not in heard], {})
        found = [
            (segment, *moment)
            for segment in chosen
            for moment in find_peaks((heard | rest)[segment], self.longest, count)
        ]
        found.sort(key=lambda moment: -moment[3])
        *places, peaks = np.array(found[:count]).reshape(-1, 4).T
        segments, first, last = (column.astype(np.int64) for column in places)
        return Candidates(segments, first, last, np.exp(SHARPNESS * peaks))

    @staticmethod
    def _curves(
        corpus: Corpus, vector: Tensor, segments: Sequence[int], spoken: Mapping[int, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """{segment: smoothed curve (T,)}."""
        curves = {}
        for segment in segments:
            cosines = unit_vectors(corpus.segment_frames(segment))[0] @ vector
            if segment in spoken:
                cosines += torch.from_numpy(spoken[segment]).to(cosines)
            real = torch.ones_like(cosines, dtype=torch.bool)
            curves[segment] = smooth(cosines[None], real[None])[0].cpu().numpy()
        return curves

    @torch.inference_mode()
    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """See :class:`search.scorer.Scorer`: the curve whose peaks are moments."""
        vectors = unit_vectors(queries.vectors.to(corpus.device))[0]
        spoken = spoken_bonuses(corpus, queries.sentences, self.interval)
        curves = [
            self._curves(corpus, vector, [segment], bonuses)[segment]
            for vector, bonuses in zip(vectors, spoken, strict=True)
        ]
        return np.stack(curves)


def _highest(cosines: Tensor, mask: Tensor) -> Tensor:
    """The highest value of smoothed curves: (N, n, T) → (N, n)."""
    mask = mask.expand_as(cosines)
    return smooth(cosines, mask).masked_fill(~mask, -torch.inf).amax(dim=-1)


def spoken_bonuses(
    corpus: Corpus, sentences: Sequence[str], interval: float
) -> list[dict[int, np.ndarray]]:
    """For each sentence {segment: what is added to its frames (T,) float32}, where lines match."""
    segments = defaultdict(list)
    for place, segment in enumerate(corpus.index.segments):
        segments[segment.film].append((place, segment))
    every = []
    for sentence in sentences:
        bonuses: dict[int, np.ndarray] = {}
        words = dict.fromkeys(re.findall(r"\w+", sentence.casefold()))
        for line, relevance in corpus.index.find_words(words, SPOKEN_LINES):
            value = SPOKEN_WEIGHT * relevance / (relevance + SPOKEN_HALF)
            for place, segment in segments[line.film]:
                first = int(line.start // interval) - segment.first_frame
                stop = int(np.ceil(line.end / interval)) - segment.first_frame
                if first < segment.rows and stop > 0:
                    frames = bonuses.setdefault(place, np.zeros(segment.rows, np.float32))
                    part = frames[max(first, 0) : stop]
                    np.maximum(part, value, out=part)
        every.append(bonuses)
    return every
