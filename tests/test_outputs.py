"""Outputs that cannot be written are found before the work, by every script; full disks."""

import errno
import importlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.stores.lmdb_io import TextDbWriter
from data.stores.safetensors_io import SafetensorsWriter
from engine.restore import save_tensors
from tests.support import REPOSITORY
from utils.errors import NOBODY_READS, UserError, as_user_error
from utils.files import check_output, naming, write_json

NOBODY = 65534
LIMIT = 1 << 16  # bytes of a file

# Script → its command line; {} is the output, {nothing} an input that does not exist: that it is
# not missed shows that the output is looked at first.
FILES = {
    "scripts.check_data:json": "--script train_vcmr --config {recipe} --json {}",
    "scripts.check_data:fix_list": "--script train_vcmr --config {recipe} --fix-list {}",
    "scripts.convert_annotations": "--task how2r --annotation {nothing} --output {}",
    "scripts.convert_subtitles": "--input {nothing} --output {}",
    "scripts.cut_clips": "--annotation {nothing} --vid2nframe {nothing} --output {}",
    "scripts.format_submission": "--task tvr --results {nothing} --annotation {nothing} "
    "--output {}",
    "scripts.format_submission:value": "--benchmark value --results {nothing} --output {}",
    "scripts.format_submission:json": "--benchmark value --results {nothing} --score --json {}",
    "scripts.search_videos": "--run_dir {run} --checkpoint 9 --query hello "
    "--vfeat_db {nothing} --sub_txt_db {nothing} --output {}",
    "search_videos:json": "--index {nothing} --query hello --json {}",
    "search_videos:html": "--index {nothing} --query hello --html {}",
    "inf_tvc": "--model_dir {run} --ckpt_step 9 --target_clip {nothing} --vfeat_db {nothing} "
    "--sub_txt_db {nothing} --output {}",
}
CAPTIONS = "--target_clip {nothing} --vfeat_db {nothing} --sub_txt_db {nothing} --output {}"
TWO_RUNS = " ".join(
    f"--{stream}_only_model_dir {{run}} --{stream}_only_ckpt_step 9" for stream in ("video", "sub")
)
FILES |= {
    **dict.fromkeys(
        ("inf_yc2c", "inf_vatex_en_c"), f"--model_dir {{run}} --ckpt_step 9 {CAPTIONS}"
    ),
    **{
        f"two_stream_eval.inf_{name}": f"{TWO_RUNS} {CAPTIONS}"
        for name in ("tvc", "yc2c", "vatex_en_c")
    },
}
FOLDERS = {
    "scripts.collect_video_feature_paths": "--feature_dir {nothing} --output {} --dataset tv",
    "scripts.convert_video_db_single_feature": "--feature_dir {world}/feat/resnet_features "
    "--output {} --dataset tv",
    "scripts.convert_videodb": "--vfeat_db {world}/video_db/tv --output {} --dataset tv",
    "scripts.cut_clips:features": "--annotation {nothing} --vid2nframe {nothing} "
    "--vfeat_db {nothing} --clip_vfeat_db {} --output {free}",
    "scripts.demo": "--output {}",
    "scripts.drop_ids": "{world}/txt_db/tvr_val.db --list {drops} --output {}",
    "scripts.export_model": "--run {nothing} --output {}",
    "scripts.extract_features": "--video_dir {nothing} --random_weights --output {}",
    "scripts.make_demo_data": "--output {}",
    "scripts.make_demo_films": "--output {}",
    "scripts.make_pretrain_splits": "--name tv --sub_txt_db {nothing} --vfeat_db {nothing} "
    "--output {}",
    "scripts.prepare_data": "--dataset tvr --from raw --ann_dir {world}/ann --toker {nothing} "
    "--storage {}",
    "scripts.prepro_query": "--annotation {nothing} --toker {nothing} --output {}",
    "scripts.prepro_sub": "--annotation {nothing} --vid2nframe {nothing} --toker {nothing} "
    "--frame_length 1.5 --output {}",
    "scripts.prepro_tvc": "--annotation {nothing} --subtitles {nothing} --toker {nothing} "
    "--output {}",
    "index_videos": "--videos {nothing} --run {run} --checkpoint 9 --random_weights --index {}",
    "search_videos:clips": "--index {nothing} --query hello --clips {}",
    "train_vcmr": "--config {recipe} --output_dir {}",
    "train_vr": "--config {root}/config/train-msrvtt_video_sub-4gpu.json {model} --output_dir {}",
    "train_videoQA": "--config {root}/config/train-tvqa-8gpu.json {model} --output_dir {}",
    "train_violin": "--config {root}/config/train-violin-8gpu.json {model} --output_dir {}",
    "train_tvc": "--config {root}/config/train-tvc-8gpu.json {model} --output_dir {}",
    **dict.fromkeys(
        ("train_all_multitask", "train_retrieval", "train_qa", "train_captioning"),
        "--config {root}/config/value/train-yc2r-4gpu.json {model} --output_dir {}",
    ),
    "pretrain": "--config {root}/config/pretrain-tv-16gpu.json {model} --output_dir {}",
}
# Write into a run's folder: see test_evaluations below.
EVALUATIONS = {"eval_vcmr", "eval_vr", "eval_videoQA", "eval_violin"}
TWO_STREAM_EVALUATIONS = {f"two_stream_eval.{name}" for name in EVALUATIONS}
WITHOUT_OUTPUT = {"serve_search"}


