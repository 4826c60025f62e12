"""Training steps of moment retrieval against the record."""

import pytest

from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import recorded_vcmr
from tests.support.recorded_runs import assert_recorded_run, tvr_task

pytestmark = [pytest.mark.golden, pytest.mark.device]


def test_tvr(expected, world, tmp_path):
    schedule = MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    model = recorded_vcmr(expected, schedule)
    task = tvr_task(model, world)
    assert_recorded_run(
        model, task, "tvr", expected, tmp_path, accumulation=2, rate=1e-4, lr_mul=1.0
    )
