"""Evaluation of a corpus with a small made-up model, by one process and by several ranks."""

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.corpus import Stream, evaluate_corpus
from evaluation.ranking import SearchSettings
from model.vcmr import MomentRetrievalModel
from tests.support.thread_ranks import on_ranks
from utils.distributed import SingleProcess
from utils.errors import UserError

HIDDEN = 6
LENGTHS = {"a": 7, "b": 4, "c": 9, "d": 4, "e": 12}
VIDEO2IDX = {"d": 30, "c": 10, "a": 50, "e": 20, "b": 40}
QUERIES = {"q1": "c", "q2": "a", "q3": "a", "q4": "e", "q5": "b"}
SETTINGS = SearchSettings(
    tasks=("VCMR", "SVMR", "VR"),
    listed_videos=4,
    searched_videos=3,
    listed_moments=10,
    min_pred_l=1,
    max_pred_l=4,
    interval=1.5,
    q2c_alpha=2.0,
)


@dataclass
class Batch:
    """Videos or queries; vectors follow from the names alone."""

    names: list[str]
    vids: list | None
    frame_lens: torch.Tensor | None = None

    @property
    def qids(self):
        return self.names

    @property
    def desc_ids(self):
        return [int(name[1:]) for name in self.names]

    def to(self, device):
        return self


class Model(MomentRetrievalModel):
    """The head behind frame embeddings and query vectors drawn by name, instead of encoders; counts
    the videos it encodes."""

    def __init__(self):
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.video_query_linear = nn.Linear(HIDDEN, HIDDEN)
        self.video_st_predictor = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        self.video_ed_predictor = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.encoded = []

    def _draw(self, name, count):
        seed = int.from_bytes(name.encode())
        return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed))

    def encode_videos(self, batch):
        assert not torch.is_grad_enabled()
        self.encoded += batch.vids
        frames = [self._draw(vid, n) for vid, n in zip(batch.vids, batch.frame_lens.tolist())]
        return self.dropout(torch.cat(frames))

    def encode_queries(self, batch):
        return torch.cat([self._draw(name, 1) for name in batch.names])


def video_batches(vids, size=2):
    for start in range(0, len(vids), size):
        chosen = vids[start : start + size]
        yield Batch(chosen, chosen, torch.tensor([LENGTHS[vid] for vid in chosen]))


def query_batches(qids, video_of=QUERIES, size=2):
    for start in range(0, len(qids), size):
        chosen = qids[start : start + size]
        yield Batch(chosen, [video_of.get(qid) for qid in chosen])


def evaluate(model, comm=None, vids=tuple(LENGTHS), qids=tuple(QUERIES), settings=SETTINGS, **more):
    results = evaluate_corpus(
        [Stream(model, video_batches(list(vids)))],
        query_batches(list(qids), **more),
        settings,
        comm or SingleProcess(),
        VIDEO2IDX,
        list(QUERIES),
    )
    return json.loads(json.dumps(results, default=np.ndarray.tolist))


def test_every_query_has_its_lists_in_the_order_of_the_split():
    model = Model()
    results = evaluate(model)
    assert sorted(model.encoded) == sorted(LENGTHS)  # each once
    assert results["video2idx"] == VIDEO2IDX
    for task, length in (("VCMR", 10), ("SVMR", 10), ("VR", 4)):
        assert [entry["desc_id"] for entry in results[task]] == [1, 2, 3, 4, 5]
        assert {len(entry["predictions"]) for entry in results[task]} <= {length, 6}
    for entry, vid in zip(results["SVMR"], QUERIES.values()):
        assert {row[0] for row in entry["predictions"]} == {VIDEO2IDX[vid]}


def test_numbers_that_are_not_finite_blame_what_holds_them():
    class NaNVideos(Model):
        def encode_videos(self, batch):
            frames = super().encode_videos(batch).split(batch.frame_lens.tolist())
            return torch.cat([x * torch.nan if v == "c" else x for v, x in zip(batch.vids, frames)])

    with pytest.raises(UserError, match=r"video 'c' is encoded .*: its features hold NaN or huge"):
        evaluate(NaNVideos())
    spans, both = Model(), NaNVideos()
    for model in (spans, both):
        nn.init.constant_(model.video_ed_predictor.weight, torch.nan)
    with pytest.raises(UserError, match=r"span scores are not finite: the weights of the queries'"):
        evaluate(spans)
    with pytest.raises(UserError, match=r"weights hold NaN .* such as video_ed_predictor\.weight"):
        evaluate(both)


