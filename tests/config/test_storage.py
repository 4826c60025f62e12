"""A storage folder: the container's paths, found below it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import eval_vcmr
import train_vcmr
from config.config import (
    PretrainOptions,
    TvcInferenceOptions,
    VcmrEvalOptions,
    VcmrOptions,
    changed_options,
    load_run_options,
    options_to_dict,
    parse_options,
)
from scripts import check_data
from tests.support import REPOSITORY
from utils.errors import UserError
from utils.files import read_json, write_json

RECIPE = str(REPOSITORY / "config" / "train-tvr-8gpu.json")
EVALUATE = ["--output_dir", "/storage/tvr_default/", "--checkpoint", "4800"]


@pytest.fixture
def storage(tmp_path) -> str:
    return str(tmp_path)


def train(*words: str) -> VcmrOptions:
    return parse_options(VcmrOptions, ["--config", RECIPE, *words])


def save(opts: VcmrOptions, folder: Path) -> None:
    write_json(folder / "log" / "hps.json", options_to_dict(opts))


def test_paths_of_the_container_lie_below_the_storage(storage):
    opts = train("--storage", storage, "--output_dir", "/storage/mine", "--vfeat_db", "/video/tv/")
    assert opts.train_query_txt_db == f"{storage}/txt_db/tvr_train.db"
    assert opts.checkpoint == f"{storage}/pretrained/hero-tv-ht100.pt"
    assert (opts.output_dir, opts.vfeat_db) == (
        f"{storage}/finetune/mine",
        f"{storage}/video_db/tv/",
    )
    assert opts.model_config == "config/hero_finetune.json"
    assert opts.test_query_txt_db is None


def test_other_paths_stay(storage):
    given = {"sub_txt_db": "/txts/a.db", "vfeat_db": "txt/b", "output_dir": f"{storage}/run"}
    opts = train("--storage", storage, *(w for n, v in given.items() for w in (f"--{n}", v)))
    assert {name: getattr(opts, name) for name in given} == given


def test_paths_below_a_storage_in_the_container_s_own_place_stay(monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    opts = train("--storage", "/storage/hero", "--output_dir", "/storage/hero/finetune/x")
    assert opts.output_dir == "/storage/hero/finetune/x"
    assert opts.vfeat_db == "/storage/hero/video_db/tv"
    assert options_to_dict(opts)["output_dir"] == "/storage/x"
    assert replace(opts, seed=1).vfeat_db == opts.vfeat_db


def test_corpora_of_pretraining_too(storage):
    recipe = str(REPOSITORY / "config" / "pretrain-tv-16gpu.json")
    opts = parse_options(PretrainOptions, ["--config", recipe, "--storage", storage])
    (corpus,) = opts.corpora()
    assert (corpus.vfeat_db, corpus.sub_txt_db) == (
        f"{storage}/video_db/tv",
        f"{storage}/txt_db/tv_subtitles.db",
    )
    assert corpus.splits[0].train_idx == f"{storage}/txt_db/pretrain_splits/tv_train.json"
    without = options_to_dict(parse_options(PretrainOptions, ["--config", recipe]))
    assert options_to_dict(opts) == without | {"storage": storage}


def test_the_environment_names_it_and_the_command_line_wins(storage, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("HERO_STORAGE", storage)
    assert train().vfeat_db == f"{storage}/video_db/tv"
    assert train("--storage", f"{storage}/other").vfeat_db == f"{storage}/other/video_db/tv"
    assert train("--storage", "null").vfeat_db == "/video/tv"


def test_a_relative_storage_is_that_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert train("--storage", "data").vfeat_db == f"{tmp_path}/data/video_db/tv"


def test_a_storage_that_is_no_folder_is_refused(storage):
    with pytest.raises(UserError, match=r"storage = .*nowhere must be a folder \(with txt_db, "):
        train("--storage", f"{storage}/nowhere")


def test_outside_the_container_its_paths_are_pointed_at():
    for main in (train_vcmr.main, check_data.main):
        with pytest.raises(UserError, match=r"^/(txt|storage)/tvr.* is a path .* --storage"):
            main(["--config", RECIPE])
    with pytest.raises(UserError, match=r"--output_dir of a training; /storage/.* --storage"):
        parse_options(VcmrEvalOptions, EVALUATE)


# --- runs ---------------------------------------------------------------------------------------


def test_a_run_is_evaluated_with_its_own_storage(storage, tmp_path):
    run = tmp_path / "finetune" / "tvr_default"
    save(train("--storage", storage), run)
    assert read_json(run / "log" / "hps.json")["vfeat_db"] == "/video/tv"
    opts = load_run_options(VcmrEvalOptions, run, {"checkpoint": "1"})
    assert (opts.vfeat_db, opts.output_dir) == (f"{storage}/video_db/tv", str(run))
    assert load_run_options(VcmrOptions, run) == train("--storage", storage)


@pytest.mark.parametrize("with_storage", [True, False])
def test_a_run_is_evaluated_where_its_storage_has_moved(tmp_path, with_storage):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    save(train(*(["--storage", str(old)] if with_storage else [])), old / "finetune/tvr_default")
    old.rename(new)
    opts = parse_options(VcmrEvalOptions, ["--storage", str(new), *EVALUATE])
    assert opts.query_txt_db == f"{new}/txt_db/tvr_val.db"
    assert opts.output_dir == f"{new}/finetune/tvr_default/"
    # In the container, that storage does not exist.
    found = load_run_options(VcmrEvalOptions, new / "finetune/tvr_default", {"checkpoint": "1"})
    assert (found.storage, found.query_txt_db) == (None, "/txt/tvr_val.db")


def test_captioning_finds_clips_and_writes_below_it(storage, tmp_path):
    recipe = {**json.loads((REPOSITORY / "config" / "train-tvc-8gpu.json").read_text())}
    write_json(tmp_path / "finetune" / "tvc" / "log" / "hps.json", recipe)
    words = ["--model_dir", "/storage/tvc", "--ckpt_step", "7000", "--storage", storage]
    words += ["--target_clip", "/txt/clips.jsonl", "--output", "/storage/out.jsonl"]
    opts = parse_options(TvcInferenceOptions, words)
    assert (opts.target_clip, opts.output) == (
        f"{storage}/txt_db/clips.jsonl",
        f"{storage}/finetune/out.jsonl",
    )


def test_a_run_goes_on_from_elsewhere(storage, tmp_path):
    there, here = train(), train("--storage", storage)
    own = replace(there, storage=None, vfeat_db=f"{storage}/video_db/tv")
    for old in (there, here, own):
        assert changed_options(options_to_dict(old), here) == []
        if old is not own:
            assert changed_options(options_to_dict(old), there) == []
    other = train("--storage", storage, "--vfeat_db", "/video/how2")
    assert changed_options(options_to_dict(there), other) == ["vfeat_db: /video/tv → /video/how2"]


@pytest.mark.golden
def test_scripts_take_a_recipe_of_the_container(
    tvr_options, world, expected, tmp_path, monkeypatch
):
    storage = tmp_path / "storage"
    (storage / "pretrained").mkdir(parents=True)
    (storage / "pretrained" / "start.pt").symlink_to(expected / "pretrained.pt")
    for name in ("txt_db", "video_db"):
        (storage / name).symlink_to(world / name)
    places = {"output_dir": "/storage/run", "checkpoint": "/pretrain/start.pt"}
    places |= {
        name: value.replace(str(world / "txt_db"), "/txt").replace(
            str(world / "video_db"), "/video"
        )
        for name, value in tvr_options.items()
        if name.endswith("_db")
    }
    recipe = str(tmp_path / "recipe.json")
    write_json(recipe, tvr_options | places | {"num_train_steps": 1, "n_workers": 0})

    check_data.main(["--config", recipe, "--storage", str(storage), "--quick"])
    metrics = train_vcmr.main(["--config", recipe, "--storage", str(storage)])
    saved = read_json(storage / "finetune" / "run" / "log" / "hps.json")
    assert {name: saved[name] for name in places} == places
    monkeypatch.setenv("HERO_STORAGE", str(storage))
    words = ["--output_dir", "/storage/run", "--checkpoint", "1", "--n_workers", "0"]
    found = eval_vcmr.main([*words, "--query_txt_db", "/txt/tvr_val.db/"])
    assert found == {name: metrics[name] for name in found} != {}
    assert (storage / "finetune/run/results_val/results_1_all.json").is_file()
