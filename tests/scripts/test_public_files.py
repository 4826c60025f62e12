"""TV's data as public projects hand it on, under their own file names."""

import json
import shutil
from pathlib import Path

import pytest

import eval_vcmr
import train_vcmr
from data.stores.lmdb_io import FeatureDb, TextDb
from scripts import check_data, format_submission, prepare_data, prepro_sub
from scripts.preparation import raw
from scripts.preparation.datasets import CORPORA
from tests.scripts.test_prepare_data import assert_same_records, prepare
from tests.search.test_search_videos import documented_commands
from utils.errors import UserError
from utils.files import read_json, write_json, write_jsonl

ANNOTATIONS = {
    "tvr_train.jsonl": "tvr_train_release.jsonl",
    "tvr_val.jsonl": "tvr_val_release.jsonl",
    "tvr_test_public.jsonl": "tvr_test_public_release.jsonl",
    "vid2dur_idx.json": "tvr_video2dur_idx.json",
    "tv_subtitles.jsonl": "tvqa_preprocessed_subtitles.jsonl",
}
SPLITS = ("train", "val")
SHORT = {"num_train_steps": 2, "warmup_steps": 1, "valid_steps": 2, "train_batch_size": 3}
SHORT |= {"num_gpus_of_recipe": None, "n_workers": 0, "pin_mem": False}
FEATURES = Path("tvr_feature_release", "video_feature", "resnet_slowfast_1.5")


@pytest.fixture
def public(world: Path, tmp_path: Path) -> list[str]:
    """Options for the recorded world's raw files under their public names, and its features."""
    (tmp_path / "ann").mkdir()
    for name, public_name in ANNOTATIONS.items():
        shutil.copy(world / "ann" / name, tmp_path / "ann" / public_name)
    shutil.copytree(world / "video_db" / "tv" / "resnet_slowfast_1.5", tmp_path / FEATURES)
    folders = (
        "--ann_dir",
        str(tmp_path / "ann"),
        "--feature_dir",
        str(tmp_path / FEATURES.parts[0]),
    )
    return ["--from", "raw", *folders, "--toker", str(world / "toker"), "--workers", "1"]


@pytest.mark.golden
def test_the_documented_commands(world, expected, tmp_path, public, capsys, monkeypatch):
    """Public files become the recorded databases, which a run is trained and evaluated on."""
    storage, run = tmp_path, tmp_path / "run"
    (tmp_path / FEATURES.parts[0]).rename(tmp_path / "features")
    monkeypatch.setenv("HERO_TOKER", str(world / "toker"))
    prepared, *trained = (
        [word.replace("$PATH_TO_STORAGE", str(storage)) for word in words[2:]]
        for words in documented_commands("TVR from public files")
    )
    prepare_data.main([*prepared, "--workers", "1"])
    assert "passed over" not in capsys.readouterr().out
    token_ids = read_json(expected / "token_ids.json")
    for name in ("tvr_train.db", "tvr_val.db", "tvr_test_public.db", "tv_subtitles.db"):
        made = storage / "txt_db" / name
        assert_same_records(made, world / "txt_db" / name, token_ids[name])
    indices = TextDb(storage / "txt_db" / "tv_subtitles.db").side("vid2dur_idx.json")
    assert indices == read_json(world / "ann" / "vid2dur_idx.json")
    made, recorded = (FeatureDb(root / "video_db" / "tv") for root in (storage, world))
    assert read_json(storage / "video_db" / "tv" / "id2nframe.json") == recorded.id2nframe
    vid = min(recorded.id2nframe)
    assert (made[vid] == recorded[vid]).all()
    source = tmp_path / "features" / Path(*FEATURES.parts[1:])
    assert (made.path / "data.mdb").samefile(source / "data.mdb")  # no second copy
    assert not list(source.parent.glob("*.json"))
    prepare_data.main(prepared)
    assert capsys.readouterr().out.startswith("nothing to do")
    recipe = read_json(trained[0][1]) | SHORT
    recipe |= {f"{split}_query_txt_db": str(storage / f"txt_db/tvr_{split}.db") for split in SPLITS}
    recipe |= {"sub_txt_db": str(storage / "txt_db/tv_subtitles.db")}
    recipe |= {"vfeat_db": str(made.path.parent), "output_dir": str(run), "fp16": False}
    recipe |= {"checkpoint": None}
    recipe |= {"model_config": str(expected / "model_finetune.json")}
    write_json(tmp_path / "recipe.json", recipe)
    spelled = {"/storage/tvr_public": str(run), trained[0][1]: str(tmp_path / "recipe.json")}
    spelled |= {"5000": "2", "roberta-base": str(expected / "pretrained.pt")}
    spelled |= {"submission.json": str(tmp_path / "submission.json")}
    spelled[trained[3][5]] = str(run / "results_val/results_2_all.json")
    own = {"--load_partial_pretrained", "--skip_layer_loading"}  # RoBERTa's weights are not here
    scripts = (check_data, train_vcmr, eval_vcmr, format_submission)
    for script, words in zip(scripts, trained, strict=True):
        script.main([spelled.get(word, word) for word in words if word not in own])
    assert "VCMR" in read_json(run / "results_val" / "metrics_2.json")
    assert "VCMR" in read_json(tmp_path / "submission.json")


