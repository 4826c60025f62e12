"""What a video item and a moment become, by hand."""

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from data.vcmr import moment_frames
from data.video import (
    Subtitle,
    SubtitleOnlySource,
    VideoItem,
    collate_videos,
    context_tokens,
    kept_frames,
)
from tests.support.recorded import recorded_source
from tests.support.small_world import SEP, WIDTH, make_source
from utils.errors import UserError

TEXTS = [[11], [12, 13], [], [14]]


@pytest.mark.parametrize(
    ("number", "context", "wanted"),
    [
        (0, 0, [2, 11]),
        (1, 0, [2, 12, 13]),
        (1, 1, [2, 11, 12, 13]),
        (3, 2, [2, 12, 13, 14]),
        (0, 2, [2, 11]),
        (2, 0, [2]),
    ],
)
def test_context_comes_before_with_one_separator(number, context, wanted):
    assert context_tokens(TEXTS, number, context, separator=2) == wanted


MATCHED = [(0, [0, 1]), (1, []), (2, [2, 3]), (3, []), (4, [4])]


def test_a_cut_drops_what_follows_the_first_loss():
    assert kept_frames(MATCHED, 5, -1) == kept_frames(MATCHED, 5, 5) == MATCHED
    assert kept_frames(MATCHED, 4, 4) == [(0, [0, 1]), (1, []), (2, [2, 3]), (3, [])]
    assert kept_frames(MATCHED, 3, 3) == [(0, [0, 1]), (1, []), (2, [2])]
    assert kept_frames(MATCHED, 2, 2) == [(0, [0, 1]), (1, [])]


def test_frames_that_features_lack_are_left_out_one_by_one():
    matched = [(0, [0, 3]), (1, [3]), (2, [1, 2]), (3, [9])]
    for cut in (-1, 10):  # max_clip_len takes none of them
        assert kept_frames(matched, 3, cut) == [(0, [0]), (1, []), (2, [1, 2]), (3, [])]
    # Features of 3 frames, the cut at 9: the last subtitle loses a frame to the cut, and all.
    assert kept_frames(matched, 3, 9) == [(0, [0]), (1, []), (2, [1, 2])]


def test_a_later_subtitle_reads_on_after_a_missing_frame():
    """Features shorter than the subtitles were matched to, in subtitles of any order."""
    subtitles = [([11], [0]), ([12], [5]), ([13], [1, 2])]
    source = make_source({"a": (3, subtitles)}, context=1)
    read = [(subtitle.tokens, subtitle.frames) for subtitle in source("a").subtitles]
    assert read == [([SEP, 11], [0]), ([SEP, 11, 12], []), ([SEP, 12, 13], [1, 2])]


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        (0.0, 3.0, (0, 1)),
        (3.1, 6.0, (2, 3)),
        (3.0, 3.2, (2, 3)),  # at least two frames
        (13.0, 14.9, (8, 9)),
        (14.0, 99.0, (9, 9)),
        (40.0, 45.0, (9, 9)),  # beyond the cut: the last frame
    ],
)
def test_a_moment_in_frames(start, end, wanted):
    assert moment_frames(start, end, interval=1.5, num_frames=10) == wanted


def test_packing_subtitles_over_frames_that_are_not_read():
    """Each frame gets the row of its subtitle's first token; the other sequence keeps its slots."""
    unseen = [Subtitle([0, 5], [0, 2], unseen=True), Subtitle([0], [], unseen=True)]
    features = np.zeros((3, 4), dtype=np.float32)
    seen = VideoItem("b", features[:2], [Subtitle([2, 6], [1])])
    batch = collate_videos([VideoItem("a", features, unseen), seen])
    subtitles = batch.subtitles
    assert subtitles.layout.lengths.tolist() == [2, 3]
    assert subtitles.token_ids.tolist() == [0, 5, 2, 6]
    assert subtitles.token_positions.tolist() == [0, 1, 0, 1]
    assert subtitles.slot_frames.tolist() == [4]
    order = subtitles.order[subtitles.layout.real]
    assert order.tolist() == [1, 2, 0, 3, 4]  # slots stand before all tokens
    # <s> of the first, the slot of the second: where the sequences begin
    assert subtitles.slot_rows.tolist() == subtitles.layout.offsets.tolist()
    assert subtitles.slot_targets.tolist() == [0, 2, 4]
    assert subtitles.slot_sources.tolist() == [0, 0, 1]
    assert subtitles.longest_slots == 1
    assert [subtitle.positions for subtitle in unseen] == [2, 0]


