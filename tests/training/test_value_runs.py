"""Runs over VALUE's lists: killed ones, several ranks, every channel, and what evaluates them."""

import importlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import train_all_multitask
from config.config import ValueOptions, parse_options
from config.model_config import ModelConfig
from config.value import META_AVERAGE
from data.value_sets import Databases, labels, open_training_sets
from engine.precision import Precision
from engine.run import start_training
from engine.trainer import Trainer
from model.checkpoint import read_state_dict
from tests.conftest import GOLDEN_VALUE
from tests.support.launching import launch, launched
from tests.support.recorded_value import WEIGHTS
from tests.support.survival import assert_survives_kills, logged
from tests.support.value_lists import recorded_entry, recorded_lists
from tests.support.workers.run_scripts import run_scripts

pytestmark = pytest.mark.golden_value

SCORES = {
    **dict.fromkeys(("tvr",), "VCMR/AveR"),
    **dict.fromkeys(("yc2r", "vatex_en_r"), "VR/AveR"),
    **dict.fromkeys(("tvqa", "vlep", "violin"), "accuracy"),
    **dict.fromkeys(("tvc", "yc2c", "vatex_en_c"), "CIDEr"),
}
SHORT = {
    "gradient_accumulation_steps": 1,
    "num_train_steps": 4,
    "valid_steps": 4,
    "max_gen_step": 4,
    "hard_pool_size": [2],
    "max_vcmr_video": 3,
    "max_vr_video": 3,
}


@pytest.fixture
def start(tmp_path: Path) -> str:
    """The recorded weights of all tasks."""
    state = {}
    for name in WEIGHTS:
        state |= read_state_dict(GOLDEN_VALUE / "expected" / name)
    torch.save(state, tmp_path / "start.pt")
    return str(tmp_path / "start.pt")


@pytest.fixture
def command(tmp_path: Path, start: str):
    """The words of a training's command line."""

    def command(sets: list[str], channel: str = "video_sub", size: int = 2, **values) -> list[str]:
        sizes = dict.fromkeys(sets, size)
        options = {"checkpoint": start, "output_dir": str(tmp_path / "run")} | SHORT | values
        path = tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json"
        path.write_text(json.dumps(recorded_lists(GOLDEN_VALUE, sizes, channel, **options)))
        return ["--config", str(path)]

    return command


def test_every_set_is_scored_and_the_scores_averaged(command, fake_java, tmp_path, caplog):
    metrics = train_all_multitask.main(command(list(SCORES), num_train_steps=2, valid_steps=2))
    scores = [metrics[f"{name}/{metric}"] for name, metric in SCORES.items()]
    assert metrics[META_AVERAGE] == pytest.approx(np.mean(scores))
    run = tmp_path / "run"
    assert {path.name for path in (run / "results").iterdir()} == set(SCORES)
    assert f'"valid/{META_AVERAGE}"' in logged(run)
    names = set(torch.load(run / "ckpt" / "model_step_2.pt", weights_only=True))
    recorded = json.loads((GOLDEN_VALUE / "expected" / "state_dict_keys.json").read_text())
    assert names >= recorded["HeroForMultiTask"]["parameters"].keys()


@pytest.mark.parametrize("channel", ["video_sub", "video_only", "sub_only"])
def test_scripts_of_single_tasks_find_what_validation_found(command, fake_java, tmp_path, channel):
    sets = [*SCORES]
    words = command(sets, channel)
    trained = train_all_multitask.main(words)
    options = parse_options(ValueOptions, words)
    following = options.next_step.partition(": ")[2].format(
        output_dir=shlex.quote(str(tmp_path / "run")), best=4
    )
    toker = ["--toker", str(GOLDEN_VALUE / "world" / "toker")]
    for entry, each in zip(options.val_datasets, following.split("; "), strict=True):
        _, script, *rest = shlex.split(each)
        more = toker if entry.gt_anno else []
        found = importlib.import_module(script.removesuffix(".py")).main([*rest, *more])
        name = SCORES[entry.data_set]
        assert found[name] == pytest.approx(trained[f"{entry.data_set}/{name}"]), entry.name


