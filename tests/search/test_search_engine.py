"""The search engine: against the evaluation's head, over windows, and what it answers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from data.stores.lmdb_io import FeatureDb, TextDb
from data.video import SubtitleSource, collate_videos
from engine.build import build_for_evaluation
from evaluation.ranking import CorpusIndex
from model.inference import PackedLinear
from model.vcmr import HeroForVcmr
from scripts import prepro_sub
from search import MomentSearch
from search.answers import as_records, as_text, clock
from search.doubt import UNRELATED
from search.hero_scorer import HeroScorer
from search.records import Line, NewFilm
from search.scan import Corpus
from search.scorer import lines_within
from search.store import IndexArrays
from tests.support.tvr_runs import make_run
from utils.errors import UserError
from utils.files import read_json, write_json, write_jsonl

pytestmark = pytest.mark.golden

SENTENCES = ["Somebody waves.", "Mara hides the red notebook in the kitchen."]


@pytest.fixture
def run(tvr_options, tmp_path) -> Path:
    """A run on the recorded world; untrained."""
    width = FeatureDb(tvr_options["vfeat_db"]).width
    return make_run(tmp_path / "run", tvr_options, width)


@pytest.fixture
def scorer(run, world) -> HeroScorer:
    return HeroScorer.open(run, "1", str(world / "toker"))


@pytest.fixture
def source(tvr_options) -> SubtitleSource:
    """The videos of the recorded world, as trainings and evaluations read them."""
    features = FeatureDb(tvr_options["vfeat_db"], max_clip_len=100)
    return SubtitleSource(TextDb(tvr_options["sub_txt_db"]), features)


def spoken(source: SubtitleSource, vid: str) -> list[Line]:
    record = source.subtitles[vid]
    return [Line(sub["start"], sub["end"], sub["text"]) for sub in record["sub"]]


def films_of(scorer: HeroScorer, source: SubtitleSource) -> list[NewFilm]:
    films = []
    for vid in sorted(source.subtitles.keys()):
        lines, features = spoken(source, vid), source.features[vid]
        (frames,) = scorer.encode_segments([(features, lines)])
        films.append(NewFilm(vid, len(frames) * 1.5, [(0, frames)], lines))
    return films


@pytest.fixture
def engine(scorer, source) -> MomentSearch:
    index = IndexArrays(scorer.maker, films_of(scorer, source))
    return MomentSearch(index, scorer, percentile=0)


def head_of(scorer: HeroScorer, engine: MomentSearch) -> CorpusIndex:
    """What the evaluation searches, of the same embeddings in half precision."""
    index = engine.index
    frames = {
        film.name: torch.from_numpy(index.frames[s.first_row : s.first_row + s.rows]).float()
        for film, s in zip(index.films, index.segments, strict=True)
    }
    return CorpusIndex(frames, scorer.model.pool_scores, scorer.model.span_probabilities)


def test_frames_are_encoded_as_those_of_the_databases(scorer, source, world, tmp_path):
    vids = list(source.subtitles.keys())
    lines = ({"vid_name": vid, "sub": source.subtitles[vid]["sub"]} for vid in vids)
    write_jsonl(tmp_path / "lines.jsonl", lines)
    write_json(tmp_path / "frames.json", source.features.id2nframe)
    words = {"annotation": "lines.jsonl", "vid2nframe": "frames.json", "output": "new.db"}
    argv = [part for name, file in words.items() for part in (f"--{name}", str(tmp_path / file))]
    prepro_sub.main([*argv, "--toker", str(world / "toker"), "--workers", "1"])
    made = SubtitleSource(TextDb(tmp_path / "new.db"), source.features)
    for vid in vids:
        (expected,) = scorer.encode_batch(collate_videos([made(vid)]))
        (found,) = scorer.encode_segments([(source.features[vid], spoken(source, vid))])
        assert np.array_equal(found, expected.half().numpy())


def test_packed_weights_compute_what_plain_ones_do(scorer, source):
    assert any(isinstance(module, PackedLinear) for module in scorer.model.modules())
    plain = build_for_evaluation(HeroForVcmr, scorer.run, None, 100)
    batch = scorer.query_batch(SENTENCES)
    items = [source(vid) for vid in list(source.subtitles.keys())[:3]]
    with torch.no_grad():
        vectors = plain.encode_queries(batch)
        frames = plain.encode_videos(collate_videos(items))
        spans = plain.span_queries(vectors)
    found = scorer.encode_queries(SENTENCES)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.vectors, vectors, **close)
    torch.testing.assert_close(found.spans, spans, **close)
    torch.testing.assert_close(
        torch.cat(scorer.encode_batch(collate_videos(items))), frames, **close
    )


class MeanPooled:
    """Another pooling: the mean of a video's cosines."""

    def pool_scores(self, cosines, mask):
        return (cosines * mask).sum(-1) / mask.sum(-1)


