"""Search films for the moments that sentences describe."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from evaluation.nms import temporal_nms
from search import doubt
from search.answers import Moment
from search.indexing import encode_film
from search.pictures import thumbnail
from search.records import Film, Maker, NewFilm
from search.scan import Corpus
from search.scorer import Candidates, Scorer
from search.store import Index, IndexArrays, IndexWriter, require_maker
from utils.errors import UserError, brief
from utils.logger import LOGGER

if TYPE_CHECKING:
    from search.adding import FilmReader, Spoken

NMS_THRESHOLD = 0.5  # highest temporal IoU of two moments listed of a film
TOP = 5
SENTENCES_AT_ONCE = 16
# Candidates before overlapping ones are dropped: for each moment to be listed, and bounds.
CANDIDATES, MIN_CANDIDATES, MAX_CANDIDATES = 20, 100, 2000


class MomentSearch:
    """Searches an index with the model that made it.

    Args:
        index: of the films (:meth:`open` reads one from a folder); None: an empty one in memory,
            for :meth:`add`.
        scorer: the model; None: the one that the next four arguments name.
        run: folder of a finished run of HERO.
        checkpoint: its step or best; without a run, an exported model.
        clip: an image–text model instead.
        toker: tokenizer, where the run has none.
        device: of all computation.
        nms_thd: highest temporal IoU of two moments of a film that are both listed; −1: any.
        percentile: moments that score below this percentile of the scores of unrelated sentences
            are doubtful; 0: none is.
        networks: the extractors for :meth:`add`, as options of ``index_videos.py``:
            ``resnet_weights="…", slowfast_weights="…"``, or ``random_weights=True``.

    Raises:
        UserError: another model made the index, or there is no such model.
    """

    def __init__(
        self,
        index: Index | None = None,
        scorer: Scorer | None = None,
        *,
        run: str | Path | None = None,
        checkpoint: str | Path | None = None,
        clip: str | Path | None = None,
        toker: str | None = None,
        device: str = "cpu",
        nms_thd: float = NMS_THRESHOLD,
        percentile: float = doubt.PERCENTILE,
        **networks: Any,
    ) -> None:
        if scorer is None:
            scorer = open_scorer(run, checkpoint, clip, toker, device)
        if index is None:
            index = IndexArrays(scorer.maker, [])
        require_maker(index, scorer.maker)
        self.scorer = scorer
        self.nms_thd, self.percentile = nms_thd, percentile
        self._device, self._networks = device, networks
        self._corpus = Corpus(index, device)
        self._unrelated = doubt.UnrelatedScores(index.folder)

    @classmethod
    def open(
        cls,
        index: str | Path | Index,
        *,
        run: str | Path | None = None,
        checkpoint: str | Path | None = None,
        toker: str | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> Self:
        """Open an index that ``index_videos.py`` made, with its model.

        Args:
            index: its folder, or the result of :meth:`search.store.Index.open`.
            run, checkpoint, toker: where the model is now; None: where it was.
            device: of all computation.
            options: further arguments of the class.

        Raises:
            UserError: there is no index, or its model no longer exists, or has changed.
        """
        opened = index if isinstance(index, Index) else Index.open(index)
        maker, was = opened.maker, opened.maker.opened_by
        clip = None
        if maker.kind == "clip":
            clip = checkpoint or was.get("checkpoint")
        elif run is not None:
            # The same checkpoint, in its new folder.
            checkpoint = checkpoint or Path(was.get("checkpoint") or "best").name
        elif checkpoint is None:
            run, checkpoint = was.get("run"), was.get("checkpoint")
            missing = [path for path in (run, checkpoint) if path and not Path(path).exists()]
            if missing:
                raise UserError(
                    f"{missing[0]}, whose model made the index, is not there any more: name the "
                    "place with --run and --checkpoint"
                )
        old_toker = was.get("toker")
        if toker is None and old_toker and Path(old_toker).is_dir():
            toker = old_toker
        scorer = open_scorer(run, checkpoint, clip, toker, device, known=maker)
        return cls(opened, scorer, device=device, **options)

    @property
    def index(self) -> Index:
        """The state that is searched."""
        return self._corpus.index

    @property
    def films(self) -> list[Film]:
        """The films that are searched."""
        return self.index.films

    @property
    def note(self) -> str:
        """A warning that belongs to every answer: not HERO's, or of untrained networks."""
        untrained = " and ".join(self.index.maker.untrained)
        warning = f"the {untrained} features come from an untrained network: scores mean nothing"
        return "; ".join(filter(None, (self.scorer.label, untrained and warning)))

    def refresh(self) -> bool:
        """Load a newer state of the index; return whether there was one.

        Searches in other threads finish with the state that they started with.
        """
        newest = self.index.refresh()
        if newest is self.index:
            return False
        require_maker(newest, self.scorer.maker)
        self._corpus = Corpus(newest, self._device)
        return True

    def newest(self) -> Self:
        """Return an engine for the newest state of the index: this one, if it is that."""
        engine = copy.copy(self)
        engine._unrelated = copy.copy(self._unrelated)
        return engine if engine.refresh() else self

    def add(
        self,
        film: str | Path,
        subtitles: str | Path | Spoken | None = None,
        features: np.ndarray | None = None,
        seconds: float | None = None,
    ) -> Film:
        """Add a film to the index, or replace the one of its name.

        In an index on the disk it stays until the next run of ``index_videos.py``, unless it is
        among the films of that.

        Args:
            film: its file; with ``features`` just its name.
            subtitles: a file, or (start, end, text) of what is spoken.
            features: (T, D) of the film, instead of those extracted from its file.
            seconds: length of the film, with ``features``.

        Raises:
            UserError: the film, its subtitles or features cannot be used; or another process
                writes to the index.
        """
        from search.adding import as_material  # with FFmpeg and more

        path, index = Path(film), self.index
        known = index.by_name.get(path.name)
        name_is_taken = known is not None and known.file not in (None, path.absolute())
        name = str(path.absolute()) if name_is_taken else path.name
        maker = index.maker
        if features is None:
            material = self._reader.read(path, name, subtitles)
            maker = dataclasses.replace(maker, extractors=self._reader.extractors)
        else:
            material = as_material(name, path, features, subtitles, self.scorer, seconds)
        require_maker(index, maker)
        self._put(encode_film(self.scorer, material), maker)
        return self.index.by_name[name]

    @cached_property
    def _reader(self) -> FilmReader:
        from search.adding import FilmReader  # with FFmpeg and the networks

        return FilmReader(self.scorer, self._device, self._networks)

    def _put(self, film: NewFilm, maker: Maker) -> None:
        index = self.index
        if index.folder is not None:
            with IndexWriter(index.folder, maker) as writer:
                writer.put(film)
            self.refresh()
            return
        films = {each.name: _copy_film(index, each) for each in index.films} | {film.name: film}
        self._corpus = Corpus(IndexArrays(maker, films.values()), self._device)
        self._unrelated = doubt.UnrelatedScores(None)

    # A str is a Sequence[str] too: mypy cannot know that the first signature goes before.
    @overload
    def search(  # type: ignore[overload-overlap]
        self, sentences: str, top: int = TOP
    ) -> list[Moment]: ...

    @overload
    def search(self, sentences: Sequence[str], top: int = TOP) -> list[list[Moment]]: ...

    def search(self, sentences: str | Sequence[str], top: int = TOP) -> list:
        """Find the moments that a sentence describes.

        Args:
            sentences: one, or several.
            top: most moments of each.

        Returns:
            Moments, best first; for several sentences a list for each.

        Raises:
            UserError: a sentence is empty.
        """
        several = [sentences] if isinstance(sentences, str) else list(sentences)
        check_sentences(several)
        if top < 1:
            raise UserError(f"top = {top}: ask for one moment at least")
        corpus = self._corpus
        if len(corpus):
            lowest = self._doubtful_below(corpus)
            count = max(top, min(max(CANDIDATES * top, MIN_CANDIDATES), MAX_CANDIDATES))
            answers = [
                self._moments(corpus, candidates, top, lowest)
                for candidates in self._find(corpus, several, count)
            ]
        else:
            LOGGER.warning("%s holds no film to search", corpus.index.folder or "the index")
            answers = [[] for _ in several]
        return answers[0] if isinstance(sentences, str) else answers

    def warm_up(self) -> None:
        """Compute what the first search would, such as scores of the unrelated sentences."""
        if self.films:
            self.search("Somebody speaks.", 1)

    def _find(self, corpus: Corpus, sentences: Sequence[str], count: int) -> list[Candidates]:
        candidates = []
        for begin in range(0, len(sentences), SENTENCES_AT_ONCE):
            queries = self.scorer.encode_queries(sentences[begin : begin + SENTENCES_AT_ONCE])
            candidates += self.scorer.find(corpus, queries, count)
        return candidates

    def _doubtful_below(self, corpus: Corpus) -> float:
        """Return the score below which a moment fits no better than unrelated sentences."""
        if self.percentile <= 0:
            return float("-inf")

        def best_scores(sentences: Sequence[str]) -> list[float]:
            return [float(c.scores.max(initial=0)) for c in self._find(corpus, sentences, 1)]

        index = corpus.index
        state = doubt.State(index.maker.model_sha256, index.generation, len(index.films))
        return self._unrelated.threshold(state, self.percentile, best_scores)

    def _moments(
        self, corpus: Corpus, candidates: Candidates, top: int, lowest: float
    ) -> list[Moment]:
        """Return the best moments of a sentence, without overlapping ones."""
        index, interval = corpus.index, corpus.index.maker.interval
        films = corpus.films.numpy()[candidates.segment]
        first_frames, seconds = corpus.first_frames[candidates.segment], corpus.seconds[films]
        start = np.minimum((first_frames + candidates.first) * interval, seconds)
        end = np.minimum((first_frames + candidates.last + 1) * interval, seconds)
        rows = np.stack([films, start, end, candidates.scores], axis=1).astype(np.float64)
        if self.nms_thd >= 0:
            rows = temporal_nms(rows, self.nms_thd)
        rows = rows[:top]
        total = rows[:, 3].sum() or 1.0
        note = self.note
        moments = []
        for number, begin, stop, score in rows.tolist():
            film = index.films[int(number)]
            moments.append(
                Moment(
                    file=str(film.file or film.name),
                    start=begin,
                    end=stop,
                    score=score,
                    text=index.words(film.id, begin, stop),
                    share=score / total,
                    video=film.id,
                    name=film.name,
                    doubtful=score < lowest,
                    note="; ".join(filter(None, (note, film.note))),
                )
            )
        return moments

    def film(self, video: int | str | Path | Moment) -> Film:
        """Return a film by its id, name, file, or one of its moments.

        Raises:
            UserError: it is not in the index.
        """
        index = self.index
        if isinstance(video, Moment):
            video = video.video
        if isinstance(video, int):
            film = index.by_id.get(video)
        else:
            files = (Path(video), Path(video).absolute())
            film = index.by_name.get(str(video)) or next(
                (film for film in index.films if film.file in files), None
            )
        if film is None:
            raise UserError(f"{video} is not among the {len(index.films)} films of the index")
        return film

    def score(self, video: int | str | Path | Moment, sentence: str) -> np.ndarray:
        """Return how well each frame of a film fits a sentence: (T,) float32.

        Frame f starts at f · ``engine.index.maker.interval`` seconds. Where windows of a long film
        overlap, the higher value counts.

        Raises:
            UserError: the film is not in the index, or the sentence is empty.
        """
        check_sentences([sentence])
        film, corpus = self.film(video), self._corpus
        queries = self.scorer.encode_queries([sentence])
        curve = np.empty(0, np.float32)
        for number in corpus.index.segments_of.get(film.id, ()):
            segment = corpus.index.segments[number]
            values = self.scorer.frame_scores(corpus, number, queries)[0]
            end = segment.first_frame + len(values)
            curve = np.pad(curve, (0, max(end - len(curve), 0)), constant_values=-np.inf)
            part = slice(segment.first_frame, end)
            curve[part] = np.maximum(curve[part], values)
        return curve

    def thumbnail(self, video: int | str | Path | Moment, seconds: float | None = None) -> bytes:
        """Return a frame of a film as a JPEG file.

        Args:
            video: the film, or a moment of it.
            seconds: from the film's start; None: the middle of the moment, or of the film.

        Raises:
            UserError: the film is not in the index, or its file cannot be read.
        """
        film = self.film(video)
        if film.file is None:
            raise UserError(f"{film.name} came from a database: there is no film to look at")
        if seconds is None:
            seconds = film.seconds / 2
            if isinstance(video, Moment):
                seconds = (video.start + video.end) / 2
        return thumbnail(film.file, seconds)


