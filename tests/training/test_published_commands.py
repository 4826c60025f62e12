"""Every command line of the published user guide, and what its users type besides, run on few data.

What is replaced in a command, and nothing else:
- ``/txt``, ``/video``, ``/storage``, ``/pretrain`` and ``$PATH_TO_STORAGE`` are folders of a
  temporary storage; such paths in a recipe are typed as options. ``/storage`` is ``finetune`` where
  a command trains, ``downloaded`` (recorded runs) where it evaluates;
- other ``$VARIABLES`` are what ``VARIABLES`` says;
- ``-np N`` is 2, and all horovodrun commands share one launch (interpreters start once), plain
  ``python`` ones this process;
- trainings are told to take two short steps of a small model (``SHORT``).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from data.stores.lmdb_io import FeatureDb, TextDb
from tests.support import REPOSITORY, THEIRS
from tests.support.containers import Shell, mounts
from tests.support.launching import launch
from tests.support.rankings import assert_same_ranking
from tests.support.small_mirror import write_mirror
from tests.support.workers.run_scripts import Command, run_scripts
from utils.files import read_json, read_jsonl, write_json

pytestmark = [pytest.mark.golden, pytest.mark.slow, pytest.mark.usefixtures("plain_machine")]


# Command → folder of its run.
TRAINING = {
    "horovodrun -np 8 python train_vcmr.py --config config/train-tvr-8gpu.json": "tvr_default",
    "horovodrun -np 8 python train_videoQA.py --config config/train-tvqa-8gpu.json "
    "--output_dir $TVQA_EXP": "tvqa",
    "horovodrun -np 8 python train_tvc.py --config config/train-tvc-8gpu.json "
    "--output_dir $TVC_EXP": "tvc",
    "horovodrun -np 8 python train_violin.py --config config/train-violin-8gpu.json "
    "--output_dir $VIOLIN_EXP": "violin",
    "horovodrun -np 4 python train_vcmr.py --config config/train-didemo_video_only-4gpu.json "
    "--output_dir $DIDEMO_EXP": "didemo",
    "horovodrun -np 8 python train_vcmr.py --config config/train-didemo_video_sub-8gpu.json": (
        "didemo_video_sub_default"
    ),
    "horovodrun -np 4 python train_vr.py --config config/train-msrvtt_video_only-4gpu.json "
    "--output_dir $MSRVTT_EXP": "msrvtt",
    "horovodrun -np 4 python train_vr.py --config config/train-msrvtt_video_sub-4gpu.json": (
        "msrvtt_video_sub_default"
    ),
    "horovodrun -np 16 python pretrain.py --config config/pretrain-tv-16gpu.json "
    "--output_dir $PRETRAIN_EXP": "pretrain",
}
# Command → file that it writes, and the recorded one.
EVALUATION = {
    "horovodrun -np 8 python eval_vcmr.py --query_txt_db /txt/tvr_val.db/ --split val "
    "--vfeat_db /video/tv/ --sub_txt_db /txt/tv_subtitles.db/ "
    "--output_dir /storage/tvr_default/ --checkpoint 4800 --fp16 --pin_mem": (
        "tvr_default/results_val/results_4800_all_nms_0.5.json",
        "exp_tvr/results_val/results_1_all.json",
    ),
    "horovodrun -np 8 python eval_vcmr.py --query_txt_db /txt/tvr_test_public.db/ "
    "--split test_public --vfeat_db /video/tv/ --sub_txt_db /txt/tv_subtitles.db/ "
    "--output_dir /storage/tvr_default/ --checkpoint 4800 --fp16 --pin_mem": (
        "tvr_default/results_test_public/results_4800_all.json",
        "exp_tvr/results_test_public/results_1_all.json",
    ),
    "horovodrun -np 8 python eval_videoQA.py --query_txt_db /txt/tvqa_test_public.db/ "
    "--split test_public --vfeat_db /video/tv/ --sub_txt_db /txt/tv_subtitles.db/ "
    "--output_dir $TVQA_EXP --checkpoint $ckpt --pin_mem --fp16": (
        "tvqa/results_test_public/results_10000_all.json",
        "exp_tvqa/results_val/results_1_all.json",
    ),
}
CAPTIONING = (
    "python inf_tvc.py --model_dir $TVC_EXP --ckpt_step 7000 "
    "--target_clip /txt/tvc_val_release.jsonl --output tvc_val_output.jsonl"
)
FEATURES = (
    "python scripts/collect_video_feature_paths.py "
    "--feature_dir $PATH_TO_STORAGE/feature_output_dir "
    "--output $PATH_TO_STORAGE/video_db --dataset $DATASET_NAME",
    "python scripts/convert_videodb.py "
    "--vfeat_info_file $PATH_TO_STORAGE/video_db/$DATASET_NAME/video_feat_info.pkl "
    "--output $PATH_TO_STORAGE/video_db --dataset $DATASET_NAME --frame_length 1.5",
)
# Command → a file that it leaves in the storage.
DOWNLOADS = {
    f"bash scripts/download_{name}.sh $PATH_TO_STORAGE": file
    for name, file in {
        "pretrained": "pretrained/hero-tv-ht100.pt",
        "tvr": "finetune/tvr_default/log/hps.json",
        "tvqa": "txt_db/tvqa_test_public.db/data.mdb",
        "tvc": "txt_db/tvc_val_release.jsonl",
        "violin": "txt_db/violin_test.db/data.mdb",
        "didemo": "txt_db/didemo_test.db/data.mdb",
        "msrvtt": "txt_db/msrvtt_test.db/data.mdb",
        "tv_pretrain": "pretrained/pretrain-tv-init.bin",
    }.items()
}
CREATE_TXTDB = "bash scripts/create_txtdb.sh $PATH_TO_STORAGE/txt_db $PATH_TO_STORAGE/ann"
CONTAINER = (
    "source launch_container.sh $PATH_TO_STORAGE/txt_db $PATH_TO_STORAGE/video_db "
    "$PATH_TO_STORAGE/finetune $PATH_TO_STORAGE/pretrained"
)

VARIABLES = {
    "TVQA_EXP": "/storage/tvqa",
    "TVC_EXP": "/storage/tvc",
    "VIOLIN_EXP": "/storage/violin",
    "DIDEMO_EXP": "/storage/didemo",
    "MSRVTT_EXP": "/storage/msrvtt",
    "PRETRAIN_EXP": "/storage/pretrain",
    "ckpt": "10000",
    "DATASET_NAME": "tv",
}
FOLDERS = {"txt": "txt_db", "video": "video_db", "pretrain": "pretrained"}
SHORT = {
    "num_train_steps": 2,
    "warmup_steps": 1,
    "valid_steps": 2,
    "save_steps": 2,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "n_workers": 0,
    "log_steps": 1,
}


# --- the storage -------------------------------------------------------------------------------


def link(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def write_storage(storage: Path, world: Path, expected: Path) -> None:
    """The recorded world under the names that recipes and commands read."""
    texts = {f"{corpus}_subtitles": "tv_subtitles" for corpus in ("tv", "violin", "didemo")}
    for name in ("violin", "msrvtt", "didemo"):
        of = "tvr" if name == "didemo" else name
        texts |= {f"{name}_{split}": f"{of}_{split}" for split in ("train", "val")}
        texts |= {f"{name}_test": f"{of}_val"}
    for name in ("tvr_train", "tvr_val", "tvr_test_public", "tvqa_train", "tvqa_val"):
        texts[name] = name
    texts |= {"tvc_train": "tvc_train", "tvc_val": "tvc_val"}
    for name, source in texts.items():
        link(storage / "txt_db" / f"{name}.db", world / "txt_db" / f"{source}.db")
    hide_answers(world / "txt_db" / "tvqa_val.db", storage / "txt_db" / "tvqa_test_public.db")
    two_seconds_a_frame(world / "txt_db/tv_subtitles.db", storage / "txt_db/msrvtt_subtitles.db")
    link(storage / "world" / "toker", world / "toker")  # as the captions' databases call it
    link(storage / "txt_db" / "tvc_val_release.jsonl", world / "ann" / "tvc_val.jsonl")
    features = world / "video_db" / "tv"
    for corpus in ("tv", "violin", "didemo"):
        link(storage / "video_db" / corpus, features)
    link(storage / "video_db" / "msrvtt" / "resnet_slowfast_2", features / "resnet_slowfast_1.5")
    link(storage / "video_db" / "msrvtt" / "id2nframe.json", features / "id2nframe.json")
    vids = list(FeatureDb(features).id2nframe)
    write_json(storage / "txt_db" / "pretrain_splits" / "tv_train.json", vids[:-3])
    write_json(storage / "txt_db" / "pretrain_splits" / "tv_val.json", vids[-3:])
    link(storage / "pretrained" / "hero-tv-ht100.pt", expected / "pretrained.pt")
    sizes = read_json(expected / "model_finetune.json")["f_config"] | {"num_hidden_layers": 12}
    roberta = RobertaForMaskedLM(RobertaConfig(**sizes))
    torch.save(roberta.state_dict(), storage / "pretrained" / "pretrain-tv-init.bin")


def two_seconds_a_frame(source: Path, target: Path) -> None:
    """A subtitle database that was made for frames of another length."""
    shutil.copytree(source, target)
    write_json(target / "meta.json", read_json(source / "meta.json") | {"frame_length": 2})


def hide_answers(source: Path, target: Path) -> None:
    """A question database as one of a test split is."""
    shutil.copytree(source, target)
    lines = [line for _, line in read_jsonl(target / "query_data.jsonl")]
    for line in lines:
        del line["answer_idx"]
    (target / "query_data.jsonl").write_text("\n".join(map(json.dumps, lines)))


def write_runs(storage: Path, expected: Path) -> None:
    """Recorded runs, with weights of the steps that commands ask for."""
    for name, record, step, head in (
        ("tvr_default", "exp_tvr", 4800, None),
        ("tvqa", "exp_tvqa", 10000, "head_videoqa.pt"),
        ("tvc", "exp_tvc", 7000, "head_tvc.pt"),
    ):
        run = storage / "downloaded" / name
        for file in ("hps.json", "model_config.json"):
            text = (expected / record / "log" / file).read_text()
            path = run / "log" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(re.sub(r'"world/(txt|video)_db/', rf'"{storage}/\1_db/', text))
        state = {}
        for weights in filter(None, ("pretrained.pt", head)):
            state |= torch.load(expected / weights, weights_only=True)
        (run / "ckpt").mkdir()
        torch.save(state, run / "ckpt" / f"model_step_{step}.pt")


@pytest.fixture(scope="module")
def storage(world, expected, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    write_storage(folder, world, expected)
    write_runs(folder, expected)
    return folder


# --- commands ----------------------------------------------------------------------------------


def replaced(text: str, storage: Path, runs: str) -> str:
    """A command or recipe with the paths of the storage."""
    filled = Template(text).safe_substitute(VARIABLES, PATH_TO_STORAGE=storage)
    folders = FOLDERS | {"storage": runs}
    roots = "|".join(folders)
    return re.sub(rf'(^|[\s"])/({roots})/', lambda m: f"{m[1]}{storage}/{folders[m[2]]}/", filled)


def words_of(command: str, storage: Path, runs: str = "finetune") -> list[str]:
    return shlex.split(replaced(command, storage, runs))


def script_of(words: list[str]) -> Command:
    """The script of ``[horovodrun -np N] python SCRIPT …`` and its arguments."""
    place = words.index("python") + 1
    return words[place].removesuffix(".py").replace("/", "."), words[place + 1 :]


def training(command: str, storage: Path, expected: Path) -> Command:
    """A training command, shortened, with the recipe's paths typed in front of what it types."""
    script, words = script_of(words_of(command, storage))
    recipe = (REPOSITORY / words[words.index("--config") + 1]).read_text()
    there, here = json.loads(recipe), json.loads(replaced(recipe, storage, "finetune"))
    changes = {key: here[key] for key in there if there[key] != here[key]} | SHORT
    size = "model_tvc" if script == "train_tvc" else "model_finetune"
    changes["model_config"] = expected / f"{size}.json"
    typed = [
        word
        for key, value in changes.items()
        for word in (f"--{key}", json.dumps(value) if isinstance(value, list) else str(value))
    ]
    return script, [*typed, *words]


