"""The demo of search: its films, their features, its report by hand, and the whole way."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data.prepare.subtitle_files import read_subtitles
from scripts.demo import run_demo
from scripts.demo_corpus.demo_tasks import demo_tasks
from scripts.demo_corpus.film_features import GRID, HUES, ColoursAndShapes
from scripts.demo_corpus.films import (
    COLOURS,
    HEIGHT,
    MOTIONS,
    SHAPES,
    WIDTH,
    Film,
    Scene,
    draw,
    make_film,
    write_film,
)
from scripts.demo_corpus.search_demo import SearchTask
from scripts.make_demo_films import choose_sentences, main
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_json

GREY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def scene(colour: str = "red", shape: str = "disc", motion: str = "rises", at: float = 0) -> Scene:
    return Scene(at, at + 6.0, colour, shape, motion, "storm")


def features_of(scene: Scene) -> dict[str, np.ndarray]:
    """Of a window of 1.5 seconds in the middle of a scene of six."""
    times = [2.25 + 1.5 * share for share in ColoursAndShapes.frame_times]
    window = np.stack([draw(scene, time, GREY) for time in times])
    (values,) = ColoursAndShapes()(torch.from_numpy(window)[None]).numpy()
    parts = np.split(values, np.cumsum([HUES, GRID**2, 3]))
    return dict(zip(("hues", "filled", "place", "ways"), parts, strict=True))


@pytest.mark.parametrize(("place", "colour"), list(enumerate(COLOURS)))
def test_a_colour_is_its_hue(place, colour):
    # Six colours are a sixth of a circle of twelve hues apart, turquoise and purple nearly.
    hues = features_of(scene(colour=colour))["hues"]
    assert abs(int(hues.argmax()) - 2 * place) <= 1
    assert hues.sum() == pytest.approx(1, abs=1e-4)


def test_a_shape_is_where_its_box_is_filled():
    filled = {
        shape: features_of(scene(shape=shape))["filled"].reshape(GRID, GRID) for shape in SHAPES
    }
    np.testing.assert_allclose(filled["square"], 1)
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    assert [filled["cross"][corner] for corner in corners] == [0] * 4
    assert all(0 < filled["disc"][corner] < 0.6 for corner in corners)
    assert [filled["triangle"][corner] > 0.4 for corner in corners] == [False, False, True, True]
    assert filled["triangle"].mean() == pytest.approx(0.5, abs=0.03)
    assert filled["disc"].mean() == pytest.approx(np.pi / 4, abs=0.03)


@pytest.mark.parametrize(("place", "motion"), list(enumerate(MOTIONS)))
def test_a_motion_is_the_way_within_the_window(place, motion):
    ways = features_of(scene(motion=motion))["ways"]
    # In six seconds 0.7 of the picture, so in 0.6 · 1.5 seconds 0.105, eightfold.
    expected = np.zeros(4)
    expected[place] = 8 * 0.105
    np.testing.assert_allclose(ways, expected, atol=0.02)


def test_nothing_is_seen_in_a_grey_picture():
    windows = torch.full((1, 3, HEIGHT, WIDTH, 3), 90, dtype=torch.uint8)
    assert not ColoursAndShapes()(windows).any()


def test_a_film_is_a_video_with_subtitles(tmp_path):
    film = make_film("a", np.random.default_rng(1))
    write_film(film, tmp_path / "a.mp4", 1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(film.seconds, abs=0.01)
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == round(film.seconds * 8)
    for part in film.scenes:
        middle = pictures[round(4 * (part.start + part.end))]
        drawn = draw(part, round(4 * (part.start + part.end)) / 8, GREY)
        inside = (drawn != GREY).any(axis=-1)
        colour = np.median(middle[inside], axis=0)
        np.testing.assert_allclose(colour, COLOURS[part.colour], atol=12)
    cues = read_subtitles(tmp_path / "a.srt").cues
    assert [cue.text.strip() for cue in cues] == [text for _, _, text in film.lines]
    times = [(cue.start, cue.end) for cue in cues]
    np.testing.assert_allclose(times, [line[:2] for line in film.lines], atol=1e-3)


def test_a_sentence_fits_one_scene_only():
    films = [
        Film("a", (scene(), scene("blue", at=6)), ()),
        Film("b", (scene(), scene("green", at=6)), ()),
    ]
    chosen = choose_sentences(films, np.random.default_rng(0))
    assert {(row["file"], row["start"]) for row in chosen} == {("a.mp4", 6), ("b.mp4", 6)}
    assert {"blue" in row["sentence"] for row in chosen} == {True, False}


def test_films_are_made_once_and_with_the_same_options(tmp_path, capsys):
    words = ["--output", str(tmp_path), "--videos", "1", "--workers", "1"]
    main(words)
    assert "17 films, 17 of them made now" in capsys.readouterr().out
    rows = [row for _, row in read_jsonl(tmp_path / "ann" / "films_train.jsonl")]
    assert {row["vid_name"] for row in rows} == {"train_000"}
    assert len(read_json(tmp_path / "ann" / "films_sentences.json")) == 5
    before = (tmp_path / "ann" / "films_sentences.json").read_text()
    main(words)
    assert "17 films, 0 of them made now" in capsys.readouterr().out
    assert (tmp_path / "ann" / "films_sentences.json").read_text() == before
    with pytest.raises(UserError, match="describes another corpus"):
        main([*words, "--seed", "2"])


def test_the_report_counts_moments_that_overlap_by_half(tmp_path, capsys):
    task = demo_tasks(tmp_path)["search"]
    true = [
        {"sentence": name, "file": "a.mp4", "start": 4.0, "end": 10.0}
        for name in ("right", "short", "elsewhere", "none")
    ]
    write_json(task.ann / "films_sentences.json", true)
    found = {
        "right": [{"file": "/films/a.mp4", "start": 6.0, "end": 11.0}],  # 4 of 7 seconds
        "short": [{"file": "/films/a.mp4", "start": 4.0, "end": 6.0}],  # 2 of 6
        "elsewhere": [{"file": "/films/b.mp4", "start": 4.0, "end": 10.0}],
        "none": [],
    }
    write_json(task.answers, found)
    overlaps = [overlap for *_, overlap in task.compare()]
    assert overlaps == pytest.approx([4 / 7, 1 / 3, 0, 0])
    task.report(1)
    assert "1 of 4 top moments overlap the true one by 0.5 or more" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_way(tmp_path, capfd):
    """A few steps on few films: mechanics only, nothing is learnt."""
    task: SearchTask = replace(demo_tasks(tmp_path)["search"], seed=3)
    quick = ["--num_train_steps", "2", "--warmup_steps", "1", "--valid_steps", "2"]
    run_demo(task, "tiny", quick)
    printed = capfd.readouterr().out
    assert "of 5 top moments overlap the true one" in printed
    answers = json.loads(task.answers.read_text())
    assert list(answers) == [row["sentence"] for row in task.truth()]
    names = {path.name for path in (tmp_path / "films" / "search").glob("*.mp4")}
    assert len(names) == 12
    assert {Path(moment["file"]).name for found in answers.values() for moment in found} <= names
    assert task.answers.with_suffix(".html").exists()
