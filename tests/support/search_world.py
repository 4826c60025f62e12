"""A small index of real films on the disk, and the untrained run that made it."""

from pathlib import Path

import numpy as np

from search.hero_scorer import HeroScorer
from search.indexing import Material, encode_film
from search.records import Line, NewFilm
from search.store import IndexWriter
from tests.support.tvr_runs import make_run, model_options
from tests.support.videos import make_video

WIDTH, INTERVAL = 24, 1.5
WORDS = ("Yusuf lifts the rope.", "<b>Mara</b> & the red notebook.")


def make_films(folder: Path, names: dict[str, float]) -> dict[str, Path]:
    """Films that go from black to white in so many seconds."""
    return {name: make_video(folder / f"{name}.mp4", seconds) for name, seconds in names.items()}


def make_index(
    folder: Path, world: Path, expected: Path, names: dict[str, float], width: int = WIDTH
) -> Path:
    """``folder/index``, of films in ``folder/videos`` and of features drawn at random."""
    films = make_films(folder / "videos", names)
    run = make_run(folder / "run", model_options(world, expected), width)
    scorer = HeroScorer.open(run, "1", str(world / "toker"))
    random = np.random.default_rng(0)
    with IndexWriter(folder / "index", scorer.maker) as writer:
        for name, film in films.items():
            frames = -int(-names[name] // INTERVAL)
            features = random.standard_normal((frames, width), dtype=np.float32)
            lines = [Line(1.0, 4.0, WORDS[0]), Line(names[name] - 4, names[name] + 1, WORDS[1])]
            record = NewFilm(name, names[name], lines=lines, file=film)
            writer.put(encode_film(scorer, Material(record, features)))
    return folder / "index"