def test_no_script_is_forgotten():
    folders = (REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "two_stream_eval")
    scripts = [path for folder in folders for path in folder.glob("*.py")]
    found = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in scripts
        if "run_main(main" in path.read_text(encoding="utf-8")
    }
    known = {name.partition(":")[0] for name in FILES | FOLDERS}
    assert found == known | EVALUATIONS | TWO_STREAM_EVALUATIONS | WITHOUT_OUTPUT


def file_for_a_folder(folder: Path) -> Path:
    (folder / "taken").write_text("a user's")
    return folder / "taken" / "output"


def long_name(folder: Path) -> Path:
    return folder / ("n" * 300)


def folder_for_a_file(folder: Path) -> Path:
    (folder / "output").mkdir()
    return folder / "output"


def nowhere(folder: Path) -> Path:
    """A file system that nobody can write to, root included."""
    return Path("/proc/self/output")


TROUBLES = {
    file_for_a_folder: r"taken needs a folder where there is a file",
    long_name: r"nnn is too long a name|nnn/.* is too long a name",
    nowhere: r"/proc/(self|\d+)",
}


@pytest.fixture
def words(tmp_path, world, expected) -> Callable[[str, Path], list[str]]:
    """The words of a command line."""
    (tmp_path / "drops.json").write_text('{"videos": []}')
    recipe = {"task": "tvr", "model_config": str(expected / "model_finetune.json")}
    databases = ("train_query_txt_db", "val_query_txt_db", "sub_txt_db", "vfeat_db")
    write_json(tmp_path / "recipe.json", recipe | dict.fromkeys(databases, "nothing"))
    write_json(tmp_path / "run" / "log" / "hps.json", recipe)
    shutil.copy(recipe["model_config"], tmp_path / "run" / "log" / "model_config.json")
    places = {
        "root": REPOSITORY,
        "world": world,
        "nothing": tmp_path / "nothing",
        "free": tmp_path / "free",
        "drops": tmp_path / "drops.json",
        "recipe": tmp_path / "recipe.json",
        "run": tmp_path / "run",
        "model": f"--model_config {recipe['model_config']}",
    }
    return lambda line, output: line.replace("{}", str(output)).format(**places).split()


