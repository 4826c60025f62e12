"""The search of a corpus, against full tensors and against numbers worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.ranking import (
    BLOCK_VIDEOS,
    CorpusIndex,
    SearchSettings,
    top_moments,
)
from tests.support.recorded import DEVICE
from tests.support.small_world import small_model
from utils.errors import UserError

ALL = ("VCMR", "SVMR", "VR")
HIDDEN = 8
KERNELS = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def index_of(corpus: dict[str, torch.Tensor], kernels: torch.Tensor = KERNELS) -> CorpusIndex:
    """The corpus, scored by a model's head with these kernels."""
    model = small_model().to(next(iter(corpus.values())).device)
    model.video_st_predictor.weight.copy_(kernels[:1, None])
    model.video_ed_predictor.weight.copy_(kernels[1:, None])
    return CorpusIndex(corpus, model.pool_scores, model.span_probabilities)


def settings(**changed) -> SearchSettings:
    values = {
        "tasks": ALL,
        "listed_videos": 5,
        "searched_videos": 5,
        "listed_moments": 40,
        "min_pred_l": 2,
        "max_pred_l": 6,
        "interval": 1.5,
        "q2c_alpha": 3.0,
    }
    return SearchSettings(**(values | changed))


def random_corpus(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"video{place}": torch.randn(length, HIDDEN, generator=generator)
        for place, length in enumerate(lengths)
    }


def random_queries(count: int, seed: int = 1) -> torch.Tensor:
    """Query vectors and span queries."""
    return torch.randn(2, count, HIDDEN, generator=torch.Generator().manual_seed(seed))


def plain_video_scores(corpus, vectors):
    """(N, V) float64, video by video."""
    return torch.stack(
        [
            F.cosine_similarity(vectors[:, None].double(), frames.double(), dim=-1).amax(1)
            for frames in corpus.values()
        ],
        dim=1,
    )


def plain_pairs(frames, span_query, min_pred_l, max_pred_l):
    """{(a, b): p_st[a] · p_ed[b]} of one query and one video, every pair in turn."""
    similarity = (frames @ span_query)[None, None].double()
    logits = F.conv1d(similarity, KERNELS[:, None].double(), padding=2)[0]
    start, end = logits.softmax(-1)
    return {
        (a, b): float(start[a] * end[b])
        for a in range(len(frames))
        for b in range(len(frames))
        if min_pred_l <= b - a < max_pred_l
    }


def plain_moments(corpus, weights, span_query, wanted):
    """Rows [video, start, end, score] over the videos that ``weights`` {place: weight} names."""
    videos = list(corpus.values())
    rows = [
        [place, a * wanted.interval, (b + 1) * wanted.interval, weight * probability]
        for place, weight in weights.items()
        for (a, b), probability in plain_pairs(
            videos[place], span_query, wanted.min_pred_l, wanted.max_pred_l
        ).items()
    ]
    return sorted(rows, key=lambda row: -row[3])[: wanted.listed_moments]


def plain_search(corpus, vectors, spans, true_videos, wanted):
    """The lists of :meth:`CorpusIndex.search`, one pair after the other."""
    lists = {task: [] for task in ALL}
    scores = plain_video_scores(corpus, vectors).tolist()
    for row, span_query, true_video in zip(scores, spans, true_videos):
        weights = {place: math.exp(wanted.q2c_alpha * score) for place, score in enumerate(row)}
        ranked = sorted(weights, key=lambda place, weights=weights: -weights[place])
        searched = {place: weights[place] for place in ranked[: wanted.searched_videos]}
        found = [
            plain_moments(corpus, w, span_query, wanted) for w in (searched, {true_video: 1.0})
        ]
        lists["VCMR"].append(found[0])
        lists["SVMR"].append(found[1])
        lists["VR"].append([[v, 0, 0, weights[v]] for v in ranked[: wanted.listed_videos]])
    return lists


