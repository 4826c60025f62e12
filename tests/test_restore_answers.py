"""Killed question-answering and VIOLIN runs end like unbroken ones."""

import pytest

from tests.survival import assert_survives_kills


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "task"), [("train_videoQA.py", "tvqa"), ("train_violin.py", "violin")]
)
def test_a_killed_run_ends_like_the_unbroken_one(world, expected, tmp_path, script, task):
    databases = world / "txt_db"
    options = {
        "task": task,
        "train_query_txt_db": str(databases / f"{task}_train.db"),
        "val_query_txt_db": str(databases / f"{task}_val.db"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "train_batch_size": 1,
        "num_train_steps": 8,
        "valid_steps": 8,
        "restore_steps": 2,
        "n_workers": 1,
    }
    assert_survives_kills(script, options, tmp_path, kills=1)