@pytest.fixture(scope="module")
def finished(storage, expected) -> str:
    """What two ranks said that ran every horovodrun command."""
    pytest.importorskip("horovod", reason="no Horovod: scripts/install_horovod.sh")
    plan = [training(command, storage, expected) for command in TRAINING]
    plan += [script_of(words_of(command, storage, "downloaded")) for command in EVALUATION]
    for _, words in plan[len(TRAINING) :]:
        words += ["--n_workers", "0"]
    write_json(storage / "plan.json", plan)
    done = launch("horovod", "run_scripts.py", storage / "plan.json", storage)
    assert done.returncode == 0, done.stdout
    return done.stdout


# --- tests -------------------------------------------------------------------------------------


@pytest.mark.launcher
@pytest.mark.parametrize("command", TRAINING)
def test_a_recipe_trains(finished, storage, command):
    run = storage / "finetune" / TRAINING[command]
    assert torch.load(run / "restore.pt", weights_only=True)["step"] == 2
    assert (run / "ckpt" / "model_step_2.pt").stat().st_size > 0
    recipe = read_json(REPOSITORY / re.search(r"--config (\S+)", command)[1])
    options = read_json(run / "log" / "hps.json")
    paths = replaced(json.dumps(recipe), storage, "finetune")
    changed = SHORT.keys() | {"model_config", "output_dir", "targets"}
    wanted = {key: value for key, value in json.loads(paths).items() if key not in changed}
    assert {key: options[key] for key in wanted} == wanted
    for corpus, asked_for in zip(options.get("targets", []), json.loads(paths).get("targets", [])):
        assert corpus | asked_for == corpus
    log = (run / "log" / "log.txt").read_text()
    assert "2 rank(s) (horovod) on cpu, fp32" in log
    assert log.count("fp16 needs a CUDA device: computing in fp32") == 1
    results = {path.name for path in (run / "results").glob("*")}
    evaluates_test = bool(recipe.get("test_query_txt_db"))
    assert ("results_test_2_all.json" in results) == evaluates_test
    assert ("metrics_test_2.json" in results) == evaluates_test