def test_nothing_is_missing(tmp_path, public, capsys):
    prepare(tmp_path / "storage", *public, "--dry-run")
    said = capsys.readouterr().out
    assert said.startswith("step ") and said.count(" run ") == 5


def steps(storage: Path, public: list[str], capsys, *more: str, dataset: str = "tvr") -> list[str]:
    """Names of all steps."""
    prepare(storage, *public, "--graph", *more, dataset=dataset)
    return [line.strip().partition(": ")[0] for line in capsys.readouterr().out.splitlines()]


def test_a_feature_database_is_found_wherever_it_lies(tmp_path, public, capsys):
    """Named itself, below a folder, or in its place already."""
    storage, features = tmp_path / "storage", tmp_path / FEATURES
    below = steps(storage, public, capsys)
    assert "video_db/tv" in below and "video_db/tv/video_feat_info.pkl" not in below
    at = public.index("--feature_dir")
    named = [*public[: at + 1], str(features), *public[at + 2 :]]
    assert steps(storage, named, capsys) == below
    spelled = features.rename(features.with_name("resnet_slowfast_1.50"))
    assert "video_db/tv/video_feat_info.pkl" in steps(storage, public, capsys)
    in_place = storage / "video_db" / "tv" / "resnet_slowfast_1.5"
    shutil.copytree(spelled, in_place)
    without = [*public[:at], *public[at + 2 :]]
    assert steps(storage, without, capsys) == below
    raw.take_database(in_place, in_place, CORPORA["tv"])
    assert read_json(in_place.parent / "id2nframe.json")
    shutil.copytree(spelled, tmp_path / FEATURES.parts[0] / "a" / in_place.name)
    shutil.copytree(spelled, tmp_path / FEATURES.parts[0] / "b" / in_place.name)
    with pytest.raises(UserError, match=r"holds 2 databases resnet_slowfast_1\.5 "):
        steps(storage, public, capsys)


def test_a_database_of_another_file_system_is_linked_by_name(tmp_path, public, monkeypatch):
    source, target = tmp_path / FEATURES, tmp_path / "video_db" / "tv" / "resnet_slowfast_1.5"
    target.parent.mkdir(parents=True)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    write_json(source.parent / "id2nframe.json", {"told": 3})
    for _ in range(2):
        raw.take_database(source, target, CORPORA["tv"])
        assert target.is_symlink() and target.samefile(source)
        assert read_json(target.parent / "id2nframe.json") == {"told": 3}  # as it was handed on


