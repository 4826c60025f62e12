"""Small films of plain colours, and a model that sees colours: what is right is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from search.records import Line, Maker, NewFilm
from search.scan import Corpus
from search.scorer import Candidates, Queries
from search.store import IndexWriter

INTERVAL = 1.5
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
OTHER = (90, 90, 90)
FIT = 0.9  # cosine of frames that show a colour
MAKER = Maker(kind="colours", model_sha256="c0", interval=INTERVAL, width=3)

Spans = Sequence[tuple[str, float]]  # colour and seconds, one after the other


def make_film(path: Path, spans: Spans, codec: str = "libx264", **how: Any) -> Path:
    """Write a film that shows colours one after the other; names that are none are grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate, size = 10, how.pop("size", (160, 90))
    with av.open(str(path), "w", **how) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 5 * rate
        for colour, seconds in spans:
            values = np.full((size[1], size[0], 3), COLOURS.get(colour, OTHER), np.uint8)
            for _ in range(round(seconds * rate)):
                frame = av.VideoFrame.from_ndarray(values, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def colours_of(path: Path) -> tuple[np.ndarray, float]:
    """Mean colours (T, 3) of a film's intervals, and its length in seconds."""
    sums: dict[int, list] = {}
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            mean = frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) / 255
            sums.setdefault(int(frame.time / INTERVAL), []).append(mean)
            end = frame.time + 0.1
    return np.stack([np.mean(sums[place], axis=0) for place in sorted(sums)]), end


class ColourScorer:
    """A model whose frame embeddings are colours, and that knows three words."""

    maker = MAKER
    feature_width = 3
    window, overlap = 100, 10

    def __init__(self, label: str = "") -> None:
        self.label = label

    def encode_segments(self, segments: Sequence) -> list[np.ndarray]:
        """Features are embeddings."""
        return [np.asarray(features, np.float16) for features, _ in segments]

    def encode_queries(self, sentences: Sequence[str]) -> Queries:
        """The mean of the colours that a sentence names, or grey."""
        named = [
            [COLOURS[w] for w in s.lower().replace(".", " ").split() if w in COLOURS]
            for s in sentences
        ]
        vectors = [np.mean(colours or [OTHER], axis=0) / 255 for colours in named]
        return Queries(tuple(sentences), torch.tensor(np.array(vectors), dtype=torch.float32))

    def find(self, corpus: Corpus, queries: Queries, count: int) -> list[Candidates]:
        """Runs of frames that show the colour; where none is named, they score little,
        the less the shorter the sentence."""
        return [
            self._runs(corpus, number, queries, count) for number in range(len(queries.sentences))
        ]

    def _runs(self, corpus: Corpus, number: int, queries: Queries, count: int) -> Candidates:
        rows = []
        for place in range(len(corpus)):
            fits = self.frame_scores(corpus, place, queries)[number]
            edges = np.flatnonzero(np.diff(np.r_[False, fits > FIT, False]))
            for first, stop in edges.reshape(-1, 2).tolist():
                score = fits[first:stop].mean() * (1 - 1 / (stop - first + 10))
                rows.append((place, first, stop - 1, score))
        rows = sorted(rows, key=lambda row: -row[3])[:count]
        words = queries.sentences[number].lower().split()
        weight = 1 if COLOURS.keys() & words else 0.01 * len(words)
        places, firsts, lasts, scores = np.array(rows).reshape(-1, 4).T
        moments = (places.astype(int), firsts.astype(int), lasts.astype(int))
        return Candidates(*moments, scores * weight)

    def frame_scores(self, corpus: Corpus, segment: int, queries: Queries) -> np.ndarray:
        """Cosines."""
        place = corpus.index.segments[segment]
        rows = corpus.index.frames[place.first_row : place.first_row + place.rows]
        frames = torch.tensor(rows, dtype=torch.float32)
        return torch.cosine_similarity(queries.vectors[:, None], frames[None], dim=2).numpy()


def new_film(name: str, path: Path, lines: Sequence[Line] = ()) -> NewFilm:
    """A film as an index takes it."""
    features, seconds = colours_of(path)
    return NewFilm(name, seconds, [(0, features.astype(np.float16))], lines, path)


def write_index(folder: Path, films: Sequence[NewFilm]) -> Path:
    """Put films into an index, which is made if it is not there."""
    with IndexWriter(folder, MAKER) as writer:
        for film in films:
            writer.put(film)
    return folder
