"""The mix of objectives: in proportion, the same on all ranks, taken up anywhere."""

import json
import math
import re
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config.config import PretrainOptions, parse_options
from data.loader import RankBatches, TrainLoader
from data.mix import MixedBatches, Part, TaskMix, part_seed
from data.pretraining import ShardedFeatures, collate_objective, make_parts, open_corpora
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from utils.batch import TensorBatch
from utils.errors import UserError


class Names:
    """Items tell their part, and what they drew."""

    def __init__(self, name, count):
        self.name, self.count = name, count

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        return self.name, *key


class Batch(TensorBatch, list):
    def to(self, device):
        return self


PARTS = [
    Part("a", Names("a", 11), 2.0),
    Part("b", Names("b", 5), 1.0),
    Part("c", Names("c", 7), 5.0),
]


def sampler(**arguments):
    return MixedBatches(PARTS, batch_size=2, seed=3, **arguments)


def make_loader(rank=0, size=1, accumulation=2, workers=0):
    options = SimpleNamespace(train_batch_size=2, seed=3, n_workers=workers, pin_mem=False)
    comm = SimpleNamespace(rank=rank, size=size)
    run = SimpleNamespace(options=options, comm=comm, device=torch.device("cpu"))
    batches = sampler(accumulation=accumulation, rank=rank, size=size)
    return TrainLoader(TaskMix(PARTS), Batch, run, batches)


def take(loader, count):
    return [list(next(loader)) for _ in range(count)]


def test_parts_are_drawn_in_proportion():
    steps = 5_000
    counts = Counter(map(sampler().draw, range(steps)))
    for part, share in enumerate((2 / 8, 1 / 8, 5 / 8)):
        assert abs(counts[part] - steps * share) < 5 * math.sqrt(steps * share * (1 - share))


def test_a_run_draws_what_it_always_drew():
    """Restore points count on it."""
    draw = sampler().draw
    assert [draw(step) for step in range(12)] == [0, 0, 2, 2, 0, 2, 2, 0, 2, 0, 2, 2]
    assert [draw(1024 + step) for step in range(12)] == [1, 2, 1, 2, 2, 2, 1, 2, 2, 2, 2, 1]


def test_the_batches_of_a_step_come_from_one_part():
    batches = take(make_loader(accumulation=3), 60)
    drawn = [batch[0][0] for batch in batches]
    assert all(len({name for name, *_ in batch}) == 1 for batch in batches)
    assert all(len(set(drawn[step : step + 3])) == 1 for step in range(0, 60, 3))
    assert len(set(drawn)) == 3


def test_a_part_may_have_its_own_batch_size():
    parts = [*PARTS[:2], Part("c", Names("c", 7), 5.0, batch_size=4)]
    sizes = Counter()
    for keys, _ in islice(MixedBatches(parts, 2, seed=3).batches({}), 60):
        assert len({key.part for key in keys}) == 1
        sizes[keys[0].part, len(keys)] += 1
    assert set(sizes) == {(0, 1), (0, 2), (1, 1), (1, 2), (2, 4), (2, 3)}


def test_each_part_goes_through_all_of_its_items():
    items = Counter()
    for batch in take(make_loader(), 400):
        items.update((name, index) for name, index, epoch in batch if epoch < 3)
    assert set(items.values()) == {3}
    assert len(items) == 11 + 5 + 7


def test_ranks_draw_the_same_part_and_share_its_items():
    ranks = [take(make_loader(rank, size=3), 80) for rank in range(3)]
    for batches in zip(*ranks, strict=True):
        assert len({batch[0][0] for batch in batches}) == 1
    whole = Counter(item for batch in ranks[0] + ranks[1] + ranks[2] for item in batch)
    done = {key for key in whole if key[2] == 0}
    assert done == {(p.name, i, 0) for p in PARTS for i in range(len(p.dataset))}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [2, 10, 2 * 1024 + 6])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_restored_loader_goes_on_exactly(workers, done, earlier):
    unbroken = make_loader(workers=0)
    take(unbroken, done)
    state = {"batches": done, "items": 2 * done} if earlier else unbroken.state_dict()
    restored = make_loader(workers=workers)
    restored.load_state_dict(json.loads(json.dumps(state)))
    assert take(restored, 30) == take(unbroken, 30)


