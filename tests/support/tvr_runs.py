"""Short TVR trainings through the script, as a user runs them, and what an untrained one leaves."""

import shutil
from pathlib import Path
from typing import Any

import torch

import eval_vcmr
import train_vcmr
from config.config import VcmrOptions, options_to_dict
from config.model_config import ModelConfig
from model.vcmr import HeroForVcmr
from tests.support.options_file import run_with
from utils.files import write_json


def train_and_evaluate(options: dict, folder: Path) -> tuple[Path, dict]:
    """Train two steps, validating after each, and evaluate the last checkpoint.

    Evaluation must give the last validation's metrics.

    Returns:
        The run's folder, and the metrics of the last validation.
    """
    short = {"num_train_steps": 2, "valid_steps": 1, "drop_svmr_prob": 0.0, "n_workers": 0}
    run = folder / "run"
    metrics = run_with(train_vcmr.main, options | short, folder)
    arguments = ["--output_dir", str(run), "--checkpoint", "2", "--split", "val"]
    evaluated = eval_vcmr.main([*arguments, "--n_workers", "0"])
    assert evaluated == {k: v for k, v in metrics.items() if not k.startswith("loss/")}
    return run, metrics


def make_run(folder: Path, options: dict, width: int) -> Path:
    """What a finished training leaves, with random weights: step 1."""
    options = options_to_dict(VcmrOptions(**options | {"output_dir": str(folder)}))
    write_json(folder / "log" / "hps.json", options)
    shutil.copy(options["model_config"], folder / "log" / "model_config.json")
    torch.manual_seed(0)
    model = HeroForVcmr(ModelConfig.from_json(options["model_config"]), width)
    (folder / "ckpt").mkdir()
    torch.save(model.state_dict(), folder / "ckpt" / "model_step_1.pt")
    return folder


def model_options(world: Path, expected: Path) -> dict:
    """Of a run whose databases are not those to be searched."""
    return {
        "train_query_txt_db": "gone",
        "val_query_txt_db": "gone",
        "sub_txt_db": "gone",
        "vfeat_db": "gone",
        "model_config": str(expected / "model_finetune.json"),
        "min_pred_l": 1,
    }


def train(options: dict, folder: Path, **changes: Any) -> dict:
    """Train two steps and return the metrics of the validation after them."""
    short = {"num_train_steps": 2, "valid_steps": 2, "restore_steps": 2, "n_workers": 0}
    return run_with(train_vcmr.main, options | short | changes, folder)