@pytest.mark.launcher
def test_number_format_is_said_once_by_all_ranks(finished):
    commands = len(TRAINING) + sum("--fp16" in command for command in EVALUATION)
    assert finished.count("fp16 needs a CUDA device: computing in fp32") == commands


@pytest.mark.launcher
@pytest.mark.parametrize("command", EVALUATION)
def test_a_downloaded_run_is_evaluated_as_recorded(finished, storage, expected, command):
    name, record = EVALUATION[command]
    found, wanted = read_json(storage / "downloaded" / name), read_json(expected / record)
    if "video2idx" in wanted:
        assert_same_ranking(found, wanted)
    else:
        assert found == wanted


def test_captions(storage, world, tmp_path, monkeypatch):
    script, words = script_of(words_of(CAPTIONING, storage, "downloaded"))
    monkeypatch.chdir(tmp_path)
    assert "CIDEr" in run_scripts([(script, [*words, "--n_workers", "0"])])[0]
    lines = [line for _, line in read_jsonl(tmp_path / "tvc_val_output.jsonl")]
    clips = [line for _, line in read_jsonl(world / "ann" / "tvc_val.jsonl")]
    for line, clip in zip(lines, clips, strict=True):
        assert {key: line[key] for key in ("vid_name", "clip_id", "ts")} == {
            key: clip[key] for key in ("vid_name", "clip_id", "ts")
        }
        assert [set(caption) for caption in line["descs"]] == [{"desc"}]


