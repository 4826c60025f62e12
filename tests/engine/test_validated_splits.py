"""A test split that is given is evaluated at each validation, as well as the validation split."""

import json
import shutil
from pathlib import Path

import pytest

import eval_vcmr
import eval_violin
import train_vcmr
import train_violin
from engine.validation import validate_splits
from utils.files import read_json, write_json

pytestmark = pytest.mark.golden

SHORT = {"num_train_steps": 2, "valid_steps": 1, "n_workers": 0}


def config(folder: Path, options: dict) -> list[str]:
    path = folder / "options.json"
    path.write_text(json.dumps(options | SHORT))
    return ["--config", str(path)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_names_of_metrics():
    splits = {"val": lambda step: {"loss": step}, "test": lambda step: {"loss": 2 * step, "a": "b"}}
    assert validate_splits(splits, 3) == {"loss": 3, "test/loss": 6, "test/a": "b"}


def test_moments_of_two_splits(tvr_options, tmp_path, world):
    """Val comes out as without the test split; test as its own evaluation finds it."""
    alone = train_vcmr.main(config(tmp_path, tvr_options | {"output_dir": str(tmp_path / "alone")}))
    test = tmp_path / "tvr_test.db"
    test.symlink_to(world / "txt_db" / "tvr_train.db")
    subtitles = tmp_path / "subtitles.db"
    shutil.copytree(tvr_options["sub_txt_db"], subtitles)
    splits = read_json(subtitles / "vid2dur_idx.json")
    splits["test"] = {vid: [seconds, 1000 + n] for vid, (seconds, n) in splits["train"].items()}
    write_json(subtitles / "vid2dur_idx.json", splits)
    options = tvr_options | {"test_query_txt_db": str(test), "nms_thd": 0.5}
    options["sub_txt_db"] = str(subtitles)
    both = train_vcmr.main(config(tmp_path, options))
    assert {name: both[name] for name in alone} == alone
    of_test = {name.removeprefix("test/"): v for name, v in both.items() if "test/" in name}
    assert {"loss/total", "VR/r1", "VCMR_nms_0.5/0.5-r1"} <= of_test.keys()
    found = files(tmp_path / "run" / "results")
    for step in (1, 2):
        assert {f"results_{step}_all.json", f"results_test_{step}_all.json"} <= found.keys()
        assert {f"metrics_{step}.json", f"metrics_test_{step}_nms_0.5.json"} <= found.keys()
    indices = json.loads(found["results_test_2_all.json"])["video2idx"]
    assert indices == {vid: index for vid, (_, index) in splits["test"].items()}
    plain = files(tmp_path / "alone" / "results")
    assert plain and {name: found[name] for name in plain} == plain
    words = ["--output_dir", str(tmp_path / "run"), "--checkpoint", "2", "--n_workers", "0"]
    evaluated = eval_vcmr.main([*words, "--split", "test"])
    assert evaluated == {k: v for k, v in of_test.items() if not k.startswith("loss/")}
    again = files(tmp_path / "run" / "results_test")
    assert again["results_2_all.json"] == found["results_test_2_all.json"]
    lines = (tmp_path / "run" / "log" / "metrics.jsonl").read_text()
    assert '"valid/test/VR/r1"' in lines and '"valid/VR/r1"' in lines


def test_a_split_without_truth_is_answered_without_metrics(tvr_options, tmp_path, world):
    public = str(world / "txt_db" / "tvr_test_public.db")
    metrics = train_vcmr.main(config(tmp_path, tvr_options | {"test_query_txt_db": public}))
    assert metrics and not [name for name in metrics if name.startswith("test")]
    found = json.loads((tmp_path / "run/results/results_test_public_2_all.json").read_text())
    assert set(found["video2idx"].values()) == {6400, 6435, 6470}  # the pool of that split
    assert "SVMR" not in found and found["VR"]
    assert not list((tmp_path / "run" / "results").glob("metrics_test*"))


def test_statements_of_two_splits(tvr_options, tmp_path, world, expected):
    """Of all that its results know: they are the same where the split is the same."""
    options = {key: tvr_options[key] for key in ("sub_txt_db", "vfeat_db", "model_config")}
    options |= {
        "train_query_txt_db": str(world / "txt_db" / "violin_train.db"),
        **dict.fromkeys(
            ("val_query_txt_db", "test_query_txt_db"), str(world / "txt_db" / "violin_val.db")
        ),
        "output_dir": str(tmp_path / "run"),
    }
    metrics = train_violin.main(config(tmp_path, options))
    own = {name: value for name, value in metrics.items() if not name.startswith("test/")}
    assert {"accuracy", "loss/violin", "loss/total"} == own.keys()
    assert {f"test/{name}": value for name, value in own.items()}.items() <= metrics.items()
    found = files(tmp_path / "run" / "results")
    assert found["results_test_2_all.json"] == found["results_2_all.json"]
    words = ["--output_dir", str(tmp_path / "run"), "--checkpoint", "2", "--n_workers", "0"]
    assert eval_violin.main(words)["accuracy"] == own["accuracy"]  # without --split: val
    assert (
        files(tmp_path / "run" / "results_val")["results_2_all.json"]
        == (found["results_2_all.json"])
    )