def test_a_place_within_a_step_is_that_before_it():
    loader = make_loader(accumulation=3)
    step = take(loader, 9)[6:]
    restored = make_loader(accumulation=3)
    restored.load_state_dict(loader.state_dict())
    repeated = make_loader(accumulation=3)
    take(repeated, 8)
    repeated.load_state_dict(repeated.state_dict())
    assert take(repeated, 3) == step
    assert take(repeated, 5) == take(restored, 5)


@pytest.mark.parametrize("earlier", [False, True])
def test_another_number_of_ranks_goes_on_at_the_start_of_a_step(earlier):
    before = make_loader(rank=0, size=3)
    drawn = [batch[0][0] for batch in take(before, 40)]
    after = make_loader(rank=0, size=2, accumulation=3)
    before = make_loader(rank=0, size=3)
    taken = take(before, 6)
    after.load_state_dict({"batches": 6, "items": 36} if earlier else before.state_dict())
    batches = take(after, 51)
    assert [batch[0][0] for batch in batches[::3]] == drawn[6:40:2]
    done = {item for batch in taken for item in batch}
    assert not any(item in done for batch in batches for item in batch)


def test_a_part_that_is_new_starts_and_the_others_go_on():
    before = MixedBatches(PARTS[:2], batch_size=2, seed=3)
    _, place = next(islice(before.batches({}), 7, None))
    after = MixedBatches(PARTS, batch_size=2, seed=3)
    firsts = {}
    for keys, _ in islice(after.batches(place), 60):
        firsts.setdefault(keys[0].part, keys[0].item)
    assert firsts[2].index == RankBatches(7, 2, seed=part_seed(3, 2)).rows(0)[0, 0]


def write_features(folder, vids, width=4):
    with FeatureDbWriter(folder, interval=2) as db:
        for number, vid in enumerate(vids):
            db.put(vid, np.full((number + 2, width), number, dtype=np.float32))
    return FeatureDb(folder, interval=2)


def test_shards_are_read_as_one(tmp_path):
    shards = [write_features(tmp_path / "0", ["a", "b"]), write_features(tmp_path / "1", ["c"])]
    features = ShardedFeatures(shards)
    assert features.id2nframe == {"a": 2, "b": 3, "c": 2}
    assert features["b"].shape == (3, 4) and features["c"].shape == (2, 4)
    assert "c" in features and "d" not in features


def test_a_video_of_two_shards_is_read_from_the_first(tmp_path, caplog):
    first = write_features(tmp_path / "0", ["a", "b"])
    features = ShardedFeatures([first, write_features(tmp_path / "1", ["b", "c"])])
    assert features.id2nframe == {"a": 2, "b": 3, "c": 3}
    assert features["b"].tolist() == first["b"].tolist()
    assert "1 videos of" in caplog.text and "such as b" in caplog.text


def test_a_counted_video_without_features_is_not_available(tmp_path):
    shards = [write_features(tmp_path / "0", ["a"]), write_features(tmp_path / "1", ["b"])]
    shards[0].id2nframe["lost"] = 4
    features = ShardedFeatures(shards)
    assert "a" in features and "b" in features and "lost" not in features


def test_shards_that_do_not_fit_are_refused(tmp_path):
    first = write_features(tmp_path / "0", ["a", "b"])
    with pytest.raises(UserError, match="5 values wide"):
        ShardedFeatures([first, write_features(tmp_path / "2", ["c"], width=5)])


