"""The grammar: subtitles, questions and descriptions of scenes."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from scripts.demo_corpus.scenes import Scene, Video
from scripts.demo_corpus.words import ADJECTIVES, PERSONS, PLACES, THINGS, TOPICS, VERBS

T = TypeVar("T")

# TVR's query types: v = about what is seen, t = what is spoken, vt = both.
DESCRIPTIONS = {
    "v": (
        "{s.person} {s.verb.third} the {s.adjective} {s.thing} in the {s.place}.",
        "In the {s.place}, {s.person} {s.verb.third} the {s.adjective} {s.thing}.",
        "{s.person} is in the {s.place} and {s.verb.third} the {s.adjective} {s.thing}.",
        "{s.person} is {s.verb.gerund} the {s.adjective} {s.thing} in the {s.place}.",
    ),
    "t": (
        "{s.person} tells {s.other} about the {s.topic}.",
        "{s.person} asks {s.other} about the {s.topic}.",
        "{s.other} hears about the {s.topic} from {s.person}.",
        "{s.person} and {s.other} talk about the {s.topic}.",
    ),
    "vt": (
        "{s.person} {s.verb.third} the {s.thing} while talking about the {s.topic}.",
        "While {s.verb.gerund} the {s.adjective} {s.thing}, {s.person} mentions the {s.topic}.",
        "{s.person} tells {s.other} about the {s.topic} and {s.verb.third} the {s.thing}.",
        "In the {s.place}, {s.person} talks about the {s.topic} to {s.other}.",
    ),
}
SEEN = {"v": DESCRIPTIONS["v"]}
# Statements that are true or not (VIOLIN) are short: one wrong word then matters.
STATEMENTS = {
    "v": (
        "{s.person} is in the {s.place}.",
        "{s.person} has the {s.thing}.",
        "The {s.thing} is in the {s.place}.",
    ),
    "t": ("Somebody talks about the {s.topic}.",),
}
# Events that follow a scene, by its verb: see next_scene.
EVENTS = (
    "{s.person} {s.verb.third} the {s.thing}.",
    "{s.person} leaves the {s.place} and {s.verb.third} the {s.thing}.",
    "Then {s.person} {s.verb.third} the {s.thing} in the {s.place}.",
)
_TOPIC_LINES = (
    "{s.other}, what about the {s.topic}?",
    "The {s.topic}, {s.other}, that's it!",
    "Oh {s.other}, the {s.topic}…",
)
_SCENE_LINES = (
    "{s.person}, watch the {s.thing}!",
    "That's not my {s.adjective} {s.thing}.",
    "Why the {s.place}, {s.person}?",
    "And then the {s.topic}.",
    "Why are you {s.verb.gerund}, {s.person}?",
)
_FILLERS = ("I don't know.", "Really?", "Oh, come on!", "Let's go.", "You & me?", "Wait a second.")
_WORDS = {
    "person": PERSONS,
    "verb": VERBS,
    "adjective": ADJECTIVES,
    "thing": THINGS,
    "place": PLACES,
    "topic": TOPICS,
}


def fill(template: str, scene: Scene) -> str:
    """Fill a template with the scene's words."""
    return template.format(s=scene)


def pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    """Draw one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def swap_word(scene: Scene, slot: str, video: Video, rng: np.random.Generator) -> Scene:
    """Replace the word in a slot of the scene by one that is not in the video."""
    absent = [word for word in _WORDS[slot] if getattr(word, "base", word) not in video.words]
    changed: dict[str, Any] = {slot: pick(absent, rng)}  # typed Any: the field is not known
    return replace(scene, **changed)


def next_scene(scene: Scene) -> Scene:
    """Return the scene that follows: each verb is always followed by the same one."""
    return replace(scene, verb=VERBS[(VERBS.index(scene.verb) + 1) % len(VERBS)])


def false_version(template: str, scene: Scene, video: Video, rng: np.random.Generator) -> str:
    """Fill a template with the scene's words, one of them wrong."""
    slots = tuple(slot for slot in _WORDS if f"{{s.{slot}" in template)
    return fill(template, swap_word(scene, pick(slots, rng), video, rng))


@dataclass(frozen=True)
class QuestionForm:
    """A question, its answer, and the slot in which wrong answers differ."""

    slot: str
    question: str
    answer: str


QUESTIONS = (
    QuestionForm("thing", "What does {s.person} {s.verb.base}?", "The {s.thing}."),
    QuestionForm("person", "Who has the {s.thing}?", "{s.person}."),
    QuestionForm("person", "Who is in the {s.place}?", "{s.person}."),
    QuestionForm("person", "Who {s.verb.third} something?", "{s.person}."),
    QuestionForm("place", "Where is the {s.thing}?", "In the {s.place}."),
    QuestionForm("topic", "What does {s.other} hear about?", "The {s.topic}."),
)


def speak(video: Video, rng: np.random.Generator) -> list[dict]:
    """Return the video's subtitles ``{"text", "start", "end"}`` in seconds, sorted by start.

    Each scene has two or three lines, one of which names the topic. As in real data, texts start
    with a space, and some are in upper case or HTML-escaped.
    """
    lines = []
    for scene in video.scenes:
        texts = [fill(pick(_TOPIC_LINES, rng), scene), fill(pick(_SCENE_LINES, rng), scene)]
        if rng.random() < 0.4:
            texts.append(pick(_FILLERS, rng))
        edges = np.linspace(scene.start, scene.end, len(texts) + 1)
        for place, text in enumerate(texts[i] for i in rng.permutation(len(texts))):
            start = round(edges[place] + rng.uniform(0.0, 0.5), 3)
            end = round(edges[place + 1] - rng.uniform(0.0, 0.3), 3)
            lines.append({"text": f" {_roughen(text, rng)}", "start": start, "end": end})
    return lines


def _roughen(text: str, rng: np.random.Generator) -> str:
    text = text.upper() if rng.random() < 0.06 else text
    return html.escape(text) if rng.random() < 0.25 else text
