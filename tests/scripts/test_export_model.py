"""A model on its own: exported, and taken by whatever takes a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eval_vcmr
import inf_tvc
import train_vcmr
from config.model_config import ModelConfig
from config.shared_model import SharedModel, shared_options
from data.stores.lmdb_io import FeatureDb
from model.checkpoint import read_state_dict
from scripts import export_model, search_videos
from tests.support.recorded import recorded_run
from tests.support.recorded_answers import TVQA
from tests.support.tvr_runs import make_run
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_json

pytestmark = pytest.mark.golden


@pytest.fixture
def run(tvr_options, tmp_path) -> Path:
    """A run on the recorded world whose first step was validated."""
    width = FeatureDb(tvr_options["vfeat_db"]).width
    run = make_run(
        tmp_path / "run", tvr_options | {"max_clip_len": 50, "learning_rate": 3e-5}, width
    )
    lines = {"valid/VCMR/0.7-r1": 12.5, "valid/VR/r1": 30.0, "valid/loss/total": 1.0}
    metrics = [json.dumps({"step": 1, "name": n, "value": v}) for n, v in lines.items()]
    (run / "log" / "metrics.jsonl").write_text("\n".join(metrics) + "\n")
    return run


def export(run: Path, output: Path, *more: str) -> Path:
    export_model.main(["--run", str(run), "--output", str(output), *more])
    return output


def databases(options: dict) -> list[str]:
    names = ("vfeat_db", "sub_txt_db", "val_query_txt_db")
    return [word for name in names for word in (f"--{name.removeprefix('val_')}", options[name])]


def test_an_exported_model_scores_as_its_run_does(run, tvr_options, tmp_path):
    folder = export(run, tmp_path / "hero-tvr")
    shared = ["--n_workers", "0", "--max_vcmr_video", "4"]
    own = eval_vcmr.main(["--output_dir", str(run), "--checkpoint", "best", *shared])
    shutil.rmtree(run)
    elsewhere = tmp_path / "elsewhere"
    words = ["--output_dir", str(elsewhere), "--checkpoint", str(folder), *databases(tvr_options)]
    assert eval_vcmr.main([*words, *shared]) == own != {}
    assert (elsewhere / "results_val" / "results_hero-tvr_all.json").is_file()
    with pytest.raises(UserError, match="missing options: --vfeat_db"):
        eval_vcmr.main([*words[:4], *words[6:]])
    with pytest.raises(UserError, match="missing options: --output_dir"):
        eval_vcmr.main(words[2:])


def test_a_search_needs_no_run(run, tvr_options, tmp_path):
    folder = export(run, tmp_path / "model", "--checkpoint", "1")
    words = ["--query", "A man walks in.", "--n_workers", "0"]
    found = search_videos.main(["--run_dir", str(run), "--checkpoint", "1", *words])
    more = databases(tvr_options)[:4]
    assert search_videos.main(["--checkpoint", str(folder), *more, *words]) == found
    # Without subtitles nothing but the model knows the tokenizer.
    more = [*more[:2], "--task", "didemo_video_only"]
    assert search_videos.main(["--checkpoint", str(folder), *more, *words]).keys() == found.keys()


def test_captions_come_out_the_same(expected, world, tmp_path):
    run = recorded_run(expected, "exp_tvc", tmp_path, "head_tvc.pt")
    folder = export(run, tmp_path / "tvc", "--checkpoint", "1", "--toker", str(world / "toker"))
    clips = tmp_path / "clips.jsonl"
    lines = [line for _, line in read_jsonl(world / "ann" / "tvc_val.jsonl")][:2]
    clips.write_text("".join(json.dumps({**line, "descs": None}) + "\n" for line in lines))
    words = ["--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db"), "--target_clip", str(clips)]
    words += ["--vfeat_db", str(world / "video_db" / "tv"), "--n_workers", "0", "--no_fp16"]
    outputs = []
    for source in (["--model_dir", str(run), "--checkpoint", "1"], ["--checkpoint", str(folder)]):
        outputs.append(tmp_path / f"{len(outputs)}.jsonl")
        inf_tvc.main([*words, *source, "--output", str(outputs[-1])])
    assert outputs[0].read_text() == outputs[1].read_text() != ""


def test_questions_are_answered_the_same(expected, world, tmp_path):
    run = TVQA.run_folder(expected, tmp_path)
    folder = export(run, tmp_path / "tvqa", "--checkpoint", "1", "--toker", str(world / "toker"))
    metrics = TVQA.evaluate_run(run, world)
    moved = tmp_path / "moved"
    moved.mkdir()
    assert TVQA.evaluate_run(moved, world, "--checkpoint", str(folder)) == metrics != {}


def test_training_starts_from_it(run, tvr_options, tmp_path):
    folder, weights = export(run, tmp_path / "model"), []
    for number, start in enumerate((folder, run / "ckpt" / "model_step_1.pt")):
        config, output = tmp_path / f"{number}.json", tmp_path / str(number)
        changes = {"checkpoint": str(start), "output_dir": str(output), "num_train_steps": 1}
        write_json(config, tvr_options | changes | {"n_workers": 0, "full_eval_tasks": ["VR"]})
        train_vcmr.main(["--config", str(config)])
        weights.append(torch.load(output / "ckpt" / "model_step_1.pt", weights_only=True))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


# --- what the folder has ------------------------------------------------------------------------


def test_the_folder_holds_weights_options_tokenizer_and_card(run, world, tvr_options, tmp_path):
    folder = export(run, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    source = read_state_dict(run / "ckpt" / "model_step_1.pt")
    assert weights.keys() == source.keys()
    assert all(torch.equal(weights[name], value) for name, value in source.items())
    for name in ("vocab.json", "merges.txt"):
        assert (folder / name).read_bytes() == (world / "toker" / name).read_bytes()
    config = read_json(folder / "config.json")
    assert (config["model_type"], config["task"], config["step"]) == ("hero", "tvr", 1)
    sizes = ModelConfig.from_json(run / "log" / "model_config.json")
    assert ModelConfig.from_dict(config["model_config"]) == sizes
    assert (config["options"]["max_clip_len"], config["options"]["learning_rate"]) == (50, 3e-5)
    everything = "".join((folder / name).read_text() for name in ("config.json", "README.md"))
    assert str(tmp_path) not in everything and str(world) not in everything
    card = (folder / "README.md").read_text()
    parts = ["| VCMR/0.7-r1 | `12.5` |", "| VR/r1 | `30.0` |", "after 1 steps", "`resnet_slowfast`"]
    for part in [*parts, "- train_query_txt_db: `tvr_train.db`"]:
        assert part in card
    assert "| max_clip_len | `50` |" in card and "loss/total" not in card
    assert "python eval_vcmr.py --checkpoint model --output_dir" in card


def test_paths_of_one_machine_stay_there():
    saved = {"vfeat_db": "/video/tv", "sub_txt_db": "/home/me/sub.db", "val_ref": "ann/val.jsonl"}
    saved |= {"output_dir": "/storage/x", "storage": "/data", "checkpoint": "/pretrain/a.pt"}
    saved |= {"targets": [{"name": "tv", "sub_txt_db": "/data/tv"}], "task": "tvr", "seed": 7}
    assert shared_options(saved) == {"vfeat_db": "/video/tv", "task": "tvr", "seed": 7}


def test_a_folder_with_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="mine exists and is no database"):
        export(run, tmp_path / "mine", "--force")
    folder = export(run, tmp_path / "model")
    with pytest.raises(UserError, match="model exists already; pass --force"):
        export(run, folder)
    export(run, folder, "--force")


def test_a_tokenizer_must_be_had(run, tvr_options, tmp_path):
    hps = run / "log" / "hps.json"
    gone = dict.fromkeys(("train_query_txt_db", "sub_txt_db"), "/nowhere")
    write_json(hps, read_json(hps) | gone)
    with pytest.raises(UserError, match="name its tokenizer with --toker"):
        export(run, tmp_path / "model")


# --- where models come from ---------------------------------------------------------------------


def test_a_hub_name_is_fetched(run, tvr_options, tmp_path, monkeypatch):
    folder = export(run, tmp_path / "snapshot")
    asked = []

    def download(name, allow_patterns):
        asked.append((name, {"config.json", "model.safetensors"} <= set(allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    words = ["--output_dir", str(tmp_path / "out"), "--checkpoint", "somebody/hero-tvr.v1"]
    more = ["--n_workers", "0", "--full_eval_tasks", "VR"]
    assert eval_vcmr.main([*words, *databases(tvr_options), *more])
    assert (tmp_path / "out" / "results_val" / "results_hero-tvr_v1_all.json").is_file()
    assert asked == [("somebody/hero-tvr.v1", True)]


def test_a_name_that_the_hub_does_not_give(monkeypatch):
    def refuse(name, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=r"somebody/nothing is no step, file or .*route"):
        SharedModel.find("somebody/nothing")


@pytest.mark.parametrize("name", ["4800", "best", "ckpt/step", "a/b.pt", "/a/b", "log", None])
def test_steps_files_and_other_folders_are_no_exported_models(name, run, monkeypatch):
    (run / "ckpt" / "step").touch()
    monkeypatch.chdir(run)
    assert SharedModel.find(name, run) is None


def test_other_model_folders_are_refused(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "roberta"})
    with pytest.raises(UserError, match=r"but not HERO's .*load_partial_pretrained takes"):
        SharedModel.find(str(tmp_path))
    write_json(tmp_path / "config.json", {"model_type": "hero"})
    with pytest.raises(UserError, match=r"config\.json lacks options, model_config, tok"):
        SharedModel.find(str(tmp_path))
