"""Short films of moving shapes, as real video files with subtitle files.

In each scene of a film, one shape of one colour crosses the picture, while people talk about a
topic; sentences describe what is seen, and some also what is heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np

from scripts.demo_corpus.sentences import pick
from scripts.demo_corpus.words import TOPICS
from utils.files import atomic_write

WIDTH, HEIGHT, RATE = 160, 120, 8  # pixels, frames a second
RADIUS = 17.0  # pixels, of a shape
COLOURS = {
    "red": (225, 30, 35),
    "yellow": (230, 215, 30),
    "green": (35, 190, 45),
    "turquoise": (30, 205, 210),
    "blue": (40, 60, 230),
    "purple": (200, 40, 215),
}
SHAPES = ("disc", "square", "triangle", "cross")
MOTIONS = {  # way in the picture, as shares of its width and height a scene
    "goes left": (-1, 0),
    "goes right": (1, 0),
    "rises": (0, -1),
    "falls": (0, 1),
}
SPOKEN_TOPICS = TOPICS[:8]
_REACH = 0.7  # of the picture, that a shape crosses in a scene

SEEN = ("A {colour} {shape} {motion}.", "The {colour} {shape} {motion}.")
HEARD = (
    "A {colour} {shape} {motion} while they talk about the {topic}.",
    "They talk about the {topic}, and a {colour} {shape} {motion}.",
)
LINES = (
    "Did you hear about the {topic}?",
    "Everybody talks about the {topic}.",
    "I will never forget the {topic}.",
    "So, the {topic}. What do you think?",
)
FILLERS = ("Really?", "I see.", "Who told you?", "Come on.", "Well, well.")


@dataclass(frozen=True)
class Scene:
    """What is seen, and spoken of, from ``start`` to ``end`` seconds."""

    start: float
    end: float
    colour: str
    shape: str
    motion: str
    topic: str

    @property
    def seen(self) -> tuple[str, str, str]:
        """The visible attributes, which identify the scene."""
        return self.colour, self.shape, self.motion

    def fill(self, template: str) -> str:
        """Return a sentence about the scene."""
        text = template.format(**vars(self))
        return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Film:
    """A film: scenes without gaps, and the lines that are spoken."""

    name: str
    scenes: tuple[Scene, ...]
    lines: tuple[tuple[float, float, str], ...]  # start and end in seconds, text

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.scenes[-1].end


def make_film(name: str, rng: np.random.Generator) -> Film:
    """Return a film of three to five scenes of five to nine seconds; no two look alike."""
    kinds = list(product(COLOURS, SHAPES, MOTIONS))
    chosen = [kinds[n] for n in rng.permutation(len(kinds))[: rng.integers(3, 6)]]
    ends = np.cumsum(rng.integers(5 * RATE, 9 * RATE, len(chosen))) / RATE
    starts = [0.0, *ends[:-1].tolist()]
    scenes = [
        Scene(start, end, colour, shape, motion, pick(SPOKEN_TOPICS, rng))
        for start, end, (colour, shape, motion) in zip(starts, ends.tolist(), chosen, strict=True)
    ]
    lines = [line for scene in scenes for line in _speak(scene, rng)]
    return Film(name, tuple(scenes), tuple(lines))


def _speak(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float, str]]:
    middle = (scene.start + scene.end) / 2
    texts = [scene.fill(pick(LINES, rng)), pick(FILLERS, rng)]
    if rng.random() < 0.5:
        texts.reverse()
    first, second = texts
    return [(scene.start + 0.2, middle - 0.1, first), (middle + 0.1, scene.end - 0.2, second)]


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """Return a sentence about what is seen in a scene, and in 40 % also about what is heard."""
    return scene.fill(pick(HEARD if rng.random() < 0.4 else SEEN, rng))


def draw(scene: Scene, seconds: float, background: np.ndarray) -> np.ndarray:
    """Return the picture (HEIGHT, WIDTH, 3) uint8 of a scene at a time of the film."""
    done = (seconds - scene.start) / (scene.end - scene.start) - 0.5  # −0.5 to 0.5
    across, down = MOTIONS[scene.motion]
    x, y = WIDTH * (0.5 + _REACH * across * done), HEIGHT * (0.5 + _REACH * down * done)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    inside = _inside(scene.shape, (columns + 0.5 - x) / RADIUS, (rows + 0.5 - y) / RADIUS)
    return np.where(inside[..., None], np.array(COLOURS[scene.colour], np.uint8), background)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which points are in a shape around (0, 0) that extends from −1 to 1; y points down."""
    if shape == "disc":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.9
    if shape == "triangle":
        return (abs(y) <= 1) & (2 * abs(x) <= y + 1)
    return (np.maximum(abs(x), abs(y)) <= 1) & (np.minimum(abs(x), abs(y)) <= 0.3)  # a cross


def write_film(film: Film, path: Path, seed: int) -> None:
    """Write a film as a video file, and its subtitles (.srt) next to it."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(30, 110, 2)
    shades = np.linspace(left, right, WIDTH)  # the same in all scenes: it identifies none
    background = np.repeat(np.tile(shades, (HEIGHT, 1))[..., None], 3, axis=2).astype(np.uint8)
    with atomic_write(path.with_suffix(".srt")) as temporary:
        temporary.write_text(subtitles(film), encoding="utf-8")
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for scene in film.scenes:
            for number in range(round(scene.start * RATE), round(scene.end * RATE)):
                picture = draw(scene, number / RATE, background)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def subtitles(film: Film) -> str:
    """Return the lines of a film in SubRip format."""
    return "\n".join(
        f"{number}\n{_clock(start)} --> {_clock(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(film.lines, start=1)
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