def test_packing_two_videos():
    def item(name, count, subtitles):
        return VideoItem(name, np.full((count, 4), count, dtype=np.float32), subtitles)

    first = item("a", 2, [Subtitle([2, 5], [0, 1]), Subtitle([2, 9], [])])
    second = item("b", 3, [Subtitle([2, 6, 7], [2])])
    batch = collate_videos([first, second])
    assert batch.features[:, 0].tolist() == [2, 2, 3, 3, 3]
    assert batch.frame_positions.tolist() == [0, 1, 0, 1, 2]
    subtitles = batch.subtitles
    assert subtitles.layout.lengths.tolist() == [4, 4]  # the subtitle without frames is left out
    assert subtitles.slot_frames.tolist() == subtitles.slot_targets.tolist() == [0, 1, 4]
    assert subtitles.slot_positions.tolist() == [0, 1, 0]
    assert subtitles.slot_rows.tolist() == [0, 1, 4]
    assert subtitles.token_ids.tolist() == [2, 5, 2, 6, 7]
    # rows of cat(slots, tokens) in sequence order: f f t t | f t t t
    assert subtitles.order.tolist() == [0, 1, 3, 4, 2, 5, 6, 7]


@pytest.mark.golden
@pytest.mark.parametrize(("max_clip_len", "context"), [(100, 0), (12, 2)])
def test_positions_are_those_that_are_packed(world, max_clip_len, context):
    source = recorded_source(world, max_clip_len, context)
    for vid in source.features.id2nframe:
        packed = collate_videos([source(vid)]).subtitles.layout.lengths.sum()
        assert source.positions(vid) == packed


def test_subtitles_alone_read_no_features(monkeypatch):
    with_features = make_source({"a": (5, [([11, 12], [0, 3]), ([13], [7])]), "b": (0, [])})
    source = SubtitleOnlySource(with_features.subtitles, with_features.features)
    with pytest.raises(UserError, match="video b has no frame"):
        source("b")
    monkeypatch.setattr(type(source.features), "__getitem__", None)  # reading would fail
    item = source("a")
    np.testing.assert_array_equal(item.features, np.zeros((5, WIDTH), np.float32))
    cls_id = source.subtitles.meta["CLS"]
    assert [s.tokens for s in item.subtitles] == [[cls_id, 11, 12], [cls_id, 13]]
    assert [s.frames for s in item.subtitles] == [[0, 3], []]
    assert all(subtitle.unseen for subtitle in item.subtitles)
    assert source.positions("a") == 3


def half_videos():
    rng = np.random.default_rng(0)
    return [
        VideoItem(name, rng.random((frames, 5)).astype(np.float16), [Subtitle([7, 8], [0, 1])])
        for name, frames in (("a", 3), ("b", 2))
    ]


def test_half_precision_travels_and_ends_on_the_device():
    items = half_videos()
    batch = collate_videos(items)
    assert batch.features.dtype == torch.float16
    moved = batch.to("cpu")
    assert moved.features.dtype == torch.float32 and batch.features.dtype == torch.float16
    wanted = np.concatenate([item.features for item in items]).astype(np.float32)
    np.testing.assert_array_equal(moved.features, wanted)
    assert moved.subtitles.slot_frames.dtype == torch.long


def test_single_and_half_precision_in_one_batch_are_single():
    first, second = half_videos()
    first.features = first.features.astype(np.float32)
    assert collate_videos([first, second]).features.dtype == torch.float32


@pytest.mark.parametrize("largest", [0, 1 << 20])
def test_a_batch_arrives_whole_in_another_process(monkeypatch, largest):
    """Small tensors by value, others in shared memory."""
    monkeypatch.setattr("utils.batch.LARGEST_BY_VALUE", largest)
    batch = collate_videos(half_videos())
    sent = bytes(ForkingPickler.dumps(batch))
    assert (batch.features.numpy().tobytes() in sent) == (largest > 0)
    again = pickle.loads(sent)
    assert torch.equal(again.features, batch.features) and again.vids == batch.vids
    for name in ("slot_frames", "slot_targets", "token_ids", "order"):
        values = getattr(again.subtitles, name)
        assert torch.equal(values, getattr(batch.subtitles, name))
    values += 1  # its own, and writable
    assert again.subtitles.longest_slots == 2
    assert torch.equal(again.layout.offsets, batch.layout.offsets)
    assert pickle.loads(pickle.dumps(again)).vids == batch.vids
