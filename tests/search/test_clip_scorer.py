"""Search with an image–text model: curves and peaks by hand, and the whole way through an index."""

import json
import math
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

import index_videos
import search_videos
from model.extractors.image_text import ClipFeatures
from search import MomentSearch
from search.clip_scorer import (
    SHARPNESS,
    SPOKEN_HALF,
    SPOKEN_WEIGHT,
    ClipScorer,
    spoken_bonuses,
)
from search.peaks import find_peaks, smooth
from search.records import Line, NewFilm
from search.scan import Corpus
from search.scorer import Queries
from search.store import Index, IndexArrays, IndexWriter
from tests.support.small_image_text import colourful, save_tiny_clip, save_tiny_siglip
from tests.support.videos import make_video
from utils.errors import UserError

WIDTH = 12  # of the tiny CLIP


# --- Curves and peaks -----------------------------------------------------------------------------


def test_a_curve_is_smoothed_by_its_neighbours():
    curve = torch.tensor([[0.0, 0.0, 4.0, 0.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    found = smooth(curve, mask)[0, :5]
    # (2·0 + 0)/3, (0 + 2·0 + 4)/4, 2·4/4, (4 + 3)/4, (0 + 2·3)/3
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 2.0, 1.75, 2.0]))


def test_moments_reach_to_the_middle_between_peak_and_lower_quartile():
    curve = np.array([0, 0, 4, 8, 6, 3, 0, 0, 0, 2, 6, 2, 0, 0])
    # Lower quartile 0. Around 8 all frames from 4 on; around 6 those from 3 on.
    assert find_peaks(curve, 10, 9)[:2] == [(2, 4, 8.0), (10, 10, 6.0)]
    assert find_peaks(curve, 10, 1) == [(2, 4, 8.0)]


def test_what_is_below_the_lower_quartile_is_no_moment():
    curve = np.array([1, 1, 5, 1, 1, 0, 0.5, 0, 1, 1, 1, 1])  # lower quartile 0.875
    found = find_peaks(curve, 10, 9)
    assert found[0] == (2, 2, 5.0)
    assert {first for first, *_ in found}.isdisjoint({5, 6, 7})


def test_a_long_moment_is_what_lies_around_its_peak():
    curve = np.array([0, 0, 0, 0, 0, 7, 8, 9, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0])
    assert find_peaks(curve, 10, 1) == [(5, 10, 9.0)]
    assert find_peaks(curve, 4, 1) == [(5, 8, 9.0)]
    assert find_peaks(curve, 1, 1) == [(7, 7, 9.0)]


@pytest.mark.parametrize("value", [0.1, 0.3, -0.7])
def test_a_flat_curve_is_one_moment(value):
    assert find_peaks(np.full(5, value, np.float32), 9, 3)[0][:2] == (0, 4)


# --- Films of vectors made by hand ----------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("models") / "tiny clip")


@pytest.fixture(scope="module")
def scorer(clip) -> ClipScorer:
    return ClipScorer.open(str(clip), interval=2.0)


def frames_with(cosines: list[float]) -> np.ndarray:
    """(T, WIDTH) of length 1 whose first value, the cosine with the first axis, is given."""
    frames = np.zeros((len(cosines), WIDTH), np.float32)
    frames[:, 0] = cosines
    frames[:, 1] = np.sqrt(1 - np.square(cosines))
    return frames


def first_axis(*sentences: str) -> Queries:
    vectors = torch.zeros(len(sentences), WIDTH)
    vectors[:, 0] = 3.0
    return Queries(sentences, vectors)


def index_of(scorer: ClipScorer, films: dict[str, tuple[list[float], list[Line]]]) -> IndexArrays:
    return IndexArrays(
        scorer.maker,
        [
            NewFilm(name, 2.0 * len(cosines), [(0, frames_with(cosines).astype(np.float16))], lines)
            for name, (cosines, lines) in films.items()
        ],
    )


def test_moments_of_all_films_come_best_first(scorer):
    films = {
        "one": ([0, 0, 0.5, 0.5, 0, 0, 0, 0], []),
        "two": ([0, 0, 0, 0.25, 0.25, 0.25, 0, 0], []),
    }
    corpus = Corpus(index_of(scorer, films))
    (found,) = scorer.find(corpus, first_axis("anything"), 2)
    # Smoothed: (0 + 2·0.5 + 0.5) / 4 = 0.375 twice; (0.25 + 0.5 + 0.25) / 4 = 0.25 in the middle.
    assert found.segment.tolist() == [0, 1]
    assert found.first.tolist() == [2, 3]
    assert found.last.tolist() == [3, 5]
    peaks = [math.exp(SHARPNESS * 0.375), math.exp(SHARPNESS * 0.25)]
    np.testing.assert_allclose(found.scores, peaks, rtol=0.01)