def test_training_without_a_launcher(storage, expected, tmp_path):
    """python train_vcmr.py --config $YOUR_CONFIG_JSON"""
    recipe = replaced((REPOSITORY / "config/train-tvr-8gpu.json").read_text(), storage, "finetune")
    mine = {"model_config": str(expected / "model_finetune.json"), "output_dir": str(tmp_path)}
    write_json(tmp_path / "mine.json", json.loads(recipe) | SHORT | mine)
    (metrics,) = run_scripts([("train_vcmr", ["--config", str(tmp_path / "mine.json")])])
    assert np.isfinite(metrics["loss/total"])


@pytest.mark.parametrize(
    ("collecting", "converting"),
    [
        ("", "--compress"),
        ("--nproc 2 --feat_version resnet_slowfast", "--nproc 1"),
        ("", "--clip_interval -1 --feat_version resnet_slowfast"),
    ],
)
def test_features(world, tmp_path, collecting, converting):
    """Also with options that the guide does not show."""
    shutil.copytree(world / "feat", tmp_path / "feature_output_dir")
    for command, more in zip(FEATURES, (collecting, converting), strict=True):
        run_scripts([script_of(words_of(f"{command} {more}", tmp_path))])
    made, recorded = (
        FeatureDb(folder / "video_db" / "tv", compressed="--compress" in converting)
        for folder in (tmp_path, world)
    )
    assert made.id2nframe == recorded.id2nframe
    for vid in recorded.id2nframe:
        np.testing.assert_array_equal(made[vid], recorded[vid])


