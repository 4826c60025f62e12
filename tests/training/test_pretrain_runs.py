"""pretrain.py as a user runs it: learn, validate, be killed, hand over to fine-tuning."""

import json
import os
import re
import subprocess

import pytest
import torch

import pretrain
from config.config import PretrainOptions, parse_options
from config.model_config import ModelConfig
from data.stores.lmdb_io import FeatureDb
from model.checkpoint import load_weights, read_state_dict
from model.vcmr import HeroForVcmr
from tests.support.launching import launch_command
from tests.support.options_file import run_with
from tests.support.survival import REPOSITORY, assert_survives_kills
from utils.errors import UserError

pytestmark = pytest.mark.golden

OBJECTIVES = ["mlm", "mfm-nce", "mffr", "fom", "vsm"]


@pytest.fixture
def options(world, expected, tmp_path):
    """A short run on the recorded videos, all objectives alike."""
    vids = list(FeatureDb(world / "video_db" / "tv").id2nframe)
    (tmp_path / "train.json").write_text(json.dumps(vids[:-3]))
    (tmp_path / "val.json").write_text(json.dumps(vids))
    split = {"name": "all", "tasks": OBJECTIVES, "ratio": [1] * len(OBJECTIVES)}
    corpus = {
        "name": "tv",
        "sub_txt_db": str(world / "txt_db" / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "splits": [split | {"train_idx": "train.json", "val_idx": "val.json"}],
    }
    return {
        "targets": [corpus],
        "txt_db": str(tmp_path),
        "model_config": str(expected / "model_finetune.json"),
        "output_dir": str(tmp_path / "run"),
        "train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "num_train_steps": 9,
        "warmup_steps": 1,
        "valid_steps": 4,
        "restore_steps": 3,
        "log_steps": 1,
        "n_workers": 0,
        "drop_svmr_prob": 0.5,
    }


def run(options, tmp_path, **changes):
    return run_with(pretrain.main, options | changes, tmp_path)


def test_a_run_validates_and_its_weights_start_fine_tuning(options, expected, tmp_path):
    metrics = run(options, tmp_path)
    measures = {
        "mlm": {"loss", "acc"},
        "mfm-nce": {"loss", "acc", "l2", "cosine"},
        "mffr": {"loss", "l2", "cosine"},
        "fom": {"loss", "acc"},
        "vsm": {"loss", "st_ed", "neg_ctx", "neg_q"},
    }
    wanted = {f"{task}_tv_all/{name}" for task, names in measures.items() for name in names}
    assert set(metrics) == wanted
    vsm = {name: metrics[f"vsm_tv_all/{name}"] for name in measures["vsm"]}
    assert vsm["loss"] == pytest.approx(vsm["st_ed"] + vsm["neg_ctx"] + vsm["neg_q"])
    log = (tmp_path / "run" / "log" / "log.txt").read_text()
    assert all(f"{task}_tv_all" in log for task in OBJECTIVES) and "per second" in log
    for step in (4, 8, 9):
        model = HeroForVcmr(ModelConfig.from_json(expected / "model_finetune.json"))
        state = read_state_dict(tmp_path / "run" / "ckpt" / f"model_step_{step}.pt")
        report = load_weights(model, state)
        assert not (report.missing or report.new_heads or report.unexpected or report.grown)


def test_validation_masks_the_same_each_time(options, tmp_path):
    """A learning rate of almost nothing: validations before and after agree."""
    run(options, tmp_path, learning_rate=1e-12, num_train_steps=2, valid_steps=1)
    lines = (tmp_path / "run" / "log" / "metrics.jsonl").read_text().splitlines()
    values = {1: {}, 2: {}}
    for line in map(json.loads, lines):
        if line["name"].startswith("valid/"):
            values[line["step"]][line["name"]] = line["value"]
    assert values[1].keys() == values[2].keys() and values[1]
    for name, value in values[1].items():
        assert value == pytest.approx(values[2][name], rel=1e-4, abs=1e-4), name


def test_an_objective_is_learnt(options, tmp_path):
    """Words of a few videos can be learnt by heart."""
    options["targets"][0]["splits"][0] |= {"tasks": ["mlm"], "ratio": [1], "val_idx": "train.json"}
    metrics = run(options, tmp_path, num_train_steps=80, valid_steps=80, dropout=0.0)
    lines = (tmp_path / "run" / "log" / "metrics.jsonl").read_text().splitlines()
    losses = [line["value"] for line in map(json.loads, lines) if line["name"] == "loss/mlm"]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert metrics["mlm_tv_all/loss"] < losses[0]


def test_an_unknown_video_is_named(options, tmp_path):
    (tmp_path / "val.json").write_text('["nobody"]')
    with pytest.raises(UserError, match=r"val\.json \(first: nobody\)"):
        run(options, tmp_path)


@pytest.mark.slow
def test_a_killed_run_ends_like_the_unbroken_one(options, tmp_path):
    """Weights, moments, generators, metrics and the place in the mix: the tasks drawn next."""
    del options["output_dir"]
    assert_survives_kills("pretrain.py", options | {"n_workers": 1}, tmp_path, kills=1)
    points = [
        torch.load(tmp_path / run / "restore.pt", weights_only=True)["loader"]
        for run in ("whole", "broken")
    ]
    assert points[0] == points[1]
    assert points[0]["step"] == options["num_train_steps"]


@pytest.mark.slow
@pytest.mark.launcher
def test_two_ranks_draw_alike(options, tmp_path):
    """Ranks that drew different objectives would wait for each other forever, or fail."""
    config = tmp_path / "options.json"
    config.write_text(json.dumps(options | {"train_batch_size": 2, "num_train_steps": 12}))
    done = subprocess.run(
        [*launch_command("torch", 2), "pretrain.py", "--config", str(config)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "log" / "metrics.jsonl").read_text().splitlines()
    drawn = {name for line in lines if (name := json.loads(line)["name"]).startswith("loss/")}
    assert drawn >= {"loss/mlm", "loss/mfm-nce", "loss/mffr", "loss/fom", "loss/neg_q"}
    validated = {json.loads(line)["name"] for line in lines if '"valid/' in line}
    assert {f"valid/{task}_tv_all/loss" for task in OBJECTIVES} <= validated


def test_the_documented_configuration_is_one(tmp_path):
    text = (REPOSITORY / "docs" / "PRETRAINING.md").read_text(encoding="utf-8")
    (block,) = [
        block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "targets" in block
    ]
    config = tmp_path / "options.json"
    config.write_text(block)
    parsed = parse_options(PretrainOptions, ["--config", str(config), "--output_dir", "run"])
    tv, ht = parsed.corpora()
    assert tv.vfeat_db == "/video/tv" and tv.sub_txt_db == "/txt/tv_subtitles.db"
    assert ht.vfeat_shards == ["/video/ht_0", "/video/ht_1"]
    assert ht.splits[0].train_idx[1] == "/txt/pretrain_splits/ht_train_1.json"
