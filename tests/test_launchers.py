"""Every training and evaluation script on two ranks of either launcher, against one process.

One launch runs all scripts one after the other: interpreters and libraries are started once.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from data.lmdb_io import FeatureDb, TextDb
from data.loader import RankBatches
from data.tvc import CaptionDataset, CaptionDb
from data.videoQA import QuestionDataset
from data.violin import StatementDataset
from tests.recorded import recorded_source
from tests.recorded_captions import install_fake_java, tvc_options
from tests.survival import REPOSITORY
from tests.test_distributed import LAUNCHERS, launch
from tests.workers.run_scripts import Command, run_scripts
from utils.files import read_json, read_jsonl, write_json

pytestmark = [pytest.mark.golden, pytest.mark.launcher, pytest.mark.slow]

TRAINING = {
    "tvr": "train_vcmr",
    "msrvtt": "train_vr",
    "tvqa": "train_videoQA",
    "violin": "train_violin",
    "tvc": "train_tvc",
    "pretraining": "pretrain",
}
EVALUATION = {
    "tvr": "eval_vcmr",
    "msrvtt": "eval_vr",
    "tvqa": "eval_videoQA",
    "violin": "eval_violin",
    "tvc": "inf_tvc",
}
RANKS = 2
BATCH = 4  # of all ranks together
STEPS = 2  # the last one's learning rate is next to nothing
RATE = 1e-3
TOLERANCE = 1e-5  # of parameters; a step moves some of them more than ten times as far


# --- what is run -----------------------------------------------------------------------------


def equal_ranks_seed(dataset: Callable[[int], Any], size: Callable[[Any], object]) -> int:
    """A seed with which both ranks' first batches count alike.

    A loss is a mean over what a rank has of it (words of captions, questions with a span), and
    gradients are means over ranks: that is the mean over all only where ranks have equally many.

    Args:
        dataset: training items, by seed.
        size: what the losses of a batch are means over.
    """
    for seed in range(300):
        data = dataset(seed)
        batches = [
            next(iter(RankBatches(len(data), BATCH // RANKS, rank, RANKS, seed)))
            for rank in range(RANKS)
        ]
        first, second = (size(data.collate([data[key] for key in keys])) for keys in batches)
        if first == second:
            return seed
    raise AssertionError("no seed gives both ranks as many")


def training_options(world: Path, expected: Path, folder: Path) -> dict[str, dict]:
    """Options of a short training of every task; dropout is off, so that ranks can be compared."""
    databases, features = world / "txt_db", world / "video_db" / "tv"
    everywhere = {
        "dropout": 0.0,
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "gradient_accumulation_steps": 1,
        "learning_rate": RATE,
        "lr_mul": 1.0,
        "warmup_steps": 0,
        "log_steps": 1,
        "num_train_steps": STEPS,
        "valid_steps": STEPS,
        "save_steps": 1,
        "val_batch_size": 3,
        "n_workers": 0,
    }
    videos = {"sub_txt_db": str(databases / "tv_subtitles.db"), "vfeat_db": str(features)}

    def queries(name: str) -> dict[str, Any]:
        """Options of a task with query databases."""
        dbs = {f"{part}_query_txt_db": f"{databases}/{name}_{part}.db" for part in ("train", "val")}
        return everywhere | videos | dbs | {"vfeat_interval": 1.5}

    def train_db(name: str) -> TextDb:
        return TextDb(databases / f"{name}_train.db")

    source = recorded_source(world)
    questions = QuestionDataset(train_db("tvqa"), source, training=True)
    statements = StatementDataset(train_db("violin"), source, training=True)
    captions = CaptionDb(databases / "tvc_train.db")
    vids = list(FeatureDb(features).id2nframe)
    for name, chosen in (("train", vids[:-3]), ("val", vids)):
        write_json(folder / f"{name}.json", chosen)
    objectives = {"tasks": ["mlm", "mfm-nce", "mffr", "fom", "vsm"], "ratio": [1] * 5}
    split = objectives | {"name": "all", "train_idx": "train.json", "val_idx": "val.json"}
    searching = {"drop_svmr_prob": 0.0, "max_vcmr_video": 4, "nms_thd": 0.5}
    return {
        "tvr": queries("tvr") | searching | {"vcmr_eval_video_batch_size": 2},
        "msrvtt": queries("msrvtt"),
        "tvqa": queries("tvqa")
        | {"seed": equal_ranks_seed(lambda seed: questions, lambda batch: batch.counts)},
        "violin": queries("violin")
        | {"seed": equal_ranks_seed(lambda seed: statements, lambda batch: batch.counts)},
        "tvc": everywhere
        | tvc_options(world, expected)
        | {
            "max_cap_per_vid": 1,
            "seed": equal_ranks_seed(
                lambda seed: CaptionDataset(captions, source, 1, 60, seed),
                lambda batch: len(batch.targets),
            ),
        },
        # Its objectives' losses are means over what each rank has masked. Weights stay as they are,
        # so that validation can be compared.
        "pretraining": everywhere
        | {
            "targets": [{"name": "tv", "splits": [split]} | videos],
            "txt_db": str(folder),
            "learning_rate": 1e-12,
        },
    }


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


def going_on(configs: Path, run: Path, batch: int) -> Command:
    """Train a finished run for some more steps."""
    longer = ("--num_train_steps", str(2 * STEPS), "--allow_changed_options")
    return train_command("tvr", configs, run, batch, *longer)


# --- one process, and two ranks under each launcher --------------------------------------------


@dataclass
class Finished:
    """What scripts left.

    Attributes:
        runs: a folder of run folders, by task.
        trained, evaluated: metrics by task.
        configs: a folder of the options that were trained with, by task.
        target: clips to caption.
    """

    runs: Path
    trained: dict[str, dict]
    evaluated: dict[str, dict]
    configs: Path
    target: str


@pytest.fixture(scope="module", autouse=True)
def plain_machine(tmp_path_factory) -> Iterator[None]:
    """One CPU thread, no GPU, as the ranks have it; no Java, which takes long to start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        install_fake_java(tmp_path_factory.mktemp("java") / "bin", patch)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request) -> str:
    if request.param == "horovod":
        pytest.importorskip("horovod", reason="no Horovod: scripts/install_horovod.sh")
    return request.param