def refuse(script: str, arguments: list[str], said: str, folder: Path) -> None:
    """The script refuses, and leaves everything as it was."""
    before = sorted(folder.rglob("*"))
    main = importlib.import_module(script.partition(":")[0]).main
    with pytest.raises((OSError, UserError)) as refused:
        main(arguments)
    line = str(as_user_error(refused.value))
    assert re.search(said, line) and "\n" not in line and len(line) < 500
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
@pytest.mark.parametrize("script", FILES | FOLDERS)
def test_an_output_that_cannot_be_written(words, tmp_path, script, trouble):
    arguments = words((FILES | FOLDERS)[script], trouble(tmp_path))
    refuse(script, arguments, TROUBLES[trouble], tmp_path)


@pytest.mark.parametrize("script", FILES)
def test_a_folder_in_the_place_of_a_file(words, tmp_path, script):
    arguments = words(FILES[script], folder_for_a_file(tmp_path))
    refuse(script, arguments, "output is a folder, where a file belongs", tmp_path)


@pytest.mark.parametrize("script", FILES)
def test_a_device_is_never_replaced(words, tmp_path, script):
    refuse(script, words(FILES[script], Path("/dev/null")), "/dev/null is no file", tmp_path)


@pytest.mark.parametrize(
    "script", sorted((FILES | FOLDERS).keys() - {"scripts.cut_clips:features"})
)
def test_an_empty_name(words, tmp_path, monkeypatch, script):
    """As ``--output "$OUT"`` is where the variable is not set: not the current folder."""
    monkeypatch.chdir(tmp_path)
    arguments = words((FILES | FOLDERS)[script], Path("EMPTY"))
    arguments = ["" if word == "EMPTY" else word for word in arguments]
    refuse(script, arguments, "the name of an output is empty", tmp_path)


@pytest.mark.parametrize("name", ["ckpt", "results", "log"])
def test_a_file_in_the_place_of_a_runs_folder(words, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).touch()
    arguments = words(FOLDERS["train_vcmr"], tmp_path / "mine")
    refuse("train_vcmr", arguments, f"mine/{name} needs a folder", tmp_path)


@pytest.mark.parametrize("name", ["restore.pt", "log/metrics.jsonl", "log/hps.json"])
def test_a_folder_in_the_place_of_a_runs_file(words, tmp_path, name):
    (tmp_path / "mine" / name).mkdir(parents=True)
    arguments = words(FOLDERS["train_vcmr"], tmp_path / "mine")
    refuse("train_vcmr", arguments, name, tmp_path)


# --------------------------------------------------------------------------------------------------
# Permissions
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only():
    """A folder that this process, which is nobody's for the time, cannot write to."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    (folder / "run").mkdir()
    folder.chmod(0o555)
    (folder / "run").chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    yield folder
    if was_root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["file", "new/folder/file", "run/file"])
def test_a_folder_of_somebody_else(read_only, name):
    with pytest.raises(PermissionError) as refused:
        check_output(read_only / name)
    assert f"permission denied: {read_only / name}" in str(as_user_error(refused.value))


# --------------------------------------------------------------------------------------------------
# Full disks: the limit of a file's size has libraries say the same as a full disk has
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def limited():
    """No file may be larger than ``LIMIT``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_texts(folder: Path) -> None:
    with TextDbWriter(folder) as db:
        db.put_value("a", bytes(2 * LIMIT))


def write_arrays(folder: Path) -> None:
    with SafetensorsWriter(folder) as db:
        db.put_value("a", np.zeros(LIMIT))