def _copy_film(index: Index, film: Film) -> NewFilm:
    """Return a film of an index as another index takes it."""
    segments = [
        (each.first_frame, index.frames[each.first_row : each.first_row + each.rows])
        for each in (index.segments[number] for number in index.segments_of[film.id])
    ]
    about = (film.file, film.note, film.source)
    return NewFilm(film.name, film.seconds, segments, index.lines(film.id), *about)


def check_sentences(sentences: Sequence[str]) -> None:
    """Raise a UserError if a sentence is empty, or not UTF-8."""
    for sentence in sentences:
        if not sentence.strip():
            raise UserError("--query is empty; describe a moment in a sentence")
        if not sentence.isascii() and sentence.encode("utf-8", "replace").decode() != sentence:
            raise UserError(f"--query {brief(sentence)} is no UTF-8 text; type it again")


def open_scorer(
    run: str | Path | None = None,
    checkpoint: str | Path | None = None,
    clip: str | Path | None = None,
    toker: str | None = None,
    device: str = "cpu",
    interval: float | None = None,
    known: Maker | None = None,
) -> Scorer:
    """Return a HERO model, or with ``clip`` an image–text model; see :class:`MomentSearch`.

    Args:
        interval: seconds a frame, with ``clip``; None: that of ``known``, or the default.
        known: the maker of the index to be searched.

    Raises:
        UserError: no model is named, or it cannot be used.
    """
    if clip is not None:
        from search.clip_scorer import ClipScorer

        return ClipScorer.open(str(clip), device, interval, known)
    from search.hero_scorer import HeroScorer

    return HeroScorer.open(run, checkpoint, toker, device, known)
