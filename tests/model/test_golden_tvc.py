"""Captioning against the record: losses, greedy captions, training steps, the command line."""

import json
import shutil

import pytest
import torch

import inf_tvc
from config.model_config import ModelConfig
from data.stores.lmdb_io import TextDb
from data.tvc import CaptionDataset, TargetClips, caption_texts
from data.vocabulary import Vocabulary
from engine.trainer import Task
from model.decoding import DecodingSettings
from model.layers import set_dropout
from model.tvc import HeroForTvc
from tests.support.recorded import DEVICE, assert_recorded, load_recorded, placed, recorded_source
from tests.support.recorded_runs import RecordedLoader, assert_recorded_run
from utils.files import read_jsonl

pytestmark = [pytest.mark.golden, pytest.mark.device]

SMOOTHING, STEPS = 0.1, 16


def recorded_model(expected):
    config = ModelConfig.from_json(expected / "model_tvc.json")
    model = HeroForTvc(config, label_smoothing=SMOOTHING)
    report = load_recorded(model, expected / "pretrained.pt", expected / "head_tvc.pt")
    assert not (report.missing or report.new_heads or report.grown)
    set_dropout(model, 0.0)
    return model.to(DEVICE)


def recorded_videos(world):
    return recorded_source(world, context=1)


@pytest.fixture(scope="module")
def model(expected):
    return recorded_model(expected).eval()


@pytest.fixture(scope="module")
def greedy(expected):
    return json.loads((expected / "tvc_greedy.json").read_text())


def test_weight_names_are_the_contract(expected):
    contract = json.loads((expected / "state_dict_keys.json").read_text())["HeroForTvc"]
    model = HeroForTvc(ModelConfig.from_json(expected / "model_tvc.json"))
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert own == contract["parameters"]


@torch.no_grad()
def test_token_losses(model, recorded, world):
    checked = set()
    for split in ("train", "val"):
        db = caption_texts(world / "txt_db" / f"tvc_{split}.db")
        data = CaptionDataset(db, recorded_videos(world))
        for number, vid in enumerate(data.vids):
            key = f"tvc/token_loss/{vid}"
            if key in recorded:
                losses = model(placed(data.collate([data[number]])))["caption"]
                assert_recorded(losses, recorded[key], vid)
                checked.add(key)
    assert checked == {key for key in recorded if key.startswith("tvc/token_loss/")} != set()


@torch.no_grad()
def test_a_batch_gives_the_losses_of_its_videos_alone(model, world):
    db = caption_texts(world / "txt_db" / "tvc_val.db")
    data = CaptionDataset(db, recorded_videos(world))
    items = [data[number] for number in range(len(data))]
    together = model(placed(data.collate(items)))["caption"]
    alone = torch.cat([model(placed(data.collate([item])))["caption"] for item in items])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_greedy_captions(model, greedy, world, batch_size):
    clips = [
        TargetClips(world / "ann" / f"tvc_{split}.jsonl", recorded_videos(world))
        for split in ("train", "val")
    ]
    vocabulary = Vocabulary.of(TextDb(world / "txt_db" / "tv_subtitles.db"), str(world / "toker"))
    settings = DecodingSettings(vocabulary.begin, vocabulary.end, vocabulary.known_ids, STEPS)
    written = {}
    for data in clips:
        for first in range(0, len(data), batch_size):
            chosen = range(first, min(first + batch_size, len(data)))
            batch = placed(data.collate([data[number] for number in chosen]))
            ids = model.generate(batch.video, batch.clips, settings)
            written |= {
                str(data.lines[place]["clip_id"]): row for place, row in zip(batch.indices, ids)
            }
    assert {clip_id: written[clip_id] for clip_id in greedy} == greedy
    assert greedy


def test_training_steps(expected, world, tmp_path):
    model = recorded_model(expected)
    data = CaptionDataset(caption_texts(world / "txt_db" / "tvc_train.db"), recorded_videos(world))
    task = Task(
        name="tvc",
        model=model,
        loader=RecordedLoader(data, data.collate, batch_size=2),
        loss_weights={"caption": 1.0},
        validate=lambda step: {},
    )
    assert_recorded_run(
        model, task, "tvc", expected, tmp_path, accumulation=1, rate=1e-4, lr_mul=10.0
    )


def recorded_run(expected, folder):
    """A run folder as a user has it: options, model sizes, weights of step 1."""
    run = folder / "exp_tvc"
    shutil.copytree(expected / "exp_tvc" / "log", run / "log")
    (run / "ckpt").mkdir()
    state = {}
    for file in ("pretrained.pt", "head_tvc.pt"):
        state |= torch.load(expected / file, weights_only=True)
    torch.save(state, run / "ckpt" / "model_step_1.pt")
    return run


def infer(run, world, output, *more):
    return inf_tvc.main(
        [
            *("--model_dir", str(run), "--ckpt_step", "1"),
            *("--target_clip", str(world / "ann" / "tvc_val.jsonl"), "--output", str(output)),
            *("--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db")),
            *("--vfeat_db", str(world / "video_db" / "tv")),
            *("--no_fp16", "--n_workers", "0", "--max_gen_step", str(STEPS), *more),
        ]
    )


@pytest.mark.java
def test_inference(expected, world, tmp_path, capsys):
    run = recorded_run(expected, tmp_path)
    metrics = infer(run, world, tmp_path / "out.jsonl")
    recorded = list(read_jsonl(expected / "exp_tvc" / "val_output.jsonl"))
    assert list(read_jsonl(tmp_path / "out.jsonl")) == recorded
    scores = json.loads((expected / "metrics.json").read_text())["tvc"]
    assert metrics == {name: pytest.approx(value, abs=1e-2) for name, value in scores.items()}
    assert all(name in capsys.readouterr().out for name in ["CIDEr"])