def test_scores_are_those_of_the_formula():
    model = Model().eval()
    results = evaluate(model)
    frames, query = model._draw("c", LENGTHS["c"]), model._draw("q1", 1)
    score = torch.cosine_similarity(query, frames).max()
    similarity = (frames @ model.span_queries(query).T).T[None]
    start = model.video_st_predictor(similarity).softmax(-1)[0, 0]
    end = model.video_ed_predictor(similarity).softmax(-1)[0, 0]
    pairs = {(a, b): start[a] * end[b] for a in range(9) for b in range(a + 1, min(a + 4, 9))}
    (first, last), probability = max(pairs.items(), key=lambda pair: pair[1])
    moment = [10, 1.5 * first, 1.5 * (last + 1)]
    assert results["SVMR"][0]["predictions"][0] == pytest.approx([*moment, probability.item()])
    listed = {row[0]: row[3] for row in results["VR"][0]["predictions"]}
    assert listed[10] == pytest.approx(torch.exp(2 * score).item(), rel=1e-5)


@pytest.mark.parametrize("size", [2, 3, 7])  # with seven, some have no videos or no queries
def test_ranks_find_what_one_process_finds(size):
    expected = evaluate(Model())

    def work(comm):
        vids, qids = list(LENGTHS)[comm.rank :: size], list(QUERIES)[comm.rank :: size]
        return evaluate(copy.deepcopy(model), comm, vids, qids)

    model = Model()
    for results in on_ranks(size, work):
        assert list(results) == list(expected)
        for task in SETTINGS.tasks:
            for ours, theirs in zip(results[task], expected[task], strict=True):
                assert ours["desc_id"] == theirs["desc_id"]
                rows, expected_rows = np.array(ours["predictions"]), theirs["predictions"]
                np.testing.assert_allclose(rows, expected_rows, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode(training):
    model = Model().train(training)
    evaluate(model)
    assert model.training is training
    with pytest.raises(KeyError):
        evaluate(model, vids=["a"])
    assert model.training is training


def test_dropout_is_off():
    assert evaluate(Model().train()) == evaluate(Model().eval())


def test_ranking_is_not_rounded_under_autocast():
    expected = evaluate(Model())["VR"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert evaluate(Model())["VR"] == expected


def test_a_split_that_hides_the_videos_has_no_svmr():
    expected = evaluate(Model())
    results = evaluate(Model(), video_of={})
    assert list(results) == ["video2idx", "VCMR", "VR"]
    assert results["VCMR"] == expected["VCMR"]


def test_where_some_videos_are_known_only_those_queries_have_svmr():
    expected = evaluate(Model())["SVMR"]
    assert evaluate(Model(), video_of={"q2": "a"})["SVMR"] == expected[1:2]


def test_video_retrieval_needs_no_span_head():
    model = Model()
    expected = evaluate(model)["VR"]
    del model.video_query_linear, model.video_st_predictor, model.video_ed_predictor
    model.anything = nn.Linear(1, 1)
    settings = SearchSettings(tasks=("VR",), listed_videos=4)
    results = evaluate(model, settings=settings)
    assert list(results) == ["video2idx", "VR"]
    for plain, weighted in zip(results["VR"], expected):
        for (video, *_, score), (same, *_, weight) in zip(
            plain["predictions"], weighted["predictions"]
        ):
            assert (video, np.exp(2 * score)) == (same, pytest.approx(weight, rel=1e-5))


def test_a_query_about_a_video_outside_the_pool_has_no_svmr():
    expected = evaluate(Model())
    results = evaluate(Model(), video_of=QUERIES | {"q4": "elsewhere"})
    assert results["SVMR"] == expected["SVMR"][:3] + expected["SVMR"][4:]
    assert results["VCMR"] == expected["VCMR"]
