"""Captioning in real processes: killed and restarted, and on two ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recorded_captions import install_fake_java, tvc_options
from tests.survival import assert_survives_kills, train_to_the_end
from utils.files import read_jsonl

pytestmark = [pytest.mark.golden, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[1]
TWO_RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(autouse=True)
def fake_java(tmp_path, monkeypatch):
    install_fake_java(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_killed_run_ends_like_the_unbroken_one(world, expected, tmp_path):
    options = tvc_options(world, expected) | {
        "num_train_steps": 8,
        "valid_steps": 4,
        "restore_steps": 3,
        "n_workers": 1,
    }
    assert_survives_kills("train_tvc.py", options, tmp_path, kills=1)
    metrics = (tmp_path / "broken" / "log" / "metrics.jsonl").read_text()
    assert '"valid/METEOR", "value": 50.0' in metrics


@pytest.mark.launcher
def test_two_ranks_write_what_one_writes(world, expected, tmp_path):
    options = tvc_options(world, expected) | {"num_train_steps": 1, "valid_steps": 1}
    config, run = tmp_path / "options.json", tmp_path / "run"
    config.write_text(json.dumps(options))
    train_to_the_end("train_tvc.py", config, run, "--n_workers", "0")
    output = tmp_path / "captions.jsonl"
    command = ["inf_tvc.py", "--model_dir", str(run), "--ckpt_step", "1", "--n_workers", "0"]
    command += ["--target_clip", options["val_ref"], "--output", str(output), "--batch_size", "1"]
    done = subprocess.run(
        [*TWO_RANKS, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == (run / "results" / "results_1_all.jsonl").read_bytes()
    assert len(list(read_jsonl(output))) == len(list(read_jsonl(options["val_ref"])))
    assert done.stdout.count("CIDEr") == 1
