"""VALUE's data: mirrors, raw files, and which of its data sets HERO has otherwise."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from config.groups import Kind
from config.value import TASKS
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb
from scripts import prepare_data
from scripts.preparation.datasets import catalogue
from tests.conftest import GOLDEN_VALUE
from tests.support import REPOSITORY
from tests.support.databases import assert_same_records
from tests.support.preparation import run_script
from tests.support.small_mirror import paths_of, write_text_db
from utils.files import read_json, write_jsonl

RECIPES = sorted((REPOSITORY / "config" / "value").rglob("train-*.json"))
FT_ONLY = "pretrained/pretrain-tv-init.bin"  # which --dataset tv_pretrain brings


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    """All that is published of VALUE, unpacked."""
    root = tmp_path_factory.mktemp("mirror")
    for task in TASKS.values():
        for name in (*task.train, *task.evaluated.values(), task.subtitles):
            path = root / "txt_db" / name
            if path.exists():
                continue
            if path.suffix == ".jsonl":
                path.parent.mkdir(exist_ok=True, parents=True)
                write_jsonl(path, [{"clip_id": 1}])
            elif task.kind is Kind.CAPTIONS and name.startswith(task.name):
                for part in ("cap.db", "clip.db"):
                    write_text_db(path / part)
            else:
                write_text_db(path)
        if not (root / "video_db" / task.corpus).exists():
            with FeatureDbWriter(root / "video_db" / task.corpus, interval=1.5) as db:
                db.put("v", np.ones((2, 3), np.float32))
    (root / "pretrained").mkdir()
    torch.save({"weight": torch.ones(1)}, root / "pretrained" / "hero-tv-ht100.pt")
    return root


def test_a_download_brings_all_that_recipes_and_submissions_read(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("HERO_BLOB_URL", str(mirror))
    prepare_data.main(["--dataset", "value", "--storage", str(tmp_path)])
    assert len(RECIPES) > 30
    wanted = set().union(*map(paths_of, RECIPES)) - {FT_ONLY}
    for task in TASKS.values():
        wanted |= {f"txt_db/{task.evaluated[split]}" for split in task.submitted}
    assert [path for path in sorted(wanted) if not (tmp_path / path).exists()] == []


def test_the_script_that_downloads_them(mirror, tmp_path):
    done = run_script("download_value.sh", tmp_path, "--dry-run", HERO_BLOB_URL=str(mirror))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("txt_db/violin_test_private.db ") for line in lines)


def test_shared_names_are_heros_unless_value_is_asked_for():
    own, value = catalogue(), catalogue(value=True)
    assert own.corpus_of("violin").compressed and own.corpus_of("how2r").interval == 2
    forms = {(value.corpus_of(name).interval, value.corpus_of(name).compressed) for name in TASKS}
    assert forms == {(1.5, False)}
    assert own.datasets["how2r"].splits == ("train", "val")
    assert value.datasets["how2r"].splits == ("train", "val_1k", "test_public_1k")
    assert value.datasets["vatex_en_c"].learns_from == (
        ("vatex_en_r", "train"),
        ("vatex_en_r", "val"),
    )
    new = set(TASKS) - {"tvr", "how2r", "tvqa", "how2qa", "violin", "tvc"}
    assert all(own.datasets[name] == value.datasets[name] for name in new)
    assert own.datasets["tv_pretrain"] == value.datasets["tv_pretrain"]


@pytest.fixture
def raw(tmp_path) -> list[str]:
    """Options for the raw files of the recorded world, copied."""
    world = GOLDEN_VALUE / "world"
    shutil.copytree(world / "ann", tmp_path / "ann")
    shutil.copytree(world / "video_db", tmp_path / "features")
    words = ["--from", "raw", "--ann_dir", str(tmp_path / "ann"), "--workers", "1"]
    words += ["--feature_dir", str(tmp_path / "features"), "--toker", str(world / "toker")]
    return [*words, "--storage", str(tmp_path / "storage")]


def test_the_graph_of_raw_files(raw, capsys):
    prepare_data.main(["--dataset", "yc2c", "vlep", *raw, "--graph"])
    steps = {line.strip().partition(": ")[0] for line in capsys.readouterr().out.splitlines()}
    releases = ("yc2c_val_release.jsonl", "yc2c_test_release.jsonl")
    names = ("yc2_subtitles.db", "vlep_subtitles.db", "yc2r_train.db", *releases)
    names += ("vlep_train.db", "vlep_dev.db", "vlep_test.db")
    assert steps == {"video_db/yc2", "video_db/vlep", *(f"txt_db/{name}" for name in names)}


@pytest.mark.golden_value
@pytest.mark.slow
def test_raw_files_become_the_recorded_databases(raw, tmp_path):
    names = ["yc2_subtitles", "yc2r_train", "yc2r_test", "vlep_dev"]
    only = [f"txt_db/{name}.db" for name in names]
    only += ["txt_db/yc2c_val_release.jsonl"]
    words = ["--dataset", "yc2r", "yc2c", "vlep", *raw, "--jobs", "2"]
    prepare_data.main([*words, "--only", *only])
    token_ids = read_json(GOLDEN_VALUE / "expected" / "token_ids.json")
    made, recorded = tmp_path / "storage" / "txt_db", GOLDEN_VALUE / "world" / "txt_db"
    for name in (f"{name}.db" for name in names):
        assert_same_records(made / name, recorded / name, token_ids[name])
    subtitles, indices = TextDb(made / "yc2_subtitles.db"), tmp_path / "ann/yc2_vid2dur_idx.json"
    assert subtitles.side("vid2dur_idx.json") == read_json(indices)
    assert subtitles.meta["nframe_group"] == 5
    clips = "yc2c_val_release.jsonl"
    assert (made / clips).read_bytes() == (tmp_path / "ann" / clips).read_bytes()
    features = FeatureDb(tmp_path / "storage" / "video_db" / "yc2", interval=1.5)
    assert features.id2nframe == FeatureDb(GOLDEN_VALUE / "world" / "video_db" / "yc2").id2nframe
