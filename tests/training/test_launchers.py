"""Every training and evaluation script on two ranks and on four, against one process.

One launch runs all scripts one after the other: interpreters and libraries are started once.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.launcher_options import BATCH, OBJECTIVES, STEPS, training_options
from tests.support.launching import launch
from tests.support.survival import REPOSITORY
from tests.support.workers.run_scripts import Command, run_scripts
from utils.files import read_json, read_jsonl, write_json

pytestmark = [pytest.mark.golden, pytest.mark.launcher, pytest.mark.slow]
pytestmark += [pytest.mark.usefixtures("plain_machine")]

TRAINING = {
    "tvr": "train_vcmr",
    "msrvtt": "train_vr",
    "tvqa": "train_videoQA",
    "violin": "train_violin",
    "tvc": "train_tvc",
    "pretraining": "pretrain",
    **dict.fromkeys(OBJECTIVES, "pretrain"),
}
EVALUATION = {
    "tvr": "eval_vcmr",
    "msrvtt": "eval_vr",
    "tvqa": "eval_videoQA",
    "violin": "eval_violin",
    "tvc": "inf_tvc",
}
RANKS = {"torch": 2, "horovod": 4}  # each launcher, and each number of ranks, once
TOLERANCE = 1e-5  # of parameters; a step moves some of them more than ten times as far


# --- what is run -----------------------------------------------------------------------------


def training_plan(configs: Path, runs: Path, batch: int) -> list[Command]:
    """Train every task."""
    return [train_command(task, configs, runs / task, batch) for task in TRAINING]


def train_command(task: str, configs: Path, run: Path, batch: int, *more: str) -> Command:
    words = ["--config", str(configs / f"{task}.json"), "--output_dir", str(run)]
    return TRAINING[task], [*words, "--train_batch_size", str(batch), *more]


def evaluation_plan(runs: Path, target: str) -> list[Command]:
    """Evaluate every task's run, into its ``results_val/``."""
    return [evaluation_command(task, runs / task, target) for task in EVALUATION]


def evaluation_command(task: str, run: Path, target: str) -> Command:
    words = ["--n_workers", "0", "--batch_size", "3"]
    if task == "tvc":
        output = str(run / "results_val" / "captions.jsonl")
        words += ["--model_dir", str(run), "--ckpt_step", "1"]
        return EVALUATION[task], [*words, "--target_clip", target, "--output", output]
    words += ["--output_dir", str(run), "--checkpoint", "1", "--split", "val"]
    return EVALUATION[task], words


def published_command(configs: Path, run: Path, batch: int, *more: str) -> Command:
    """Train a task that has ranking losses alone, with the default gradient."""
    return train_command("msrvtt", configs, run, batch, "--ranking_gradient", "published", *more)


def going_on(configs: Path, run: Path, batch: int) -> Command:
    """Train a finished run for some more steps."""
    longer = ("--num_train_steps", str(2 * STEPS), "--allow_changed_options")
    return train_command("tvr", configs, run, batch, *longer)


# --- one process, and several ranks under each launcher ----------------------------------------


@dataclass
class Finished:
    """What scripts left.

    Attributes:
        runs: a folder of run folders, by task.
        trained, evaluated: metrics by task.
        configs: a folder of the options that were trained with, by task.
        target: clips to caption.
        ranks: how many ran them.
    """

    runs: Path
    trained: dict[str, dict]
    evaluated: dict[str, dict]
    configs: Path
    target: str
    ranks: int = 1


@pytest.fixture(scope="module")
def single(world, expected, tmp_path_factory) -> Finished:
    """All scripts in this process."""
    folder = tmp_path_factory.mktemp("single")
    options = training_options(world, expected, folder)
    for task, values in options.items():
        write_json(folder / f"{task}.json", values)
    runs, target = folder / "runs", options["tvc"]["val_ref"]
    trained = run_scripts(training_plan(folder, runs, BATCH))
    evaluated = run_scripts(evaluation_plan(runs, target))
    by_task = dict(zip(TRAINING, trained)), dict(zip(EVALUATION, evaluated))
    return Finished(runs, *by_task, folder, target)