@pytest.fixture(scope="module")
def double(launcher, single, tmp_path_factory) -> Finished:
    """All scripts on two ranks; the runs of one process are evaluated, and one of them goes on."""
    folder = tmp_path_factory.mktemp(launcher)
    for task in EVALUATION:
        copy_run(single.runs / task, folder / "evaluated" / task)
    copy_run(single.runs / "tvr", folder / "going_on")
    share = BATCH // RANKS
    plan = [
        *training_plan(single.configs, folder / "runs", share),
        *evaluation_plan(folder / "evaluated", single.target),
        going_on(single.configs, folder / "going_on", share),
    ]
    write_json(folder / "plan.json", plan)
    done = launch(launcher, "run_scripts.py", folder / "plan.json", folder)
    assert done.returncode == 0, done.stdout
    metrics, others = (read_json(folder / f"{rank}.json") for rank in range(RANKS))
    assert others[len(TRAINING) : -1] == [{}] * len(EVALUATION)  # rank 0 alone scores
    by_task = dict(zip(TRAINING, metrics)), dict(zip(EVALUATION, metrics[len(TRAINING) :]))
    return Finished(folder / "runs", *by_task, single.configs, single.target)


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
    lines = read_jsonl(run / "log" / "metrics.jsonl")
    return [line["value"] for _, line in lines if line["name"] == "grad_norm"]


def result_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "results_val").iterdir()}


# --- tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TRAINING)
def test_every_training_script_finishes(double, launcher, task):
    run = double.runs / task
    assert {path.name for path in (run / "ckpt").iterdir()} == {
        f"model_step_{step}.pt" for step in range(1, STEPS + 1)
    }
    assert torch.load(run / "restore.pt", weights_only=True)["step"] == STEPS
    assert f"2 rank(s) ({launcher}) on cpu" in (run / "log" / "log.txt").read_text()


@pytest.mark.parametrize("task", [task for task in TRAINING if task != "pretraining"])
def test_a_step_on_two_ranks_is_that_of_one_process(double, single, expected, task):
    start = expected / "pretrained.pt"
    ours, wanted = double.runs / task, single.runs / task
    assert_same_weights(ours, wanted, step=1, moved_from=start)
    # AdamW's steps hardly depend on the size of gradients.
    assert gradient_norms(ours)[0] == pytest.approx(gradient_norms(wanted)[0], rel=1e-4)


@pytest.mark.parametrize("task", TRAINING)
def test_validation_on_two_ranks_finds_the_losses_of_one_process(double, single, task):
    ours, wanted = double.trained[task], single.trained[task]
    assert ours.keys() == wanted.keys()
    losses = [name for name in wanted if "loss" in name]
    assert losses
    for name in losses:
        assert ours[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("task", EVALUATION)
def test_evaluation_on_two_ranks_writes_what_one_process_writes(double, single, task):
    files = result_files(single.runs / task)
    assert files
    assert result_files(double.runs.parent / "evaluated" / task) == files
    assert double.evaluated[task] == single.evaluated[task] != {}


def test_a_run_goes_on_with_another_number_of_ranks(double, single, tmp_path):
    from_one = double.runs.parent / "going_on"  # went on with two
    from_two = copy_run(double.runs / "tvr", tmp_path / "from_two")
    unbroken = copy_run(single.runs / "tvr", tmp_path / "unbroken")
    run_scripts(going_on(single.configs, run, BATCH) for run in (from_two, unbroken))
    before = unbroken / "ckpt" / f"model_step_{STEPS}.pt"
    for run in (from_one, from_two):
        assert_same_weights(run, unbroken, step=2 * STEPS, moved_from=before)
    for run, ranks, batches in ((from_one, (1, 2), (4, 2)), (from_two, (2, 1), (2, 4))):
        log = (run / "log" / "log.txt").read_text()
        assert "the restore point is of {} ranks, now there are {}".format(*ranks) in log
        assert "train_batch_size: {} → {}".format(*batches) in log
    assert "now there are" not in (unbroken / "log" / "log.txt").read_text()


def test_as_users_type_it(launcher, single, tmp_path):
    """torchrun … train_vcmr.py; horovodrun … eval_vcmr.py."""
    run = tmp_path / "tvr"
    if launcher == "torch":
        script, words = train_command("tvr", single.configs, run, BATCH // RANKS)
        typed = ["torchrun", "--nproc-per-node", "2", f"{script}.py"]
    else:
        script, words = evaluation_command("tvr", copy_run(single.runs / "tvr", run), "")
        typed = ["horovodrun", "-np", "2", "python", f"{script}.py"]
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PET_STANDALONE": "1",  # torchrun: any free port, others may be running
    }
    done = subprocess.run(
        [*typed, *words],
        cwd=REPOSITORY,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if launcher == "torch":
        assert_same_weights(run, single.runs / "tvr", step=1)
        return
    assert result_files(run) == result_files(single.runs / "tvr")
    assert done.stdout.count("wrote ") == len(list(run.glob("results_val/results*")))
