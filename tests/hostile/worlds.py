"""Small databases of every task and trained models on them, made once and copied for each case."""

import atexit
import importlib
import shutil
import tempfile
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch

from config.config import TvcOptions, options_to_dict
from config.model_config import ModelConfig
from data.tokenize import load_tokenizer, special_ids
from model.tvc import HeroForTvc
from tests.conftest import GOLDEN
from tests.hostile.harness import Place
from tests.support.damaged_world import WIDTH, World
from utils.files import read_json, write_json

TOKER = GOLDEN / "world" / "toker"
ANNOTATIONS = GOLDEN / "world" / "ann"
TRAINING = {
    "tvr": "train_vcmr",
    "msrvtt_video_sub": "train_vr",
    "tvqa": "train_videoQA",
    "violin": "train_violin",
    "tvc": "train_tvc",
    "pretrain": "pretrain",
    "yc2r": "train_all_multitask",
    "vlep": "train_all_multitask",
    "yc2c": "train_all_multitask",
}
EVALUATION = {
    "tvr": "eval_vcmr",
    "msrvtt_video_sub": "eval_vr",
    "tvqa": "eval_videoQA",
    "violin": "eval_violin",
    "tvc": "inf_tvc",
    "yc2r": "eval_vr",
    "vlep": "eval_videoQA",
}
SHORT = {"num_train_steps": 1, "valid_steps": 1, "n_workers": 0}
SHORT |= {"train_batch_size": 2, "val_batch_size": 2}


@cache
def _templates() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _template(task: str) -> Path:
    """A folder with the databases of a task, and ``run``, a run that is finished after step 1."""
    folder = _templates() / task
    world = World(folder, task)
    world.options |= SHORT
    if task == "tvc":
        world.options["toker"] = str(TOKER)
    config = world.write()
    special = special_ids(load_tokenizer(str(TOKER)))
    for path in folder.rglob("meta.json"):
        write_json(path, read_json(path) | special)
    model = read_json(folder / "model.json")
    for block in model.values():
        block["vocab_size"] = len(read_json(TOKER / "vocab.json"))
    write_json(folder / "model.json", model)
    if task == "tvc":  # training would score captions with Java, which takes long to start
        _leave_captioning_run(folder, read_json(config))
    elif task != "yc2c":  # and so would that
        importlib.import_module(TRAINING[task]).main(["--config", str(config)])
    return folder


def _leave_captioning_run(folder: Path, config: dict) -> None:
    run = folder / "run"
    write_json(run / "log" / "hps.json", options_to_dict(TvcOptions(**config)))
    model_config = ModelConfig.from_json(folder / "model.json")
    shutil.copy(folder / "model.json", run / "log" / "model_config.json")
    (run / "ckpt").mkdir()
    torch.manual_seed(0)
    model = HeroForTvc(model_config, WIDTH)
    torch.save(model.state_dict(), run / "ckpt" / "model_step_1.pt")


def copy_world(place: Place, task: str = "tvr", left_out: str = "") -> Path:
    """The databases and the finished run of a task, in the case's folder.

    Args:
        place: the case's.
        task: the task.
        left_out: pattern of files that the case does not need.
    """
    template = _template(task)
    ignore = shutil.ignore_patterns(left_out, "events.out.*")
    shutil.copytree(template, place.folder, ignore=ignore, dirs_exist_ok=True)
    for path in (place.folder / "config.json", *place.folder.glob("run/log/hps.json")):
        path.write_text(path.read_text().replace(str(template), str(place.folder)))
    return place.folder


def without_scorers(place: Place) -> None:
    """Score no captions: Java takes seconds to start, and reads nothing that a case damages."""
    for module, name, value in (
        ("train_tvc", "try_scorers", None),
        ("evaluation.caption_split", "score_lines", {}),
    ):
        there = importlib.import_module(module)
        place.stack.enter_context(patch.object(there, name, return_value=value))


def training(place: Place, task: str = "tvr") -> list[object]:
    """Words of a training that begins again."""
    folder = copy_world(place, task, left_out="restore*.pt")
    if task == "tvc":
        without_scorers(place)
    return ["--config", folder / "config.json", "--output_dir", folder / "new"]


def resuming(place: Place, task: str = "tvr") -> list[object]:
    """Words of a training that goes on from ``run/restore.pt``."""
    return ["--config", copy_world(place, task) / "config.json"]


def evaluation(place: Place, task: str = "tvr") -> list[object]:
    """Words of an evaluation of ``run``."""
    folder = copy_world(place, task, left_out="restore*.pt")
    if task == "tvc":
        without_scorers(place)
        words = ["--model_dir", folder / "run", "--ckpt_step", 1, "--n_workers", 0]
        return [*words, "--target_clip", folder / "ref.jsonl", "--output", folder / "out.jsonl"]
    split = "dev" if task == "vlep" else "val"
    words = ["--output_dir", folder / "run", "--checkpoint", 1, "--split", split]
    return [*words, "--query_txt_db", folder / "val.db", "--n_workers", 0]


def search(place: Place) -> list[object]:
    """Words of a search in the videos of ``run``."""
    folder = copy_world(place)
    words = ["--run_dir", folder / "run", "--checkpoint", 1, "--toker", TOKER]
    return [*words, "--n_workers", 0, "--query", "A dog jumps."]