@pytest.fixture(scope="module")
def launcher(backend) -> str:
    return backend


@pytest.fixture(scope="module")
def several(launcher, single, tmp_path_factory) -> Finished:
    """All scripts on several ranks; one process's runs are evaluated, and one of them goes on."""
    ranks, folder = RANKS[launcher], tmp_path_factory.mktemp(launcher)
    for task in EVALUATION:
        copy_run(single.runs / task, folder / "evaluated" / task)
    copy_run(single.runs / "tvr", folder / "going_on")
    share = BATCH // ranks
    plan = [
        *training_plan(single.configs, folder / "runs", share),
        *evaluation_plan(folder / "evaluated", single.target),
        published_command(single.configs, folder / "published", share),
        going_on(single.configs, folder / "going_on", share),
    ]
    write_json(folder / "plan.json", plan)
    done = launch(launcher, "run_scripts.py", folder / "plan.json", folder, ranks=ranks)
    assert done.returncode == 0, done.stdout
    metrics, *others = (read_json(folder / f"{rank}.json") for rank in range(ranks))
    for of_rank in others:
        assert of_rank[len(TRAINING) : -2] == [{}] * len(EVALUATION)  # rank 0 alone scores
    by_task = dict(zip(TRAINING, metrics)), dict(zip(EVALUATION, metrics[len(TRAINING) :]))
    return Finished(folder / "runs", *by_task, single.configs, single.target, ranks)


def copy_run(run: Path, copy: Path) -> Path:
    """A run as training left it."""
    return shutil.copytree(run, copy, ignore=shutil.ignore_patterns("results_val"))


def assert_same_weights(run: Path, other: Path, step: int, moved_from: Path | None = None) -> None:
    """Checkpoints agree within the tolerance, and are not simply where they began."""
    name = f"ckpt/model_step_{step}.pt"
    mine, theirs = (torch.load(r / name, weights_only=True) for r in (run, other))
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=TOLERANCE, msg=key)
    if moved_from:
        start = torch.load(moved_from, weights_only=True)
        moved = max((mine[key] - start[key]).abs().max() for key in mine if key in start)
        assert moved > 10 * TOLERANCE


def gradient_norms(run: Path) -> list[float]:
    """Step by step, before clipping."""
    return logged(run, "grad_norm")


def logged(run: Path, name: str) -> list[float]:
    """Values of this name, step by step."""
    lines = read_jsonl(run / "log" / "metrics.jsonl")
    return [line["value"] for _, line in lines if line["name"] == name]


def result_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "results_val").iterdir()}


# --- tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TRAINING)
def test_every_training_script_finishes(several, launcher, task):
    run = several.runs / task
    assert {path.name for path in (run / "ckpt").iterdir()} == {
        f"model_step_{step}.pt" for step in range(1, STEPS + 1)
    }
    assert torch.load(run / "restore.pt", weights_only=True)["step"] == STEPS
    assert f"{several.ranks} rank(s) ({launcher}) on cpu" in (run / "log" / "log.txt").read_text()


@pytest.mark.parametrize("task", [task for task in TRAINING if task != "pretraining"])
def test_a_step_on_several_ranks_is_that_of_one_process(several, single, expected, task):
    start = expected / "pretrained.pt"
    ours, wanted = several.runs / task, single.runs / task
    assert_same_weights(ours, wanted, step=1, moved_from=start)
    # AdamW's steps hardly depend on the size of gradients.
    assert gradient_norms(ours)[0] == pytest.approx(gradient_norms(wanted)[0], rel=1e-4)


def test_published_gradient_of_ranking_losses(several, single):
    """By default it is that of one process, divided by the number of ranks."""
    ours = several.runs.parent / "published"
    wanted = gradient_norms(single.runs / "msrvtt")[0] / several.ranks
    assert gradient_norms(ours)[0] == pytest.approx(wanted, rel=1e-4)
    log = (ours / "log" / "log.txt").read_text()
    assert f"gradient of the ranking losses is divided by {several.ranks}" in log