WRITERS = {
    "PyTorch": lambda path: save_tensors(path, torch.zeros(LIMIT)),
    "JSON": lambda path: write_json(path, "x" * 2 * LIMIT),
    "LMDB": write_texts,
    "safetensors": write_arrays,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_library_that_cannot_write(limited, tmp_path, writer):
    (tmp_path / "other").touch()
    with pytest.raises(OSError) as refused:
        WRITERS[writer](tmp_path / "output")
    assert refused.value.errno == errno.EFBIG
    assert f"{tmp_path / 'output'} would be larger" in str(as_user_error(refused.value))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_error_of_another_kind_stays_what_it_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KeyError), naming(tmp_path, tmp_path / "file"):
        raise KeyError("x")
    with pytest.raises(FileNotFoundError) as other, naming(tmp_path, tmp_path / "file"):
        Path("/nowhere/input").read_text()
    assert other.value.filename == "/nowhere/input"
    assert as_user_error(KeyError("x")) is None
    assert as_user_error(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_an_error_of_a_loading_process():
    """PyTorch gives the error's kind and its text alone."""
    text = "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most "
    text += "recent call last):\n  …\nFileNotFoundError: [Errno 2] No such file: 'a.npz'\n"
    assert str(as_user_error(FileNotFoundError(text))) == text.splitlines()[-1]
    assert str(as_user_error(OSError("no connection\nmore"))) == "no connection"


def test_what_a_full_disk_is_called(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))
    assert str(as_user_error(error)) == (
        f"no space left on the disk of {tmp_path}: free some and run the same command again"
    )


def run(*words: object, **how: object) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, words)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run(command, cwd=REPOSITORY, text=True, check=False, **how)


def test_a_script_says_one_line(tmp_path, world):
    annotation, output = world / "ann" / "tv_subtitles.jsonl", file_for_a_folder(tmp_path)
    ended = run("scripts/convert_subtitles.py", "--input", annotation, "--output", output)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"error: {tmp_path / 'taken'} needs a folder")


@pytest.fixture
def listing(world, tmp_path) -> list:
    """A command that prints something."""
    options = ("--ann_dir", world / "ann", "--storage", tmp_path, "--graph")
    return ["scripts/prepare_data.py", "--dataset", "tvr", "--from", "raw", *options]


def test_a_full_standard_output(listing):
    with Path("/dev/full").open("w") as full:
        ended = run(*listing, stdout=full)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no space left") and ended.stderr.count("\n") == 1


@pytest.mark.parametrize("both", [False, True])
def test_an_output_that_nobody_reads(listing, both):
    """Like ``| head``: the reader is gone before anything is said."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": writer} | ({"stderr": writer} if both else {})
    ended = run(*listing, **streams)
    os.close(writer)
    assert ended.returncode == NOBODY_READS and not ended.stderr


# --------------------------------------------------------------------------------------------------
# Evaluations
# --------------------------------------------------------------------------------------------------


RUNS = {
    "eval_vcmr": ("exp_tvr", "tvr_val.db", "--vcmr_eval_video_batch_size 2"),
    "eval_vr": ("exp_msrvtt_video_sub", "msrvtt_val.db", ""),
    "eval_videoQA": ("exp_tvqa", "tvqa_val.db", ""),
    "eval_violin": ("exp_violin", "violin_val.db", ""),
}


@pytest.mark.golden
@pytest.mark.parametrize("script", sorted(EVALUATIONS))
def test_evaluations(world, expected, tmp_path, monkeypatch, script):
    """The model is never asked: its place is taken by nothing at all."""
    name, queries, more = RUNS[script]
    shutil.copytree(expected / name, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "results_val", ignore_errors=True)
    (tmp_path / "run" / "results_val").touch()
    module = "eval_vcmr" if script in ("eval_vcmr", "eval_vr") else "eval_videoQA"
    monkeypatch.setattr(f"{module}.build_for_evaluation", lambda *_: None)
    databases = f"--query_txt_db {world}/txt_db/{queries} --vfeat_db {world}/video_db/tv "
    databases += f"--sub_txt_db {world}/txt_db/tv_subtitles.db --vfeat_interval 1.5"
    arguments = f"--output_dir {tmp_path}/run --checkpoint 1 --n_workers 0 {databases} {more}"
    refuse(script, arguments.split(), "results_val needs a folder", tmp_path)


def test_to_look_is_no_change(tmp_path):
    """Steps of preparation compare when folders changed."""
    os.utime(tmp_path, ns=(10**18, 10**18))
    check_output(tmp_path / "new", tmp_path / "deep" / "new")
    assert tmp_path.stat().st_mtime_ns == 10**18 and not any(tmp_path.iterdir())