def test_features_of_another_kind(world, tmp_path):
    shutil.copytree(world / "feat", tmp_path / "feature_output_dir")
    kind = "--feat_version mine"
    for command in FEATURES:
        run_scripts([script_of(words_of(f"{command} {kind}", tmp_path))])
    vids = FeatureDb(tmp_path / "video_db" / "tv", version="mine").id2nframe
    assert vids == FeatureDb(world / "video_db" / "tv").id2nframe


def bash(words: list[str], **environment: str) -> None:
    """Run a shell command line in the repository."""
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirrors"))[0]


@pytest.mark.parametrize("command", DOWNLOADS)
def test_downloads(mirror, tmp_path, command):
    bash(words_of(command, tmp_path), HERO_BLOB_URL=str(mirror))
    assert (tmp_path / DOWNLOADS[command]).stat().st_size > 0


def test_text_databases(world, tmp_path):
    annotations = tmp_path / "ann"
    annotations.mkdir()
    for name in ("tvr_val.jsonl", "tv_subtitles.jsonl", "tv_vid2nframe.json", "vid2dur_idx.json"):
        shutil.copy(world / "ann" / name, annotations)
    bash(words_of(CREATE_TXTDB, tmp_path), HERO_TOKER=str(world / "toker"), HERO_WORKERS="1")
    queries, subtitles = (
        TextDb(tmp_path / "txt_db" / f"{name}.db") for name in ("tvr_val", "tv_subtitles")
    )
    recorded = TextDb(world / "txt_db" / "tvr_val.db")
    assert list(queries.keys()) == list(recorded.keys())
    assert len(subtitles) == len(TextDb(world / "txt_db" / "tv_subtitles.db"))


def test_queries_without_a_task_are_those_of_tvr(world, tmp_path):
    words = ["--annotation", str(world / "ann" / "tvr_val.jsonl"), "--toker", str(world / "toker")]
    words += ["--workers", "1", "--output"]
    run_scripts(
        ("scripts.prepro_query", [*words, str(tmp_path / str(len(task))), *task])
        for task in ([], ["--task", "tvr"])
    )
    untold, told = TextDb(tmp_path / "0"), TextDb(tmp_path / "2")
    assert untold.meta["task"] == "tvr"
    keys = list(told.keys())
    assert list(untold.keys()) == keys and all(untold[key] == told[key] for key in keys)


def test_the_container(tmp_path):
    shell = Shell(tmp_path)
    (tmp_path / "pretrained").mkdir()
    shell.source(*words_of(CONTAINER, tmp_path)[2:])
    assert {place: folder for place, (folder, _) in mounts(shell.run_call()).items()} == {
        "/txt": str(tmp_path / "txt_db"),
        "/video": str(tmp_path / "video_db"),
        "/storage": str(tmp_path / "finetune"),
        "/pretrain": str(tmp_path / "pretrained"),
        "/src": str(REPOSITORY),
    }