@pytest.mark.parametrize("pooling", ["own", "another"])
def test_scores_are_those_of_the_evaluation(scorer, engine, pooling, monkeypatch):
    if pooling == "another":
        monkeypatch.setattr(scorer.model, "pool_scores", MeanPooled().pool_scores)
    head = head_of(scorer, engine)
    queries = scorer.encode_queries(SENTENCES)
    corpus = Corpus(engine.index)
    found = corpus.segment_scores(queries.vectors, scorer.model.pool_scores)
    with torch.no_grad():
        torch.testing.assert_close(found, head.video_scores(queries.vectors), rtol=0, atol=3e-4)
        lists = head.search(
            queries.vectors,
            dataclasses.replace(scorer.settings, tasks=("VCMR",), listed_moments=50),
            queries.spans,
        )["VCMR"]
    for candidates, expected in zip(scorer.find(corpus, queries, 50), lists, strict=True):
        assert len(expected) >= 20
        segments = [head.video_ids[int(place)] for place in expected[:, 0]]
        assert [engine.films[s].name for s in candidates.segment] == segments
        assert np.array_equal(candidates.first * 1.5, expected[:, 1])
        assert np.array_equal((candidates.last + 1) * 1.5, expected[:, 2])
        np.testing.assert_allclose(candidates.scores, expected[:, 3], rtol=3e-4)


def test_span_logits_are_those_of_the_head(scorer, engine):
    queries = scorer.encode_queries(SENTENCES)
    corpus = Corpus(engine.index)
    every = torch.arange(len(corpus))
    with torch.no_grad():
        for span in queries.spans:
            products, mask = corpus.products(span, every)
            start, end = scorer.model.span_logits(products, mask)
            for place, segment in enumerate(engine.index.segments):
                stop = segment.first_row + segment.rows
                frames = torch.from_numpy(engine.index.frames[segment.first_row : stop]).float()
                alone = torch.ones(segment.rows, dtype=torch.bool)
                expected = scorer.model.span_logits(frames @ span, alone)
                for one, other in zip((start, end), expected, strict=True):
                    torch.testing.assert_close(one[place, : segment.rows], other, rtol=0, atol=3e-4)


def test_half_precision_keeps_the_best_ten(scorer, source, engine):
    full = IndexArrays(scorer.maker, films_of(scorer, source))
    exact = [
        scorer.encode_batch(collate_videos([source(vid)]))[0].numpy()
        for vid in sorted(source.subtitles.keys())
    ]
    full.frames = np.concatenate(exact)
    reference = MomentSearch(full, scorer, percentile=0)
    spoken = source.subtitles
    sentences = [sub["text"] for vid in sorted(spoken.keys()) for sub in spoken[vid]["sub"]][:60]
    kept = total = 0
    for ours, theirs in zip(
        engine.search(sentences, top=10), reference.search(sentences, top=10), strict=True
    ):
        places = [{(m.video, m.start, m.end) for m in moments} for moments in (ours, theirs)]
        kept, total = kept + len(places[0] & places[1]), total + len(places[1])
    assert total >= 300 and kept / total >= 0.99


