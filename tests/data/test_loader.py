"""Order of the data: shared over ranks, taken up anywhere, the same for any number of workers."""

import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from data.loader import (
    BudgetBatches,
    ItemKey,
    RankBatches,
    TrainLoader,
    _on_device,
    evaluation_batches,
)
from tests.support import REPOSITORY
from tests.support.recorded import DEVICE
from utils.batch import TensorBatch
from utils.errors import UserError, run_main


class Numbers:
    """Items are (index, epoch, a number drawn at random)."""

    def __init__(self, count, bad=None):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if key.index == self.bad:
            raise UserError("item 3 of numbers.db is odd; fix it")
        return key.index, key.epoch, int(key.generator(seed=7).integers(1000))


class Batch(TensorBatch, list):
    def to(self, device):
        return self


def make_loader(count=10, batch_size=3, workers=0, rank=0, size=1, bad=None):
    options = SimpleNamespace(
        train_batch_size=batch_size, token_budget=None, seed=5, n_workers=workers, pin_mem=False
    )
    comm = SimpleNamespace(rank=rank, size=size)
    run = SimpleNamespace(options=options, comm=comm, device=torch.device("cpu"))
    return TrainLoader(Numbers(count, bad), Batch, run)


@dataclass
class Rows(TensorBatch):
    """Random numbers."""

    values: torch.Tensor