@pytest.fixture
def corpora_options(world, expected, tmp_path):
    """Two corpora of the recorded videos: one plain, one in two shards."""
    features = FeatureDb(world / "video_db" / "tv")
    vids = list(features.id2nframe)
    halves = [vids[: len(vids) // 2], vids[len(vids) // 2 :]]
    for number, half in enumerate(halves):
        with FeatureDbWriter(tmp_path / f"shard{number}") as db:
            for vid in half:
                db.put(vid, features[vid])
        (tmp_path / f"half{number}.json").write_text(json.dumps(half))
    subtitles = str(world / "txt_db" / "tv_subtitles.db")
    files = [str(tmp_path / f"half{number}.json") for number in range(2)]
    plain = {
        "name": "tv",
        "sub_txt_db": subtitles,
        "vfeat_db": str(world / "video_db" / "tv"),
        "splits": [
            {
                "name": "all",
                "tasks": ["mlm", "vsm"],
                "train_idx": files[0],
                "val_idx": files[1],
                "ratio": [3, 1],
            }
        ],
    }
    sharded = {
        "name": "ht",
        "sub_txt_db": subtitles,
        "vfeat_shards": [str(tmp_path / "shard0"), str(tmp_path / "shard1")],
        "splits": [
            {
                "name": "x",
                "tasks": ["fom", "mffr", "mfm-nce"],
                "train_idx": files,
                "val_idx": files[1],
                "ratio": [1, 1, 2],
            }
        ],
    }
    config = tmp_path / "options.json"
    options = {
        "targets": [plain, sharded],
        "targets_ratio": [2, 5],
        "model_config": str(expected / "model_finetune.json"),
        "output_dir": str(tmp_path / "run"),
    }

    def parse(**changes):
        config.write_text(json.dumps(options | changes))
        return parse_options(PretrainOptions, ["--config", str(config)])

    return parse


@pytest.mark.golden
def test_loaders_of_several_corpora(corpora_options):
    options = corpora_options()
    corpora = open_corpora(options)
    train = make_parts(corpora, options, train=True)
    assert {part.name: part.weight for part in train} == {
        "mlm_tv_all": 6,
        "vsm_tv_all": 2,
        "fom_ht_x": 5,
        "mffr_ht_x": 5,
        "mfm-nce_ht_x": 10,
    }
    halves = [len(corpus.source.features.id2nframe) for corpus in corpora]
    assert halves[0] == halves[1] == len(train[2].dataset)
    val = make_parts(corpora, options, train=False)
    assert [part.name for part in val] == [part.name for part in train]
    for part in train + val:
        batch = collate_objective([part.dataset[0], part.dataset[len(part.dataset) - 1]])
        assert batch.ids


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "hint"),
    [("fem", "did you mean fom?"), ("?", "there are mlm, mfm-nce, mffr, fom, vsm")],
)
def test_an_unknown_objective(corpora_options, name, hint):
    options = corpora_options()
    options.targets[0].splits[0].tasks[1] = name
    with pytest.raises(
        UserError, match=rf"unknown objective '{re.escape(name)}'; {re.escape(hint)}"
    ):
        make_parts(open_corpora(options), options, train=True)


@pytest.mark.golden
def test_a_list_of_the_wrong_shard_is_named(corpora_options, tmp_path):
    (tmp_path / "half1.json").write_text((tmp_path / "half0.json").read_text())
    options = corpora_options()
    with pytest.raises(UserError, match=r"half1\.json.*not in the feature database"):
        make_parts(open_corpora(options), options, train=True)


@pytest.mark.golden
@pytest.mark.parametrize("content", ["{}", "[]", "3"])
def test_a_split_that_is_no_list_of_names(corpora_options, tmp_path, content):
    (tmp_path / "half0.json").write_text(content)
    options = corpora_options()
    with pytest.raises(UserError, match=r"half0\.json is not a list of video names"):
        make_parts(open_corpora(options), options, train=True)


@pytest.mark.golden
def test_two_loaders_of_one_name(corpora_options):
    options = corpora_options()
    corpora = open_corpora(options)
    with pytest.raises(UserError, match="two loaders are called mlm_tv_all"):
        make_parts([corpora[0], corpora[0]], options, train=True)
