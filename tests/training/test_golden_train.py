"""Training steps of moment retrieval against the record."""

import pytest

from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from engine.trainer import Task
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import recorded_source, recorded_vcmr
from tests.support.recorded_runs import RecordedLoader, assert_recorded_run

pytestmark = [pytest.mark.golden, pytest.mark.device]


def test_tvr(expected, world, tmp_path):
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    model = recorded_vcmr(expected, schedule)
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, 12))
    task = Task(
        name="tvr",
        model=model,
        loader=RecordedLoader(data, collate_moments, batch_size=6),
        loss_weights={"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0},
        validate=lambda step: {},
        set_step=model.set_step,
    )
    assert_recorded_run(
        model, task, "tvr", expected, tmp_path, accumulation=2, rate=1e-4, lr_mul=1.0
    )