def assert_same_lists(found, expected):
    """Equal lists; scores of the plain version are float64."""
    assert list(found) == list(expected)
    for task in expected:
        for ours, theirs in zip(found[task], expected[task], strict=True):
            theirs = np.array(theirs).reshape(-1, 4)
            assert ours.shape == theirs.shape
            np.testing.assert_array_equal(ours[:, :3], theirs[:, :3], err_msg=task)
            np.testing.assert_allclose(ours[:, 3], theirs[:, 3], rtol=2e-5, err_msg=task)


@pytest.mark.parametrize(
    ("lengths", "changed"),
    [
        pytest.param([7, 3, 12, 7, 1, 9, 12, 12, 2, 30], {}, id="mixed"),
        pytest.param([7, 3, 12], {"searched_videos": 100, "listed_videos": 100}, id="few-videos"),
        pytest.param([4, 1, 3], {"max_pred_l": 16, "listed_moments": 200}, id="short-lists"),
        pytest.param([1, 1, 1], {"min_pred_l": 0, "max_pred_l": 1}, id="one-frame"),
        pytest.param([1, 2, 1], {}, id="no-moment-allowed"),
        pytest.param([9, 9, 8], {"min_pred_l": 0, "max_pred_l": 100}, id="all-pairs"),
        pytest.param([5] * (2 * BLOCK_VIDEOS + 3), {"searched_videos": 300}, id="several-blocks"),
    ],
)
def test_search_equals_trying_every_pair(lengths, changed):
    corpus, (vectors, spans) = random_corpus(lengths), random_queries(6)
    wanted = settings(**changed)
    true_videos = [query % len(lengths) for query in range(6)]
    found = index_of(corpus).search(vectors, wanted, spans, torch.tensor(true_videos))
    assert_same_lists(found, plain_search(corpus, vectors, spans, true_videos, wanted))


def test_video_scores_are_the_highest_cosine_of_a_frame():
    corpus = {
        "a": torch.tensor([[2.0, 0.0], [1.0, 1.0]]),
        "b": torch.tensor([[0.0, -3.0]]),
        "c": torch.tensor([[0.0, 0.0], [-1.0, 0.0]]),
    }
    scores = index_of(corpus).video_scores(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    half = math.sqrt(0.5)
    np.testing.assert_allclose(scores, [[1, 0, 0], [half, -1, 0]], atol=1e-6)


def test_vectors_shorter_than_the_epsilon_are_not_blown_up():
    index = index_of({"a": torch.tensor([[1e-6, 0.0]])})
    np.testing.assert_allclose(index.video_scores(torch.tensor([[1.0, 0.0]])), [[0.1]], rtol=1e-5)


def test_hand_worked_moments():
    # Similarities 0, ln 2, 0 and kernels that change nothing: probabilities 1/4, 1/2, 1/4.
    frames = torch.tensor([[1.0, 0.0], [1.0, math.log(2)], [1.0, 0.0]])
    identity = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]).expand(2, 5)
    found = index_of({"a": frames}, identity).search(
        torch.tensor([[1.0, 0.0]]),
        settings(min_pred_l=0, max_pred_l=2, interval=2.0, q2c_alpha=0.5),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([0]),
    )
    moments = [
        [0, 2, 4, 1 / 4],
        [0, 0, 4, 1 / 8],
        [0, 2, 6, 1 / 8],
        [0, 0, 2, 1 / 16],
        [0, 4, 6, 1 / 16],
    ]
    np.testing.assert_allclose(found["SVMR"][0], moments, rtol=1e-6)
    weight = [1, 1, 1, math.exp(0.5)]
    np.testing.assert_allclose(found["VCMR"][0], np.multiply(moments, weight), rtol=1e-6)
    np.testing.assert_allclose(found["VR"][0], [[0, 0, 0, math.exp(0.5)]], rtol=1e-6)


def test_video_retrieval_alone_lists_plain_scores():
    corpus = {"a": torch.tensor([[0.0, 1.0]]), "b": torch.tensor([[3.0, 4.0]])}
    options = SimpleNamespace(max_vr_video=1)
    found = index_of(corpus).search(torch.tensor([[1.0, 0.0]]), SearchSettings.for_videos(options))
    assert list(found) == ["VR"]
    np.testing.assert_allclose(found["VR"][0], [[1, 0, 0, 0.6]], rtol=1e-6)


