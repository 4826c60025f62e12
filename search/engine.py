"""A search engine for moments of films: sentences in, moments out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from evaluation.nms import temporal_nms
from search import doubt
from search.answers import Moment
from search.pictures import THUMBNAIL_WIDTH, thumbnail
from search.queries import check_sentences
from search.records import Film, Maker, NewFilm
from search.scan import Corpus
from search.scorer import Candidates, Scorer
from search.store import Index, IndexArrays, IndexWriter, require_maker
from utils.errors import UserError
from utils.logger import LOGGER

if TYPE_CHECKING:
    from search.adding import FilmReader, Spoken

NMS_THRESHOLD = 0.5  # highest temporal IoU of two moments listed of a film
TOP = 5
SENTENCES_AT_ONCE = 16
# Candidates before overlapping ones are dropped: for each moment asked for, and at least.
CANDIDATES, LEAST_CANDIDATES, MOST_CANDIDATES = 20, 100, 2000


@dataclass(frozen=True)
class _State:
    """One state of the index, and what is computed of it."""

    index: Index
    corpus: Corpus
    first_frames: np.ndarray  # (S,)
    seconds: np.ndarray  # (films,)

    @classmethod
    def of(cls, index: Index, device: str) -> Self:
        first_frames = np.array([each.first_frame for each in index.segments], dtype=np.int64)
        seconds = np.array([film.seconds for film in index.films], dtype=np.float64)
        return cls(index, Corpus(index, device), first_frames, seconds)


class MomentSearch:
    """Searches an index with the model that made it.

    Args:
        index: of films: a folder's (:meth:`open`), or one of arrays; None: an empty one in memory,
            for :meth:`add`.
        scorer: the model; None: the one that the next four name.
        run: folder of a finished run of HERO.
        checkpoint: its step or best; without a run, an exported model.
        clip: an image–text model instead.
        toker: tokenizer, where the run has none.
        device: where all is computed.
        nms_thd: highest temporal IoU of two moments of a film that are both listed; −1: any.
        percentile: moments that score below this percentile of the scores of unrelated sentences
            are doubtful; 0: none is.
        networks: what :meth:`add` extracts features with, as options of ``index_videos.py``:
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
            scorer = name_scorer(run, checkpoint, clip, toker, device)
        if index is None:
            index = IndexArrays(scorer.maker, [])
        require_maker(index, scorer.maker)
        self.scorer = scorer
        self.nms_thd, self.percentile = nms_thd, percentile
        self._device, self._networks = device, networks
        self._state = _State.of(index, device)
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
            index: its folder, or what :meth:`search.store.Index.open` gave.
            run, checkpoint, toker: where the model lies now; None: where it lay.
            device: where it computes.
            options: further arguments of the class.

        Raises:
            UserError: there is no index, or its model is not there any more, or another.
        """
        opened = index if isinstance(index, Index) else Index.open(index)
        scorer = open_scorer(opened.maker, run, checkpoint, toker, device)
        return cls(opened, scorer, device=device, **options)

    @property
    def index(self) -> Index:
        """The state that is searched."""
        return self._state.index

    @property
    def films(self) -> list[Film]:
        """The films that are searched."""
        return self.index.films

    @property
    def note(self) -> str:
        """What must be said with every answer: that it is not HERO's, that it means nothing."""
        untrained = " and ".join(self.index.maker.untrained)
        warning = f"the {untrained} features come from an untrained network: scores mean nothing"
        return "; ".join(filter(None, (self.scorer.label, untrained and warning)))

    def refresh(self) -> bool:
        """Take over a newer state of the index; return whether there was one.

        Searches that run meanwhile end with the state they began with.
        """
        newest = self.index.refresh()
        if newest is self.index:
            return False
        require_maker(newest, self.scorer.maker)
        self._state = _State.of(newest, self._device)
        return True

    def add(
        self,
        film: str | Path,
        subtitles: str | Path | Spoken | None = None,
        features: np.ndarray | None = None,
        seconds: float | None = None,
    ) -> Film:
        """Put one film more into the index, or replace the one of its name.

        In a folder's index it stays until ``index_videos.py`` finds that it is not among its films.

        Args:
            film: its file; with ``features`` just its name.
            subtitles: a file, or (start, end, text) of what is spoken.
            features: (T, D) of the film, where they are there already.
            seconds: how long the film is, beside ``features``.

        Raises:
            UserError: the film, its subtitles or features cannot be used; or another process
                writes to the index.
        """
        from search.adding import as_material, encode_film  # with FFmpeg and more

        path, index = Path(film), self.index
        known = index.by_name.get(path.name)
        other = known is not None and known.file not in (None, path.absolute())
        name = str(path.absolute()) if other else path.name
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
        films = {each.name: _as_new(index, each) for each in index.films} | {film.name: film}
        self._state = _State.of(IndexArrays(maker, films.values()), self._device)
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
            top: moments of each at most.

        Returns:
            Moments, best first; of several sentences a list of each.

        Raises:
            UserError: a sentence is empty.
        """
        several = [sentences] if isinstance(sentences, str) else list(sentences)
        check_sentences(several)
        if top < 1:
            raise UserError(f"top = {top}: ask for one moment at least")
        state = self._state
        if not len(state.corpus):
            LOGGER.warning("%s holds no film to search", state.index.folder or "the index")
            found: list[list[Moment]] = [[] for _ in several]
        else:
            lowest = self._doubtful_below(state)
            count = max(top, min(max(CANDIDATES * top, LEAST_CANDIDATES), MOST_CANDIDATES))
            found = [
                self._answer(state, candidates, top, lowest)
                for candidates in self._find(state, several, count)
            ]
        return found[0] if isinstance(sentences, str) else found

    def calibrate(self) -> None:
        """Search for the unrelated sentences now, not when the first question comes."""
        if len(self._state.corpus):
            self._doubtful_below(self._state)

    def _find(self, state: _State, sentences: Sequence[str], count: int) -> list[Candidates]:
        found = []
        for begin in range(0, len(sentences), SENTENCES_AT_ONCE):
            queries = self.scorer.encode_queries(sentences[begin : begin + SENTENCES_AT_ONCE])
            found += self.scorer.find(state.corpus, queries, count)
        return found

    def _doubtful_below(self, state: _State) -> float:
        """The score that tells moments from what unrelated sentences find."""
        if self.percentile <= 0:
            return float("-inf")

        def best_scores(sentences: Sequence[str]) -> list[float]:
            return [float(c.scores.max(initial=0)) for c in self._find(state, sentences, 1)]

        index = state.index
        now = doubt.State(index.maker.model_sha256, index.generation, len(index.films))
        return self._unrelated.threshold(now, self.percentile, best_scores)

    def _answer(
        self, state: _State, candidates: Candidates, top: int, lowest: float
    ) -> list[Moment]:
        """The best moments of a sentence, each once."""
        index, interval = state.index, state.index.maker.interval
        places = state.corpus.films.numpy()[candidates.segment]
        seconds = state.seconds[places]
        first = state.first_frames[candidates.segment] + candidates.first
        last = state.first_frames[candidates.segment] + candidates.last
        start = np.minimum(first * interval, seconds)
        end = np.minimum((last + 1) * interval, seconds)
        rows = np.stack([places, start, end, candidates.scores], axis=1).astype(np.float64)
        if self.nms_thd >= 0:
            rows = temporal_nms(rows, self.nms_thd)
        rows = rows[:top]
        total = rows[:, 3].sum() or 1.0
        note = self.note
        return [
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
            for film, (begin, stop, score) in (
                (index.films[int(place)], rest) for place, *rest in rows.tolist()
            )
        ]

    def film(self, video: int | str | Path | Moment) -> Film:
        """Return a film by its id, name, file, or one of its moments.

        Raises:
            UserError: it is not in the index.
        """
        index = self.index
        if isinstance(video, Moment):
            video = video.video
        if isinstance(video, int):
            found = index.by_id.get(video)
        else:
            path = Path(video)
            found = index.by_name.get(str(video)) or next(
                (film for film in index.films if film.file in (path, path.absolute())), None
            )
        if found is None:
            raise UserError(f"{video} is not among the {len(index.films)} films of the index")
        return found

    def score(self, video: int | str | Path | Moment, sentence: str) -> np.ndarray:
        """Return how well each frame of a film fits a sentence: (frames,) float32.

        Frame f covers the seconds from f · interval on, ``engine.index.maker.interval``. Where
        windows of a long film overlap, the better value counts.

        Raises:
            UserError: the film is not in the index, or the sentence is empty.
        """
        check_sentences([sentence])
        film, state = self.film(video), self._state
        queries = self.scorer.encode_queries([sentence])
        curve = np.empty(0, np.float32)
        for place, segment in enumerate(state.index.segments):
            if segment.film != film.id:
                continue
            values = self.scorer.frame_scores(state.corpus, place, queries)[0]
            missing = segment.first_frame + len(values) - len(curve)
            curve = np.pad(curve, (0, max(missing, 0)), constant_values=-np.inf)
            part = slice(segment.first_frame, segment.first_frame + len(values))
            curve[part] = np.maximum(curve[part], values)
        return curve

    def thumbnail(
        self,
        video: int | str | Path | Moment,
        seconds: float | None = None,
        width: int = THUMBNAIL_WIDTH,
    ) -> bytes:
        """Return a frame of a film as a JPEG file.

        Args:
            video: the film, or a moment of it.
            seconds: from the film's start; None: the middle of the moment, or of the film.
            width: pixels at most.

        Raises:
            UserError: the film is not in the index, or its file cannot be read.
        """
        film = self.film(video)
        if film.file is None:
            raise UserError(f"{film.name} came from a database: there is no film to look at")
        if seconds is None:
            start, end = (
                (video.start, video.end) if isinstance(video, Moment) else (0.0, film.seconds)
            )
            seconds = (start + end) / 2
        return thumbnail(film.file, seconds, width)


def _as_new(index: Index, film: Film) -> NewFilm:
    """A film of an index, to be put into another."""
    segments = [
        (each.first_frame, index.frames[each.first_row : each.first_row + each.rows])
        for each in index.segments
        if each.film == film.id
    ]
    about = (film.file, film.note, film.source)
    return NewFilm(film.name, film.seconds, segments, index.lines(film.id), *about)


def name_scorer(
    run: str | Path | None,
    checkpoint: str | Path | None,
    clip: str | Path | None,
    toker: str | None,
    device: str,
) -> Scorer:
    """The model that is named.

    Raises:
        UserError: none is, or there is no such model.
    """
    if clip is not None:
        from search.clip_scorer import ClipScorer

        return ClipScorer.open(str(clip), device)
    from search.hero_scorer import HeroScorer

    return HeroScorer.open(run, checkpoint, toker, device)


def open_scorer(
    maker: Maker,
    run: str | Path | None = None,
    checkpoint: str | Path | None = None,
    toker: str | None = None,
    device: str = "cpu",
) -> Scorer:
    """The model that made an index.

    Args:
        maker: of the index.
        run, checkpoint, toker: where it lies now; None: where it lay.
        device: where it computes.

    Raises:
        UserError: it is not there.
    """
    was = maker.opened_by
    if maker.kind == "clip":
        from search.clip_scorer import ClipScorer

        return ClipScorer.open(str(checkpoint or was.get("checkpoint")), device, known=maker)
    from search.hero_scorer import HeroScorer

    if run is not None and checkpoint is None:
        checkpoint = Path(was.get("checkpoint") or "best").name  # the same, where it lies now
    if run is None and checkpoint is None:
        run, checkpoint = was.get("run"), was.get("checkpoint")
        gone = [path for path in (run, checkpoint) if path and not Path(path).exists()]
        if gone:
            raise UserError(
                f"{gone[0]}, whose model made the index, is not there any more: name the place "
                "with --run and --checkpoint"
            )
    known = was.get("toker")
    if toker is None and known and Path(known).is_dir():
        toker = known
    return HeroScorer.open(run, checkpoint, toker, device, known=maker)