def test_what_is_missing_and_where_it_can_be_had(tmp_path, public, capsys):
    storage, ann = tmp_path / "storage", tmp_path / "ann"
    (ann / "tvr_train_release.jsonl").unlink()
    (ann / "tvqa_preprocessed_subtitles.jsonl").unlink()
    (ann / "tvr_video2dur_idx.json").unlink()
    prepare(storage, *public, "--dry-run")
    said = capsys.readouterr().out.splitlines()
    home = "https://github.com/jayleicn/TVRetrieval"
    (train,) = [line for line in said if "tvr_train.db" in line]
    assert train.endswith(f"has no annotation in {ann} (tvr_train_release.jsonl: {home})")
    (subtitles,) = [line for line in said if line.startswith("passed over: txt_db/tv_subtitles.db")]
    assert "tvqa_preprocessed_subtitles.jsonl" in subtitles and home in subtitles
    assert any(f"no tvr_video2dur_idx.json ({home})" in line for line in said)
    shutil.copy(ann / "tvr_val_release.jsonl", ann / "tvqa_preprocessed_subtitles.jsonl")
    at = public.index("--feature_dir")
    with pytest.raises(UserError, match=r"id2nframe\.json, .*houzhijian/CONQUER"):
        prepare(storage, *public[:at], *public[at + 2 :])
    for path in ann.iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"tvc_train_release\.jsonl, tvc_val_release\.jsonl, .* \(http"
    ):
        prepare(storage, *public[:at], *public[at + 2 :], dataset="tvc")


SRT = "1\n00:00:01,000 --> 00:00:02,500\n(Leonard:) {}\n\n2\n00:00:03,000 --> 00:00:04,000\nYes.\n"


def test_a_folder_of_subtitle_files(tmp_path, public, capsys):
    """As TVQA's are published, in whatever encoding."""
    storage, ann = tmp_path / "storage", tmp_path / "ann"
    (ann / "tvqa_preprocessed_subtitles.jsonl").unlink()
    folder = ann / "tvqa_subtitles"
    folder.mkdir()
    assert "txt_db/tv_subtitles.db" not in steps(storage, public, capsys)  # it is empty
    for name, encoding in (("a", "utf-8"), ("b", "cp1252")):
        text = SRT.format("Ça “va”?").encode(encoding)
        (folder / f"castle_s01e01_seg02_clip_{name}.srt").write_bytes(text)
    names = steps(storage, public, capsys)
    assert {"txt_db/ann/tv_subtitles.jsonl", "txt_db/tv_subtitles.db"} <= set(names)
    prepare(storage, *public, "--only", "txt_db/ann/tv_subtitles.jsonl")
    lines = (storage / "txt_db" / "ann" / "tv_subtitles.jsonl").read_text().splitlines()
    subtitles = [
        {"text": " (Leonard:) Ça “va”?", "start": 1.0, "end": 2.5},
        {"text": " Yes.", "start": 3.0, "end": 4.0},
    ]
    assert [json.loads(line) for line in lines] == [
        {"vid_name": f"castle_s01e01_seg02_clip_{name}", "sub": subtitles} for name in "ab"
    ]
    for file in ("tvc_train_release.jsonl", "tvc_val_release.jsonl"):  # captions need them, too
        write_jsonl(ann / file, [{"vid_name": "a", "clip_id": 1, "ts": [0, 1], "descs": []}])
    captions = steps(storage, public, capsys, dataset="tvc")
    assert {"txt_db/ann/tv_subtitles.jsonl", "txt_db/tvc_val.db"} <= set(captions)


def test_subtitles_of_videos_without_features(world, tmp_path, capsys, caplog):
    frames = read_json(world / "video_db" / "tv" / "id2nframe.json")
    lost = max(frames)
    write_json(tmp_path / "frames.json", {v: n for v, n in frames.items() if v != lost})
    words = ["--annotation", str(world / "ann" / "tv_subtitles.jsonl"), "--workers", "1"]
    words += ["--output", str(tmp_path / "sub.db"), "--toker", str(world / "toker")]
    words += ["--frame_length", "1.5", "--vid2nframe"]
    prepro_sub.main([*words, str(tmp_path / "frames.json")])
    assert f"1 of {len(frames)} videos" in caplog.text and f"such as '{lost}'" in caplog.text
    part = TextDb(tmp_path / "sub.db")
    assert lost not in part and lost not in part.side("vid2len.json")
    whole = TextDb(world / "txt_db" / "tv_subtitles.db")
    assert list(part.keys()) == [vid for vid in whole.keys() if vid != lost]  # noqa: SIM118
    write_json(tmp_path / "none.json", {"another": 3})
    with pytest.raises(UserError, match=rf"none of the {len(frames)} videos of"):
        prepro_sub.main([*words, str(tmp_path / "none.json"), "--force"])