def test_holes_and_order_of_rows_change_nothing(scorer, source, engine):
    """Rows lie as removals and replacements leave them."""
    moved = IndexArrays(scorer.maker, films_of(scorer, source))
    pieces, segments, row = [], [], 0
    for number, segment in enumerate(reversed(moved.segments)):
        rows = moved.frames[segment.first_row : segment.first_row + segment.rows]
        hole = np.full((7 + 300 * (number % 2), rows.shape[1]), np.nan, np.float16)
        pieces += [hole, rows]
        row += len(hole)
        segments.append(dataclasses.replace(segment, first_row=row))
        row += len(rows)
    moved.frames, moved.segments = np.concatenate(pieces), segments[::-1]
    other = MomentSearch(moved, scorer, percentile=0)
    for one, two in zip(engine.search(SENTENCES, 20), other.search(SENTENCES, 20), strict=True):
        assert [dataclasses.replace(m, score=0, share=0) for m in one] == [
            dataclasses.replace(m, score=0, share=0) for m in two
        ]
        assert [m.score for m in one] == pytest.approx([m.score for m in two], rel=1e-4)


def two_windows(scorer, source) -> tuple[str, list[NewFilm]]:
    """A film whose two windows overlap in all but six frames, and the films of the world."""
    vid = min(source.subtitles.keys())
    features = np.concatenate([source.features[vid]] * 3)
    lines, segments = spoken(source, vid), []
    for first in (0, 6):
        part = features[first : first + len(features) - 6]
        within = lines_within(lines, first * 1.5, len(features) * 1.5)
        segments.append((first, scorer.encode_segments([(part, within)])[0]))
    seconds = len(features) * 1.5 - 0.7  # the last frame is not a whole one
    return vid, [NewFilm("long", seconds, segments, lines), *films_of(scorer, source)[1:]]


def test_a_moment_in_two_windows_is_listed_once(scorer, source):
    _, films = two_windows(scorer, source)
    index = IndexArrays(scorer.maker, films[:1])
    everything = MomentSearch(index, scorer, percentile=0, nms_thd=-1)
    everything = everything.search(SENTENCES[0], 2000)
    spans = [(m.start, m.end) for m in everything]
    assert len(set(spans)) < len(spans)  # both windows have found it
    engine = MomentSearch(index, scorer, percentile=0)
    moments = engine.search(SENTENCES[0], 2000)
    assert moments[0].score == everything[0].score
    for place, one in enumerate(moments):
        assert 0 <= one.start < one.end <= index.films[0].seconds
        for other in moments[:place]:
            both = min(one.end, other.end) - max(one.start, other.start)
            assert both <= (max(one.end, other.end) - min(one.start, other.start)) / 2 + 1e-9
    assert any(m.end == index.films[0].seconds for m in everything)


def test_films_not_their_windows_fill_the_places(scorer, source):
    """A long film with many good windows leaves room for others."""
    films = films_of(scorer, source)
    (_, best) = films[0].segments[0]
    copies = [(10 * number, best) for number in range(30)]
    films[0] = dataclasses.replace(films[0], segments=copies, seconds=600.0)
    corpus = Corpus(IndexArrays(scorer.maker, films))
    scores = torch.zeros(len(corpus))
    scores[:30] = torch.linspace(1, 0.71, 30)  # of the first film
    scores[30:] = torch.linspace(0.9, 0.1, len(corpus) - 30)
    # 0.9 and 0.8 are the next films': the first one's better than 0.8, of which there are 21, fill
    # the rest of four places for each of three.
    assert corpus.best_segments(scores, 3).tolist() == [*range(10), 30, 31]
    assert corpus.best_segments(scores, 1).tolist() == [0]
    assert corpus.best_segments(scores, 20).tolist() == [*range(len(corpus))]


def test_the_curve_of_a_film(scorer, source):
    _, films = two_windows(scorer, source)
    engine = MomentSearch(IndexArrays(scorer.maker, films), scorer, percentile=0)
    curve = engine.score("long", SENTENCES[0])
    first, second = (
        scorer.frame_scores(Corpus(engine.index), place, scorer.encode_queries(SENTENCES[:1]))[0]
        for place in (0, 1)
    )
    assert len(curve) == 6 + len(second)
    assert np.array_equal(curve[:6], first[:6]) and np.array_equal(curve[-6:], second[-6:])
    assert np.array_equal(curve[6:-6], np.maximum(first[6:], second[:-6]))
    assert -1 <= curve.min() < curve.max() <= 1
    with pytest.raises(UserError, match="stranger is not among"):
        engine.score("stranger", "Hi.")