def test_published_gradient_of_one_process_that_emulates_several(single, tmp_path):
    """A recipe of four GPUs: the mean over four batches, divided by four."""
    norms = {}
    for kind in ("published", "undivided"):
        words = ("--num_gpus_of_recipe", "4", "--ranking_gradient", kind)
        run_scripts([published_command(single.configs, tmp_path / kind, 2, *words)])
        norms[kind] = gradient_norms(tmp_path / kind)[0]
    assert norms["published"] == pytest.approx(norms["undivided"] / 4, rel=1e-5)
    logs = [(tmp_path / kind / "log" / "log.txt").read_text() for kind in norms]
    assert ["divided by 4" in log for log in logs] == [True, False]
    losses = [logged(tmp_path / kind, "loss/total")[0] for kind in norms]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # logged as they are


@pytest.mark.parametrize("task", TRAINING)
def test_validation_on_several_ranks_finds_the_losses_of_one_process(several, single, task):
    ours, wanted = several.trained[task], single.trained[task]
    assert ours.keys() == wanted.keys()
    losses = [name for name in wanted if "loss" in name]
    assert losses
    for name in losses:
        assert ours[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("task", EVALUATION)
def test_evaluation_on_several_ranks_writes_what_one_process_writes(several, single, task):
    files = result_files(single.runs / task)
    assert files
    assert result_files(several.runs.parent / "evaluated" / task) == files
    assert several.evaluated[task] == single.evaluated[task] != {}


def test_a_run_goes_on_with_another_number_of_ranks(several, single, tmp_path):
    ranks = several.ranks
    from_one = several.runs.parent / "going_on"  # went on with several
    from_several = copy_run(several.runs / "tvr", tmp_path / "from_several")
    unbroken = copy_run(single.runs / "tvr", tmp_path / "unbroken")
    run_scripts(going_on(single.configs, run, BATCH) for run in (from_several, unbroken))
    before = unbroken / "ckpt" / f"model_step_{STEPS}.pt"
    for run in (from_one, from_several):
        assert_same_weights(run, unbroken, step=2 * STEPS, moved_from=before)
    share = BATCH // ranks
    for run, was, now in (
        (from_one, (1, BATCH), (ranks, share)),
        (from_several, (ranks, share), (1, BATCH)),
    ):
        log = (run / "log" / "log.txt").read_text()
        assert f"the restore point is of {was[0]} ranks, now there are {now[0]}" in log
        assert f"train_batch_size: {was[1]} → {now[1]}" in log
    assert "now there are" not in (unbroken / "log" / "log.txt").read_text()


def typed(launcher: str, script: str, *words: str) -> subprocess.CompletedProcess:
    """Start a script on two ranks in the words of the README."""
    start = {
        "torch": ["torchrun", "--nproc-per-node", "2", f"{script}.py"],
        "horovod": ["horovodrun", "-np", "2", "python", f"{script}.py"],
    }
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PET_STANDALONE": "1",  # torchrun: any free port, others may be running
    }
    return subprocess.run(
        [*start[launcher], *words],
        cwd=REPOSITORY,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_as_users_type_it(launcher, single, tmp_path):
    """torchrun … train_vcmr.py; horovodrun … eval_vcmr.py."""
    run = tmp_path / "tvr"
    if launcher == "torch":
        script, words = train_command("tvr", single.configs, run, BATCH // 2)
    else:
        script, words = evaluation_command("tvr", copy_run(single.runs / "tvr", run), "")
    done = typed(launcher, script, *words, "--n_workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    if launcher == "torch":
        assert_same_weights(run, single.runs / "tvr", step=1)
        return
    assert result_files(run) == result_files(single.runs / "tvr")
    assert done.stdout.count("wrote ") == len(list(run.glob("results_val/results*")))


def test_a_mistake_of_all_ranks_is_said_once(launcher, tmp_path):
    config = tmp_path / "options.json"
    config.write_text('{"learning_rat": 1}')
    done = typed(launcher, "train_vcmr", "--config", str(config))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert said.count("error: ") == 1, said
    assert "learning_rate" in said