def test_what_is_spoken_counts_beside_what_is_seen(scorer):
    films = {
        "seen": ([0, 0, 0.05, 0.05, 0, 0], [Line(0, 4, "Nothing of it.")]),
        "heard": ([0] * 6, [Line(4.5, 8.0, "The KETTLE boils."), Line(0, 2, "Good morning.")]),
    }
    corpus = Corpus(index_of(scorer, films))
    ((_, relevance),) = corpus.index.find_words(["kettle"])
    bonuses = spoken_bonuses(corpus, "A kettle!", 2.0)
    value = SPOKEN_WEIGHT * relevance / (relevance + SPOKEN_HALF)
    assert 0 < value < SPOKEN_WEIGHT
    # 4.5 to 8 seconds lie in frames 2 and 3 of two seconds each.
    np.testing.assert_allclose(bonuses[1], [0, 0, value, value, 0, 0], rtol=1e-6)
    curve = scorer.frame_scores(corpus, 1, first_axis("A kettle!"))[0]
    expected = np.array([0, 0.25, 0.75, 0.75, 0.25, 0]) * value
    np.testing.assert_allclose(curve, expected, atol=1e-6)
    kettle, other = scorer.find(corpus, first_axis("A kettle!", "Snow."), 1)
    assert (kettle.segment[0], kettle.first[0], kettle.last[0]) == (
        (1, 2, 3) if 0.75 * value > 0.0375 else (0, 2, 3)
    )
    assert other.segment[0] == 0
    np.testing.assert_allclose(
        kettle.scores[0], math.exp(SHARPNESS * 0.75 * max(value, 0.05)), rtol=0.01
    )


def test_a_line_matches_in_all_windows_that_it_is_spoken_in(scorer):
    blank = frames_with([0] * 4).astype(np.float16)
    film = NewFilm("long", 12.0, [(0, blank), (2, blank)], [Line(5.0, 7.0, "kettle")])
    bonuses = spoken_bonuses(Corpus(IndexArrays(scorer.maker, [film])), "kettle", 2.0)
    assert (bonuses[0] > 0).tolist() == [False, False, True, True]
    assert (bonuses[1] > 0).tolist() == [True, True, False, False]


def test_the_best_are_those_of_a_search_through_everything(scorer):
    """Against all moments of all films, found one film at a time."""
    rng = np.random.default_rng(3)
    films = {
        f"{n}": (rng.uniform(-0.2, 0.4, rng.integers(3, 40)).tolist(), [Line(2, 5, f"word{n % 7}")])
        for n in range(60)
    }
    corpus = Corpus(index_of(scorer, films))
    queries = first_axis("word3 or word5")
    every = []
    for segment in range(len(corpus)):
        curve = scorer.frame_scores(corpus, segment, queries)[0]
        every += [(peak, segment, a, b) for a, b, peak in find_peaks(curve, scorer.longest, 99)]
    every.sort(key=lambda moment: -moment[0])
    (found,) = scorer.find(corpus, queries, 25)
    np.testing.assert_allclose(
        np.log(found.scores) / SHARPNESS, [each[0] for each in every[:25]], atol=1e-5
    )
    places = zip(found.segment.tolist(), found.first.tolist(), found.last.tolist(), strict=True)
    assert set(places) == {each[1:] for each in every[:25]}


# --- The model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_tiny_clip, save_tiny_siglip])
def test_answers_are_the_cosines_of_the_model(save, tmp_path):
    """Of a tiny model with random weights, against cosines computed by hand."""
    scorer = ClipScorer.open(str(save(tmp_path / "model")))
    pictures = np.stack([colourful(40, 60, seed) for seed in range(6)])
    with torch.no_grad():
        features = scorer.model(torch.from_numpy(pictures[:, None])).numpy()
    (frames,) = scorer.encode_segments([(features, [])])
    np.testing.assert_allclose(np.linalg.norm(frames.astype(float), axis=1), 1, atol=2e-3)
    engine = MomentSearch(
        IndexArrays(scorer.maker, [NewFilm("a", 9.0, [(0, frames)])]), scorer, percentile=0
    )
    (vector,) = scorer.model.encode_texts(["a red disc"]).numpy()
    cosines = features @ vector / np.linalg.norm(features, axis=1) / np.linalg.norm(vector)
    padded = np.pad(cosines, 1)
    around = np.array([3, 4, 4, 4, 4, 3])
    expected = (2 * cosines + padded[:-2] + padded[2:]) / around
    np.testing.assert_allclose(engine.score("a", "a red disc"), expected, atol=1e-3)
    best = engine.search("a red disc", top=1)[0]
    np.testing.assert_allclose(best.score, np.exp(SHARPNESS * expected.max()), rtol=0.02)