@pytest.mark.device
@pytest.mark.parametrize("pinned", [False, True])
def test_batches_arrive_whole_on_the_device_while_others_are_computed(pinned):
    """On a GPU the next one is copied by another stream, into memory that may be used again."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Rows(torch.randint(9, (size, 1000), generator=generator).half())
        for size in (300, 500, 200, 500, 300, 400) * 5
    ]
    pinned = pinned and DEVICE.type == "cuda"
    sent = [batch.pin_memory() for batch in batches] if pinned else batches
    found = []
    for batch in _on_device(iter(sent), DEVICE):
        assert batch.values.device.type == DEVICE.type and batch.values.dtype == torch.float32
        busy = batch.values @ batch.values.T  # what the device does while the next one comes
        found.append(batch.values.sum() + 0 * busy.sum())
    wanted = [batch.values.float().sum() for batch in batches]
    assert [total.item() for total in found] == [total.item() for total in wanted]


def take(loader, count):
    return [list(next(loader)) for _ in range(count)]


def endless(sampler, place=None):
    return (keys for keys, _ in sampler.batches(place or {}))


def test_an_epoch_holds_every_item_once():
    batches = take(make_loader(), 4)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    assert sorted(index for batch in batches for index, _, _ in batch) == list(range(10))


def test_epochs_differ_and_draw_anew():
    loader = make_loader(count=6, batch_size=6)
    first, second = take(loader, 2)
    assert [i for i, _, _ in first] != [i for i, _, _ in second]
    assert {epoch for _, epoch, _ in second} == {1}
    assert {(i, drawn) for i, _, drawn in first} != {(i, drawn) for i, _, drawn in second}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert take(make_loader(workers=workers), 6) == take(make_loader(workers=0), 6)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 3, 4, 5])  # an epoch has four batches
def test_going_on_from_a_saved_place(workers, done):
    loader = make_loader()
    expected = take(loader, 9)[done:]
    fresh = make_loader(workers=workers)
    saved = make_loader(workers=workers)
    take(saved, done)
    fresh.load_state_dict(saved.state_dict())
    assert take(fresh, 9 - done) == expected


@pytest.mark.parametrize("done", [2, 5, 9])
@pytest.mark.parametrize(("batch_size", "size"), [(4, 1), (1, 1), (2, 2), (1, 3)])
def test_going_on_with_another_batch_size_or_more_ranks_starts_at_the_same_item(
    done, batch_size, size
):
    whole = [item for batch in take(make_loader(count=12), 12) for item in batch]
    saved = make_loader(count=12)
    rest = whole[sum(map(len, take(saved, done))) :]
    ranks = [make_loader(12, batch_size, rank=rank, size=size) for rank in range(size)]
    for loader in ranks:
        loader.load_state_dict(saved.state_dict())
    # At the end of an epoch the order wraps around, so that no rank idles.
    taken = [item for _ in range(2) for loader in ranks for item in next(loader)]
    assert sorted(taken) == sorted(rest[: len(taken)])


def earlier_state(batches, batch_size, size=1):
    """The state that earlier restore points hold: all batches count as full ones."""
    return {"batches": batches, "items": batches * batch_size * size}


@pytest.mark.parametrize("done", [0, 2, 4, 5, 13])
def test_earlier_restore_points_go_on_exactly(done):
    expected = take(make_loader(), done + 4)[done:]
    fresh = make_loader()
    fresh.load_state_dict(earlier_state(done, batch_size=3))
    assert take(fresh, 4) == expected


def test_an_earlier_restore_point_goes_on_with_another_batch_size():
    fresh = make_loader(count=100, batch_size=3)
    fresh.load_state_dict(earlier_state(6, batch_size=4))
    assert fresh.state_dict() == {"epoch": 0, "items": 24}


def test_ranks_batches_make_up_one_process_batch():
    whole = RankBatches(20, 4, seed=3)
    parts = [RankBatches(20, 2, rank, 2, seed=3) for rank in range(2)]
    for batch, *shares in zip(endless(whole), *map(endless, parts), strict=False):
        assert {key.index for key in batch} == {key.index for share in shares for key in share}
        if batch[0].epoch == 1:
            break


def test_no_rank_idles_where_items_do_not_divide():
    parts = [RankBatches(7, 2, rank, 3, seed=3) for rank in range(3)]
    assert [list(part.ends(part.rows(0))) for part in parts] == [[2, 3]] * 3
    items = [index for part in parts for index in part.rows(0)[:, part.rank]]
    assert len(items) == 9 and set(items) == set(range(7))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_mistake_keeps_its_one_line(workers, capsys):
    loader = make_loader(count=4, batch_size=4, workers=workers, bad=3)
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: next(loader))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: item 3 of numbers.db is odd; fix it\n"


def test_evaluation_gives_each_rank_every_nth_batch():
    options = SimpleNamespace(n_workers=0, pin_mem=False)
    for rank, wanted in ((0, [[0, 1], [4]]), (1, [[2, 3]])):
        comm = SimpleNamespace(rank=rank, size=2, is_main=rank == 0)
        run = SimpleNamespace(options=options, comm=comm, device=torch.device("cpu"))
        batches = evaluation_batches(Numbers(5), Batch, 2, run)
        assert [[index for index, _, _ in batch] for batch in batches] == wanted


def test_a_loader_leaves_the_models_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(make_loader(workers=1), 2)
    assert torch.equal(torch.get_rng_state(), before)


class Threads(Numbers):
    """Items tell how many threads compute them."""

    def __getitem__(self, key):
        return torch.get_num_threads()


def test_a_worker_computes_with_one_thread():
    here = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loader = TrainLoader(Threads(2), Batch, make_loader(batch_size=2, workers=1).run)
        assert take(loader, 1) == [[1, 1]]
    finally:
        torch.set_num_threads(here)


def test_keys_accept_plain_indices():
    assert ItemKey.of(4) == ItemKey(4, 0)


POSITIONS = [5, 3, 9, 2, 2, 7, 4, 12, 1, 1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_budget_bounds_every_rank_and_all_do_the_same_steps(size):
    parts = [BudgetBatches(POSITIONS, 10, rank, size, seed=3) for rank in range(size)]
    assert len({tuple(part.ends(part.rows(0))) for part in parts}) == 1
    for part in parts:
        for batch in islice(endless(part), 20):
            assert sum(POSITIONS[key.index] for key in batch) <= 10 or len(batch) == 1
    items = [index for part in parts for index in part.rows(0)[:, part.rank]]
    assert set(items) == set(range(10))


def test_a_budget_fills_its_batches():
    part = BudgetBatches([4, 4, 4, 4, 4], 8)
    assert [len(batch) for batch in islice(endless(part), 3)] == [2, 2, 1]


@pytest.mark.parametrize("size", [1, 2])
def test_a_budgets_place_can_be_taken_up(size):
    def sampler():
        return BudgetBatches(POSITIONS, 10, 0, size, seed=3)

    batches = list(islice(sampler().batches({}), 12))
    for done in range(1, 11):
        _, place = batches[done - 1]
        assert list(islice(sampler().batches(place), 12 - done)) == batches[done:]
        items = sum(len(keys) for keys, _ in batches[:done]) * size
        earlier = TrainLoader(Numbers(10), Batch, make_loader().run, sampler())
        earlier.load_state_dict({"batches": done, "items": items})
        assert earlier.state_dict() == place


def test_a_place_survives_another_budget_and_fewer_items():
    _, place = next(BudgetBatches([4] * 5, 8).batches({}))
    assert [len(keys) for keys in islice(endless(BudgetBatches([4] * 5, 4), place), 4)] == [1] * 4
    keys = next(endless(RankBatches(3, 2), {"epoch": 0, "items": 4}))
    assert [key.epoch for key in keys] == [1, 1]


def test_a_worker_ends_with_a_parent_that_is_killed_while_it_starts():
    script = REPOSITORY / "tests" / "support" / "workers" / "killed_parent.py"
    run = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    try:
        # The worker shares the parent's error output, which ends with the last of them.
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == -9, errors
