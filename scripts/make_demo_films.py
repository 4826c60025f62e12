#!/usr/bin/env python3
"""Make short films of moving shapes, with subtitles, to train on and to search.

python scripts/make_demo_films.py --output demo

Writes to <output>
  films/learn/*.mp4 and .srt     films to train and to validate on
  films/search/*.mp4 and .srt    a dozen others, to search
  ann/films_train.jsonl, …_val.jsonl    sentences about the first, in TVR's format
  ann/films_sentences.json       [{"sentence", "file", "start", "end"}] of the others
  toker                          a tokenizer of all these words
The same options give the same films. Files that exist are kept.
"""

import argparse
import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.work import map_in_chunks, work_parser
from scripts.demo_corpus.films import (
    FILLERS,
    HEARD,
    LINES,
    SEEN,
    Film,
    Scene,
    describe,
    make_film,
    write_film,
)
from scripts.demo_corpus.tokenizer import train_tokenizer
from scripts.demo_corpus.words import stable_hash
from scripts.make_demo_data import SIZES, claim, write_once
from utils.errors import UserError, run_main
from utils.files import named_path, write_json, write_jsonl

SEARCHED = 12  # films
SENTENCES = 5
PER_SCENE = 2  # training sentences
TOKER_SIZE = 500


def main(argv: list[str] | None = None) -> None:
    """Write the films, their annotations and the tokenizer."""
    options = _parse(argv)
    out = options.output
    settings = {"seed": options.seed, "videos": options.videos}
    claim(out / "films.json", settings, ("ann", "toker", "films"))
    counts = {"train": options.videos, "val": max(4, options.videos // 8), "search": SEARCHED}
    splits = {split: _make(split, count, options.seed) for split, count in counts.items()}
    jobs = [
        (film, out / "films" / ("search" if split == "search" else "learn") / f"{film.name}.mp4")
        for split, films in splits.items()
        for film in films
    ]
    made = sum(map_in_chunks(_write, jobs, options.workers, len(jobs), chunk=4))
    rng = np.random.default_rng([options.seed, stable_hash("sentences")])
    for split in ("train", "val"):
        rows = _annotations(splits[split], rng)
        write_once(write_jsonl, out / "ann" / f"films_{split}.jsonl", rows)
    chosen = choose_sentences(splits["search"], rng)
    write_json(out / "ann" / "films_sentences.json", chosen, indent=2)
    if not (out / "toker" / "config.json").exists():  # the last file that it writes
        train_tokenizer(_texts(splits["train"]), TOKER_SIZE, out / "toker")
    print(f"{out / 'films'}: {len(jobs)} films, {made} of them made now")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = work_parser(__doc__)
    parser.add_argument("--output", type=named_path, required=True, help="folder of everything")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="debug", help=f"training films: {SIZES}")
    parser.add_argument("--videos", type=int, help="training films, instead of --size")
    options = parser.parse_args(argv)
    options.videos = SIZES[options.size] if options.videos is None else options.videos
    if options.videos < 1:
        raise UserError(f"--videos must be 1 or more, not {options.videos}")
    return options


def _make(split: str, count: int, seed: int) -> list[Film]:
    """Return the films of a split."""
    draws = (np.random.default_rng([seed, stable_hash(split), number]) for number in range(count))
    return [make_film(f"{split}_{number:03d}", rng) for number, rng in enumerate(draws)]


def _write(jobs: list[tuple[Film, Path]]) -> list[bool]:
    """Write films that do not exist yet; return which were written."""
    missing = [not path.exists() for _, path in jobs]
    for film, path in itertools.compress(jobs, missing):
        write_film(film, path, stable_hash(film.name))
    return missing


def _annotations(films: list[Film], rng: np.random.Generator) -> list[dict]:
    scenes = [(film, scene) for film in films for scene in film.scenes for _ in range(PER_SCENE)]
    return [
        {
            "vid_name": film.name,
            "duration": film.seconds,
            "ts": [scene.start, scene.end],
            "desc": describe(scene, rng),
            "type": "vt",
            "desc_id": number,
        }
        for number, (film, scene) in enumerate(scenes)
    ]


def choose_sentences(films: list[Film], rng: np.random.Generator) -> list[dict]:
    """Describe scenes, each of another film, that look like no other scene of the films."""
    looks = Counter(scene.seen for film in films for scene in film.scenes)
    sentences: list[dict] = []
    for number in rng.permutation(len(films)).tolist():
        film = films[number]
        unique = [scene for scene in film.scenes if looks[scene.seen] == 1]
        if unique and len(sentences) < SENTENCES:
            scene: Scene = unique[rng.integers(len(unique))]
            span = {"start": scene.start, "end": scene.end}
            text = describe(scene, rng)
            sentences.append({"sentence": text, "file": f"{film.name}.mp4", **span})
    return sentences


def _texts(films: list[Film]) -> list[str]:
    """Return all sentences about films and all lines of their subtitles."""
    scenes = [scene for film in films for scene in film.scenes]
    templates = (*SEEN, *HEARD, *LINES)
    return [*(scene.fill(template) for scene in scenes for template in templates), *FILLERS]


if __name__ == "__main__":
    run_main(main)