def test_what_is_no_better_than_unrelated_sentences_is_doubtful(engine, scorer):
    best = [engine.search(sentence, 1)[0].score for sentence in UNRELATED]
    judging = MomentSearch(engine.index, scorer, percentile=90)
    lowest = np.percentile(best, 90)
    found = [judging.search(sentence, 5) for sentence in [*UNRELATED[:5], *SENTENCES]]
    for moment in (moment for moments in found for moment in moments):
        assert moment.doubtful == (moment.score < lowest)
        assert moment.record().get("doubtful", False) is moment.doubtful
    assert sum(m.doubtful for moments in found for m in moments) > 0
    assert not any(moment.doubtful for moment in engine.search(SENTENCES[0]))


def test_an_answer(engine, scorer, source):
    (moments,) = engine.search(SENTENCES[:1], top=4)
    assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)
    assert sum(m.share for m in moments) == pytest.approx(1)
    for moment in moments:
        said = [
            line.text.strip()
            for line in spoken(source, moment.name)
            if line.start < moment.end and line.end > moment.start
        ]
        assert moment.text == " ".join(said)
    record = as_records({"q": moments})["q"][0]
    assert list(record) == ["file", "start", "end", "score", "text"]
    shown = as_text(SENTENCES[0], moments).splitlines()
    assert shown[0] == SENTENCES[0]
    assert f"{clock(moments[0].start)} to {clock(moments[0].end)}" in shown[1]


def test_times_for_people():
    assert [clock(t) for t in (0, 59.96, 83.25, 3600, 36001.04)] == [
        *("0:00:00.0", "0:01:00.0", "0:01:23.2", "1:00:00.0", "10:00:01.0")
    ]


def test_untrained_features_are_a_note_of_every_moment(scorer, source):
    extractors = {"resnet": {"weights": None}, "slowfast": {"weights": "a.pth"}}
    maker = dataclasses.replace(scorer.maker, extractors=extractors)
    engine = MomentSearch(IndexArrays(maker, films_of(scorer, source)), scorer, percentile=0)
    assert {m.note for m in engine.search(SENTENCES[0])} == {
        "the resnet features come from an untrained network: scores mean nothing"
    }
    assert "note" in engine.search(SENTENCES[0])[0].record()


def test_nothing_to_search_and_nothing_to_search_for(scorer, engine, caplog):
    empty = MomentSearch(IndexArrays(scorer.maker, []), scorer)
    assert empty.search("Hi.") == []
    assert empty.search(["Hi.", "Ho."]) == [[], []]
    for sentences in ("", ["Hi.", " "]):
        with pytest.raises(UserError, match="is empty"):
            engine.search(sentences)
    with pytest.raises(UserError, match="one moment at least"):
        engine.search("Hi.", top=0)
    assert engine.search([]) == []


def test_another_model_is_refused(scorer, source):
    maker = dataclasses.replace(scorer.maker, model_sha256="0" * 64)
    with pytest.raises(UserError, match="SHA-256"):
        MomentSearch(IndexArrays(maker, []), scorer)


def test_unrelated_scores_are_kept_beside_the_index(engine, scorer, tmp_path, monkeypatch):
    engine.index.folder = tmp_path
    calls = []
    find = HeroScorer.find
    monkeypatch.setattr(
        HeroScorer, "find", lambda *given: calls.append(len(given[2].sentences)) or find(*given)
    )
    first = MomentSearch(engine.index, scorer).search(SENTENCES[0])
    assert sum(calls) == len(UNRELATED) + 1
    kept = read_json(tmp_path / "unrelated.json")
    assert list(kept["scores"]) == list(UNRELATED)
    for change, searched in ((0, 1), (1, 1), (2, len(UNRELATED) + 1)):  # of ten films
        calls.clear()
        engine.index.generation += change
        found = MomentSearch(engine.index, scorer).search(SENTENCES[0])
        assert found == first and sum(calls) == searched
    calls.clear()
    (tmp_path / "unrelated.json").write_text('{"scores": {}}')
    MomentSearch(engine.index, scorer).warm_up()
    assert sum(calls) == len(UNRELATED) + 1
