"""Synthetic videos: sequences of scenes, in each of which a person does something."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from scripts.demo_corpus.words import ADJECTIVES, PERSONS, PLACES, THINGS, TOPICS, VERBS, Verb


@dataclass(frozen=True)
class Scene:
    """What is seen (person, verb, adjective, thing, place) and spoken of (topic, to ``other``)."""

    start: float  # seconds
    end: float
    person: str
    other: str
    verb: Verb
    adjective: str
    thing: str
    place: str
    topic: str

    @property
    def visual_words(self) -> tuple[str, ...]:
        """Words that are visible in the frames of the scene."""
        return (self.person, self.verb.base, self.adjective, self.thing, self.place)

    @property
    def words(self) -> set[str]:
        """All content words of the scene, seen or spoken."""
        return {*self.visual_words, self.other, self.topic}


@dataclass(frozen=True)
class Span:
    """Words that are visible from ``start`` to ``end`` (seconds)."""

    start: float
    end: float
    words: tuple[str, ...]


@dataclass
class Video:
    """A video (for How2: a clip of at most 60 s of one) with its subtitles."""

    name: str
    duration: float  # seconds
    scenes: list[Scene]
    subtitles: list[dict] = field(default_factory=list)  # {"text", "start", "end"}, seconds

    @property
    def spans(self) -> list[Span]:
        """Visible words of each scene."""
        return [Span(scene.start, scene.end, scene.visual_words) for scene in self.scenes]

    @property
    def words(self) -> set[str]:
        """All content words of the video."""
        return set().union(*(scene.words for scene in self.scenes))


class SceneMaker:
    """Draws videos; no two of its scenes show the same person, verb and thing together."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._seen: set[tuple[str, str, str]] = set()

    def video(self, name: str, lengths: Iterable[float]) -> Video:
        """Return a video of scenes with the given lengths in seconds.

        A video has a cast of three; verbs, things, places, adjectives and topics do not repeat, so
        that a sentence is about one scene.
        """
        ends = np.round(np.cumsum(list(lengths)), 2)
        starts = np.concatenate([[0.0], ends[:-1]])
        cast = self._some(PERSONS, 3)
        kinds = (VERBS, ADJECTIVES, THINGS, PLACES, TOPICS)
        columns = [self._some(words, len(ends)) for words in kinds]
        scenes = []
        for start, end, verb, adjective, thing, *rest in zip(starts, ends, *columns, strict=True):
            times, people = (float(start), float(end)), self._unseen_pair(cast, verb, thing)
            scenes.append(Scene(*times, *people, verb, adjective, thing, *rest))
        return Video(name, float(ends[-1]), scenes)

    def _some(self, words: tuple, count: int) -> list:
        return [words[i] for i in self._rng.choice(len(words), count, replace=False)]

    def _unseen_pair(self, cast: list[str], verb: Verb, thing: str) -> tuple[str, str]:
        """Pick actor and listener; the actor is new to this verb and thing if possible."""
        order = [cast[i] for i in self._rng.permutation(len(cast))]
        new = [person for person in order if (person, verb.base, thing) not in self._seen]
        person = (new or order)[0]
        self._seen.add((person, verb.base, thing))
        return person, next(other for other in order if other != person)