# --- options that users of the published code type ---------------------------------------------

# Command, to which SHORT and the recipe's paths are added → what its log says.
TYPED = {
    "python train_tvc.py --config config/train-tvc-8gpu.json --test_db /txt/tvc_val.db": (
        "no effect in this script: --test_db"
    ),
    "python train_vr.py --config config/train-msrvtt_video_sub-4gpu.json --drop_svmr_prob 0.5 "
    "--lw_st_ed 0.01 --train_span_start_step -1": (
        "no effect in this script: --lw_st_ed, --drop_svmr_prob, --train_span_start_step"
    ),
    "python pretrain.py --config config/pretrain-tv-16gpu.json --vfeat_interval 1.5": "fp32",
    "python train_vcmr.py --config config/train-tvr-8gpu.json --hard_negative_start_step 1 "
    "--max_clip_len -1 --vcmr_eval_batch_size 3 --no_fp16 --bf16": "cpu, bf16",
    "python train_videoQA.py --config config/train-tvqa-8gpu.json --bf16": "cpu, bf16",
}


@pytest.mark.parametrize("command", TYPED)
def test_what_users_type(storage, expected, tmp_path, caplog, command):
    script, words = training(command, storage, expected)
    (metrics,) = run_scripts([(script, [*words, "--output_dir", str(tmp_path)])])
    assert all(np.isfinite(v) for k, v in metrics.items() if k.startswith("loss/"))
    assert TYPED[command] in caplog.text


SCRIPTS = {
    "run_tvr": "train_vcmr",
    "run_vr": "train_vr",
    "run_tvqa": "train_videoQA",
    "run_violin": "train_violin",
    "run_tvc": "train_tvc",
    "run_pretrain": "pretrain",
}


@pytest.mark.parametrize("run", SCRIPTS)
def test_an_hps_file_of_the_original_trains(storage, world, tmp_path, run):
    """Its paths replaced; from random weights, as the checkpoint that it names is not here."""
    text = (THEIRS / run / "log" / "hps.json").read_text()
    options = json.loads(
        text.replace("/storage/world/ann/", f"{world}/ann/").replace(
            "/storage/world/", f"{storage}/"
        )
    )
    options |= {"model_config": str(THEIRS / run / "log" / "model_config.json")}
    options |= {"checkpoint": None, "output_dir": str(tmp_path / "run"), "n_workers": 0}
    write_json(tmp_path / "hps.json", options)
    (metrics,) = run_scripts([(SCRIPTS[run], ["--config", str(tmp_path / "hps.json")])])
    assert all(np.isfinite(v) for k, v in metrics.items() if k.startswith("loss/"))
    assert metrics and (tmp_path / "run" / "restore.pt").exists()


@pytest.mark.parametrize(
    ("script", "task", "recipe", "result"),
    [
        ("vcmr", "tvr", "train-tvr-8gpu", "results_val/results_2_all.json"),
        ("videoQA", "tvqa", "train-tvqa-8gpu", "results_val_w_logit/logits_2_all.json"),
    ],
)
def test_evaluation_of_val_needs_no_split_and_no_queries(
    storage, expected, tmp_path, script, task, recipe, result
):
    train = f"python train_{script}.py --config config/{recipe}.json --output_dir {tmp_path}"
    words = ["--output_dir", str(tmp_path), "--checkpoint", "2", "--n_workers", "0"]
    words += ["--save_logits"] if "logit" in result else []
    trained, evaluated = run_scripts(
        [training(train, storage, expected), (f"eval_{script}", words)]
    )
    assert evaluated.items() <= trained.items() and evaluated
    found = read_json(tmp_path / result)
    if "logit" not in result:
        assert found == read_json(tmp_path / "results" / "results_2_all.json")
        return
    answers = read_json(tmp_path / "results_val_w_logit" / "results_2_all.json")
    assert {qid: int(np.argmax(scores)) for qid, scores in found.items()} == answers
    assert not list(tmp_path.rglob("*.pkl"))