def test_an_index_says_what_made_it_and_takes_no_other(clip, scorer, tmp_path):
    maker = scorer.maker
    assert (maker.kind, maker.width, maker.interval) == ("clip", WIDTH, 2.0)
    assert len(maker.model_sha256) == 64
    assert "not HERO" in scorer.label
    frames = frames_with([0.1, 0.2]).astype(np.float16)
    with IndexWriter(tmp_path / "index", maker) as writer:
        writer.put(NewFilm("a", 4.0, [(0, frames)]))
    engine = MomentSearch.open(tmp_path / "index")
    assert isinstance(engine.scorer, ClipScorer)
    assert engine.scorer.interval == 2.0
    assert engine.scorer.maker == maker
    other = ClipScorer.open(str(save_tiny_siglip(tmp_path / "other")), interval=2.0)
    with pytest.raises(UserError, match="SHA-256"):
        MomentSearch(engine.index, other)
    with pytest.raises(UserError, match="interval"):
        MomentSearch(engine.index, ClipScorer.open(str(clip), interval=1.0))


def test_what_makes_its_features(scorer, clip):
    extractor, made_by = scorer.extraction()
    assert extractor.whole
    assert extractor.times == (0.5,)
    assert made_by["clip"].weights == clip.name
    assert made_by["clip"].weights_sha256 == scorer.model.sha256
    picture = colourful(40, 60, 1)
    found = extractor(picture[None, None])["clip"]
    with torch.no_grad():
        expected = ClipFeatures.load(str(clip))(torch.from_numpy(picture[None, None]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_features_that_are_not_finite_are_refused(scorer):
    with pytest.raises(UserError, match="not finite"):
        scorer.encode_segments([(np.full((2, WIDTH), np.nan, np.float32), [])])


# --- The scripts ----------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path) -> Path:
    """A film of 9 s with subtitles, a silent one of 5 s, and one that is none."""
    folder = tmp_path / "films"
    make_video(folder / "day" / "loud.mp4", 9, size=(64, 48))
    make_video(folder / "silent.mkv", 5, size=(96, 48))
    (folder / "broken.mp4").write_bytes(b"not a film")
    srt = "1\n00:00:03,000 --> 00:00:05,000\nThe kettle boils.\n"
    (folder / "day" / "loud.srt").write_text(srt)
    return folder


def test_films_are_indexed_and_searched(films, clip, tmp_path, capsys):
    words = ["--videos", str(films), "--index", str(tmp_path / "index"), "--workers", "1"]
    index_videos.main([*words, "--clip", str(clip)])
    assert "2 films added" in capsys.readouterr().out
    summary = index_videos.main([*words, "--clip", str(clip)])
    assert (summary.added, summary.unchanged) == (0, 2)
    index = Index.open(tmp_path / "index")
    assert {film.name: film.seconds for film in index.films} == {"day/loud.mp4": 9, "silent.mkv": 5}
    assert index.maker.kind == "clip"
    assert index.maker.interval == 1.5
    assert index.maker.extractors["clip"]["weights_sha256"] == index.maker.model_sha256

    sentence = "Where is a kettle?"
    answers = search_videos.main(
        ["--index", str(tmp_path / "index"), "--query", sentence, "--json", str(tmp_path / "a")]
    )
    assert {moment.name for moment in answers[sentence]} == {"day/loud.mp4", "silent.mkv"}
    assert all("not HERO" in moment.note for moment in answers[sentence])
    record = json.loads((tmp_path / "a").read_text())[sentence][0]
    assert {"file", "start", "end", "score", "text"} <= set(record)
    assert len(MomentSearch.open(tmp_path / "index").score("day/loud.mp4", sentence)) == 6


def test_an_index_of_another_model_is_left_alone(films, clip, tmp_path):
    words = ["--videos", str(films), "--index", str(tmp_path / "index"), "--workers", "1"]
    index_videos.main([*words, "--clip", str(clip)])
    with pytest.raises(UserError, match="SHA-256"):
        index_videos.main([*words, "--clip", str(save_tiny_siglip(tmp_path / "other"))])


def test_a_model_that_is_not_there_ends_the_command_with_one_line(
    films, tmp_path, monkeypatch, capfd
):
    words = ["--videos", str(films), "--index", str(tmp_path / "index")]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        index_videos.main([*words, "--clip", "nobody/nothing"])
    (line,) = str(caught.value).splitlines()
    assert "nobody/nothing" in line and capfd.readouterr().err == ""
    assert "hf download" in line