def test_a_run_of_all_tasks_starts_one_of_each(command, fake_java, tmp_path):
    train_all_multitask.main(command([*SCORES]))
    weights = str(tmp_path / "run" / "ckpt" / "model_step_4.pt")
    heads = {"train_retrieval": "yc2r", "train_qa": "violin", "train_captioning": "yc2c"}
    for script, data_set in heads.items():
        folder = tmp_path / script
        words = command([data_set], checkpoint=weights, output_dir=str(folder))
        (metrics,) = run_scripts([(script, words)])
        assert metrics[META_AVERAGE] == metrics[f"{data_set}/{SCORES[data_set]}"]
        own = torch.load(folder / "ckpt" / "model_step_4.pt", weights_only=True)
        assert own.keys() < torch.load(weights, weights_only=True).keys()


# Sets, and how often the run is killed.
KILLED = {
    "all": (["tvr", "vlep", "violin", "yc2r", "tvc", "yc2c"], 2),
    "captions": (["tvc", "yc2c"], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(("sets", "kills"), KILLED.values(), ids=KILLED)
def test_a_killed_run_ends_like_the_unbroken_one(start, fake_java, tmp_path, sets, kills):
    sizes = dict.fromkeys(sets, 1)
    steps = {"num_train_steps": 14, "valid_steps": 7, "restore_steps": 2, "n_workers": 1}
    steps |= {"gradient_accumulation_steps": 2, "checkpoint": start}
    options = recorded_lists(GOLDEN_VALUE, sizes, **SHORT | steps)
    assert_survives_kills("train_all_multitask.py", options, tmp_path, kills)


@launched
def test_two_ranks_train_as_one_process_with_both_batches(command, fake_java, tmp_path):
    alike = {"ranking_gradient": "undivided", "drop_svmr_prob": 0.5, "dropout": 0.0}
    alike |= {"num_train_steps": 3, "valid_steps": 3}  # fewer than an epoch of any set
    sets = ["tvr", "yc2r", "vlep", "violin"]
    words = command(sets, size=1, output_dir=str(tmp_path / "two"), **alike)
    captions = command(["tvc", "yc2c"], output_dir=str(tmp_path / "captions"))
    ranks = tmp_path / "ranks"
    ranks.mkdir()
    plan = [["train_all_multitask", words], ["train_captioning", captions]]
    (ranks / "plan.json").write_text(json.dumps(plan))
    done = launch("torch", "run_scripts.py", ranks / "plan.json", ranks)
    assert done.returncode == 0, done.stdout
    two, captioned = json.loads((ranks / "0.json").read_text())
    assert META_AVERAGE in captioned

    words = command(sets, size=2, output_dir=str(tmp_path / "one"), **alike)
    one = train_all_multitask.main(words)
    assert two == pytest.approx(one, abs=1e-4)
    first, second = (
        torch.load(tmp_path / name / "ckpt" / "model_step_3.pt", weights_only=True)
        for name in ("one", "two")
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-6, rtol=1e-4, msg=name)


def vocabulary(options: ValueOptions) -> int:
    return ModelConfig.from_json(options.model_config).f_config.vocab_size


def open_run(words: list[str]) -> tuple:
    run = start_training(parse_options(ValueOptions, words))
    return run, train_all_multitask.open_task(run)


def test_every_set_has_a_loss_scale_of_its_own(command, monkeypatch):
    monkeypatch.setattr("engine.precision._check_device", lambda mode, device: None)
    monkeypatch.setattr("engine.precision.FIRST_LOSS_SCALE", 64.0)
    run, task = open_run(command(["tvqa", "vlep", "violin"]))
    run.precision = Precision("fp16", run.device)
    trainer = Trainer(task, run)
    drawn = {next(iter(trainer.step().losses[0])).partition("/")[0] for _ in range(8)}
    assert drawn == {"tvqa", "vlep", "violin"}
    assert run.precision.loss_scales == dict.fromkeys(drawn, 64.0)


def test_losses_have_the_weights_of_their_set(command):
    _, task = open_run(command([*SCORES], lw_st_ed=0.02, qa_lw_st_ed=0.3, lw_neg_q=5.0))
    assert task.loss_weights == {
        **{"tvr/neg_ctx": 8.0, "tvr/neg_q": 5.0, "tvr/st_ed": 0.02},
        **{"yc2r/neg_ctx": 8.0, "yc2r/neg_q": 5.0},
        **{"vatex_en_r/neg_ctx": 8.0, "vatex_en_r/neg_q": 5.0},
        **{"tvqa/qa": 1.0, "tvqa/st_ed": 0.3, "vlep/qa": 1.0, "vlep/st_ed": 0.0},
        **{"violin/violin": 1.0, "tvc/caption": 1.0, "yc2c/caption": 1.0},
        "vatex_en_c/caption": 1.0,
    }


def test_a_list_of_one_task_has_the_weights_of_that_task_alone(command):
    recorded = json.loads((GOLDEN_VALUE / "expected" / "state_dict_keys.json").read_text())

    def names(sets: list[str]) -> set[str]:
        _, task = open_run(command(sets, output_dir=f"{command([])[1]}-{sets[0]}"))
        return {name for name, _ in task.model.named_parameters(remove_duplicate=False)}

    assert names(["yc2r"]) == recorded["HeroForVcmr"]["parameters"].keys()
    questions = recorded["HeroForVideoQA"]["parameters"].keys()
    assert names(["vlep"]) == questions
    assert names(["violin"]) == {name for name in questions if not name.startswith("st_ed_")}
    assert names(["vatex_en_c"]) == recorded["HeroForVideoCap"]["parameters"].keys()


def test_videos_are_opened_once_for_features_subtitles_and_channel(command, tmp_path):
    options = parse_options(ValueOptions, command(["tvr", "tvqa", "violin"]))
    world = GOLDEN_VALUE / "world"
    other = recorded_entry(world, "tvr", "sub_only", True)
    foreign = recorded_entry(world, "tvqa", "video_sub", True) | {
        "name": "how2qa_video_sub_train",
        "sub_txt_db": str(world / "txt_db" / "yc2_subtitles.db"),
    }
    config = json.loads(Path(command([])[1]).read_text())
    del options
    config["train_datasets"] = [
        *json.loads(Path(command(["tvr", "tvqa", "violin"])[1]).read_text())["train_datasets"],
        other,
        foreign,
    ]
    config["val_datasets"] = [recorded_entry(world, "tvr", "video_sub", False)]
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(config))
    options = parse_options(ValueOptions, ["--config", str(path)])
    databases = Databases(options, vocabulary(options))
    videos = []
    for entry in options.train_datasets:
        videos.append(databases.videos(entry, databases.texts(entry.query_txt_db)))
    assert videos[0] is videos[1] is videos[2]
    assert len({id(each) for each in videos}) == 3
    assert videos[4].subtitles.path.name == "yc2_subtitles.db"
    assert labels(options.train_datasets)["tvr_sub_only_train"] == "tvr_sub_only_train"


def test_captions_of_validated_queries_may_be_left_out(command, caplog):
    sets = ["vatex_en_r", "vatex_en_c"]

    def learnt(*more: str) -> int:
        options = parse_options(ValueOptions, [*command(sets), *more])
        opened = open_training_sets(Databases(options, vocabulary(options)))
        return len(opened[1])

    both, alone = learnt(), learnt("--keep_validation_apart")
    assert both > alone > 0
    assert "vatex_en_r_val.db, whose queries are validated too" in caplog.text
