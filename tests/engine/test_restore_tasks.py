"""Killed runs of every task end like unbroken ones (TVR: test_restore.py; pre-training: there)."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.recorded_captions import tvc_options
from tests.support.survival import assert_survives_kills

pytestmark = [pytest.mark.golden, pytest.mark.slow]

# Script, recorded databases and kills of each task; How2R and DiDeMo are trained as TVR is.
TASKS = {
    "tvqa": ("train_videoQA.py", "tvqa", 2),
    "violin": ("train_violin.py", "violin", 1),
    "msrvtt_video_sub": ("train_vr.py", "msrvtt", 2),
    "didemo_video_only": ("train_vcmr.py", "tvr", 1),
    "how2r": ("train_vcmr.py", "tvr", 1),
}


@pytest.fixture
def short_run(expected) -> dict[str, Any]:
    """Options of a few steps with a restore point in between."""
    return {
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "train_batch_size": 1,
        "num_train_steps": 12,
        "valid_steps": 6,
        "restore_steps": 2,
        "n_workers": 1,
        "vfeat_interval": 1.5,
    }


def query_options(task: str, world: Path) -> dict[str, Any]:
    """The task and its databases."""
    databases, queries = world / "txt_db", TASKS[task][1]
    subtitles = (
        {} if task.endswith("_video_only") else {"sub_txt_db": f"{databases}/tv_subtitles.db"}
    )
    return subtitles | {
        "task": task,
        "train_query_txt_db": f"{databases}/{queries}_train.db",
        "val_query_txt_db": f"{databases}/{queries}_val.db",
        "vfeat_db": str(world / "video_db" / "tv"),
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_ends_like_the_unbroken_one(world, short_run, tmp_path, task):
    script, _, kills = TASKS[task]
    assert_survives_kills(script, short_run | query_options(task, world), tmp_path, kills)


def test_captioning_that_is_killed(world, expected, short_run, tmp_path, fake_java):
    steps = {"valid_steps": 4, "restore_steps": 3}
    options = short_run | tvc_options(world, expected) | steps
    assert_survives_kills("train_tvc.py", options, tmp_path, kills=2)
    metrics = (tmp_path / "broken" / "log" / "metrics.jsonl").read_text()
    assert '"valid/METEOR", "value": 50.0' in metrics
