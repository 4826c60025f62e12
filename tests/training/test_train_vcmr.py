"""Training moment retrieval as a user does, in its variants, and evaluating what came out."""

import json

import numpy as np
import pytest
import torch

import eval_vcmr
import train_vcmr
from tests.support.recorded import saved
from tests.support.survival import assert_same_end
from tests.support.tvr_runs import train
from utils.errors import UserError


def test_a_run_leaves_its_files_and_evaluates_as_it_validated(tvr_options, tmp_path):
    metrics = train(tvr_options, tmp_path, nms_thd=0.5)
    run = tmp_path / "run"
    for name in ("hps.json", "model_config.json", "git_info.json", "log.txt", "metrics.jsonl"):
        assert (run / "log" / name).stat().st_size > 0, name
    assert list((run / "log").glob("events.out.tfevents.*"))
    state = torch.load(run / "ckpt" / "model_step_2.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    lines = [json.loads(line) for line in (run / "log" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/total", "learning_rate", "valid/VR/r1"} <= {line["name"] for line in lines}

    evaluated = eval_vcmr.main(
        ["--output_dir", str(run), "--checkpoint", "2", "--split", "val", "--n_workers", "0"]
    )
    assert evaluated == {k: v for k, v in metrics.items() if not k.startswith("loss/")}
    validated = json.loads((run / "results" / "results_2_all.json").read_text())
    assert saved(run, step="2") == validated
    assert (run / "results_val" / "results_2_all_nms_0.5.json").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"bf16": True},
        {"task": "didemo_video_only"},
        {"sampled_by_q": False},
        {"use_all_neg": False, "hard_negtiave_start_step": [0], "hard_pool_size": [2]},
        {"train_span_start_step": -1},
        {"optim": "adamax", "ranking_loss_type": "lse"},
        {"max_clip_len": 5, "sub_ctx_len": 2},
        {"checkpoint": None, "max_clip_len": -1},
        {"token_budget": 900},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_variants_train(tvr_options, tmp_path, changes):
    metrics = train(tvr_options, tmp_path, **changes)
    assert np.isfinite(metrics["loss/total"])
    assert 0 <= metrics["VR/r1"] <= 100


def test_activation_checkpointing_changes_nothing(tvr_options, tmp_path):
    weights = []
    for recompute in (False, True):
        folder = tmp_path / str(recompute)
        folder.mkdir()
        train(
            tvr_options,
            folder,
            activation_checkpointing=recompute,
            output_dir=str(folder / "run"),
        )
        weights.append(torch.load(folder / "run/ckpt/model_step_2.pt", weights_only=True))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_an_evaluation_can_ask_for_less(tvr_options, tmp_path, world):
    train(tvr_options, tmp_path)
    run = tmp_path / "run"
    metrics = eval_vcmr.main(
        [
            *("--output_dir", str(run), "--split", "val", "--n_workers", "0"),
            *("--checkpoint", str(run / "ckpt" / "model_step_2.pt")),
            *("--query_txt_db", str(world / "txt_db" / "tvr_val.db"), "--full_eval_tasks", "VR"),
        ]
    )
    assert metrics and all(name.startswith("VR") for name in metrics)
    assert (run / "results_val" / "results_model_step_2_all.json").exists()


def test_a_validation_that_fails_loses_no_training(tvr_options, tmp_path, monkeypatch):
    """The step before it is kept, and the restarted run ends like an unbroken one."""
    options = tvr_options | {"num_train_steps": 5, "restore_steps": 5, "n_workers": 0}
    config, whole, broken = tmp_path / "options.json", tmp_path / "whole", tmp_path / "broken"
    config.write_text(json.dumps(options))
    train_vcmr.main(["--config", str(config), "--output_dir", str(whole)])
    words = ["--config", str(config), "--output_dir", str(broken)]
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.retrieval_split.save_results", _fail)
        with pytest.raises(UserError, match="no space"):
            train_vcmr.main(words)
        point = torch.load(broken / "restore.pt", weights_only=True)
        assert point["step"] == 4 and not point["validated"]
    with (broken / "log" / "metrics.jsonl").open("a") as lines:  # as a kill may leave them
        lines.write('{"step": 4, "name": "valid/loss/total", "value": 1.0}\n')
    train_vcmr.main(words)
    assert_same_end(whole, broken, 5)


def _fail(*_: object, **__: object) -> None:
    raise UserError("no space")
