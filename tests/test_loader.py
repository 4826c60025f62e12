"""Order of the data: shared over ranks, taken up anywhere, the same for any number of workers."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data.loader import (
    BudgetBatches,
    ItemKey,
    RankBatches,
    TrainLoader,
    evaluation_batches,
)
from utils.batch import TensorBatch
from utils.errors import UserError


class Numbers:
    """Items are (index, epoch, a number drawn at random)."""

    def __init__(self, count, bad=None):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if key.index == self.bad:
            raise UserError("item 3 of numbers.db is odd; mend it")
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


def take(loader, count):
    return [list(next(loader)) for _ in range(count)]


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


def test_going_on_from_a_saved_position():
    loader = make_loader()
    expected = take(loader, 9)[5:]
    fresh = make_loader()
    saved = make_loader()
    take(saved, 5)
    fresh.load_state_dict(saved.state_dict())
    assert take(fresh, 4) == expected


def test_going_on_with_another_batch_size_starts_at_the_same_item():
    saved = make_loader(count=100, batch_size=4)
    take(saved, 6)
    fresh = make_loader(count=100, batch_size=3)
    fresh.load_state_dict(saved.state_dict())
    assert fresh.batches == 8  # 24 items


def test_ranks_batches_make_up_one_process_batch():
    whole = RankBatches(20, 4, seed=3)
    parts = [RankBatches(20, 2, rank, 2, seed=3) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=False):
        assert {key.index for key in batch} == {key.index for share in shares for key in share}
        if batch[0].epoch == 1:
            break


def test_no_rank_idles_where_items_do_not_divide():
    parts = [RankBatches(7, 2, rank, 3, seed=3) for rank in range(3)]
    assert {part.per_epoch for part in parts} == {2}
    items = [index for part in parts for index in part.epoch_items(0)]
    assert len(items) == 9 and set(items) == set(range(7))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_mistake_keeps_its_one_line(workers):
    loader = make_loader(count=4, batch_size=4, workers=workers, bad=3)
    with pytest.raises(UserError, match=r"^item 3 of numbers\.db is odd; mend it$"):
        next(loader)


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


def test_keys_accept_plain_indices():
    assert ItemKey.of(4) == ItemKey(4, 0)


POSITIONS = [5, 3, 9, 2, 2, 7, 4, 12, 1, 1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_budget_bounds_every_rank_and_all_do_the_same_steps(size):
    parts = [BudgetBatches(POSITIONS, 10, rank, size, seed=3) for rank in range(size)]
    assert len({tuple(part.cuts(0)) for part in parts}) == 1
    for part in parts:
        for batch, _ in zip(part, range(20), strict=False):
            assert sum(POSITIONS[key.index] for key in batch) <= 10 or len(batch) == 1
    items = [index for part in parts for index in part.epoch_items(0)]
    assert set(items) == set(range(10))


def test_a_budget_fills_its_batches():
    part = BudgetBatches([4, 4, 4, 4, 4], 8)
    assert [len(batch) for batch, _ in zip(part, range(3), strict=False)] == [2, 2, 1]


def test_a_budgets_position_can_be_taken_up():
    batches = list(zip(range(12), BudgetBatches(POSITIONS, 10, seed=3), strict=False))
    for start in (0, 1, 5, 9):
        fresh = BudgetBatches(POSITIONS, 10, seed=3)
        fresh.start = start
        taken = list(zip(range(12 - start), fresh, strict=False))
        assert [batch for _, batch in taken] == [batch for _, batch in batches[start:]]
        items = sum(len(batch) for _, batch in batches[:start])
        assert fresh.items_in(start) == items and fresh.batches_for(items) == start


def test_a_worker_ends_with_a_parent_that_is_killed_while_it_starts():
    script = Path(__file__).parent / "workers" / "killed_parent.py"
    run = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    try:
        # The worker shares the parent's error output, which ends with the last of them.
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == -9, errors