def test_equal_scores_go_to_the_earlier_video_then_start_then_end():
    start = torch.full((1, 3, 4), 0.5)
    end = torch.full((1, 3, 4), 0.5)
    end[0, 1, 2:] = -1  # the second video has two frames
    best = top_moments(start, end, min_pred_l=1, max_pred_l=3, count=8)
    order = [(0, 0, 1), (0, 0, 2), (0, 1, 2), (0, 1, 3), (0, 2, 3)]
    order += [(1, 0, 1), (2, 0, 1), (2, 0, 2)]
    found = torch.stack([best.row, best.first, best.last], dim=-1)
    assert [tuple(moment) for moment in found[0].tolist()] == order
    assert best.counts.tolist() == [8]


def test_equal_videos_are_listed_in_corpus_order():
    frames = torch.tensor([[1.0, 2.0]])
    other = torch.tensor([[2.0, 1.0]])
    corpus = {"a": other, "b": frames, "c": frames.repeat(2, 1), "d": frames, "e": other}
    found = index_of(corpus).search(
        torch.tensor([[0.0, 1.0]]), settings(tasks=("VR",), listed_videos=4)
    )
    assert found["VR"][0][:, 0].tolist() == [1, 2, 3, 0]


def test_moments_of_probability_zero_are_allowed_and_pairs_outside_the_bounds_are_not():
    start = torch.tensor([[[0.0, 1.0, 0.0]]])
    end = torch.tensor([[[0.0, 0.0, 1.0]]])
    best = top_moments(start, end, min_pred_l=1, max_pred_l=9, count=50)
    found = list(zip(best.first[0].tolist(), best.last[0].tolist()))[: int(best.counts)]
    assert found == [(1, 2), (0, 1), (0, 2)]


def test_a_search_does_not_depend_on_the_batch():
    corpus, (vectors, spans) = random_corpus([9, 4, 17, 9, 6]), random_queries(7)
    index, true_videos = index_of(corpus), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    together = index.search(vectors, settings(), spans, true_videos)
    for place in range(7):
        one = slice(place, place + 1)
        alone = index.search(
            vectors[one],
            settings(),
            spans[one],
            true_videos[one],
        )
        assert_same_lists(alone, {task: [together[task][place]] for task in ALL})


def test_settings_cut_lists_to_the_submission():
    options = SimpleNamespace(
        full_eval_tasks=["VR", "VCMR"],
        vfeat_interval=1.5,
        min_pred_l=2,
        max_pred_l=16,
        max_before_nms=200,
        max_after_nms=60,
        max_vcmr_video=150,
        q2c_alpha=20.0,
    )
    wanted = SearchSettings.for_moments(options)
    assert (wanted.listed_videos, wanted.listed_moments, wanted.searched_videos) == (60, 60, 150)
    options.max_after_nms = 1000
    wanted = SearchSettings.for_moments(options)
    assert (wanted.listed_videos, wanted.listed_moments) == (100, 200)


def test_weights_that_are_not_finite_are_named():
    index = index_of(random_corpus([3, 4]))
    with pytest.raises(UserError, match="not finite"):
        index.search(torch.full((1, HIDDEN), torch.nan), settings(tasks=("VR",)))


@pytest.mark.device
def test_a_device_finds_what_the_cpu_finds():
    corpus, (vectors, spans) = random_corpus([7, 3, 12, 7, 1, 9, 12]), random_queries(6)
    true_videos = torch.tensor([0, 1, 2, 3, 4, 5])
    expected = index_of(corpus).search(vectors, settings(), spans, true_videos)
    found = index_of({vid: frames.to(DEVICE) for vid, frames in corpus.items()}).search(
        vectors.to(DEVICE),
        settings(),
        spans.to(DEVICE),
        true_videos.to(DEVICE),
    )
    assert_same_lists(found, expected)
