"""Image–text models: what they make of frames and sentences is what transformers makes of them."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from data.prepare import video_windows
from data.prepare.feature_files import load_features
from data.prepare.find_videos import VideoFile
from data.prepare.video_frames import Sampling, read_windows
from data.prepare.video_windows import decode_videos
from data.stores.lmdb_io import FeatureDb
from engine.extractors import describe
from model.extractors.build import build_extractor
from model.extractors.image_text import ClipFeatures
from scripts import convert_video_db_single_feature
from scripts.extract_features import main
from tests.support.small_image_text import colourful, save_tiny_clip, save_tiny_siglip
from tests.support.videos import make_video
from utils.errors import UserError
from utils.files import read_json

SENTENCES = ["a red disc", "the dog jumps into the water", "a " * 40]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "clip": save_tiny_clip(folder / "clip"),
        "siglip": save_tiny_siglip(folder / "siglip"),
    }


@pytest.fixture
def film(tmp_path) -> Path:
    """Six seconds, much wider than high, so that a centre square is not the whole picture."""
    return make_video(tmp_path / "films" / "a.mp4", 6, size=(160, 48))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_pictures_are_as_transformers_makes_them(models, kind):
    pictures = [colourful(48, 160, seed) for seed in range(3)]
    inputs = AutoImageProcessor.from_pretrained(models[kind])(images=pictures, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(models[kind]).get_image_features(**inputs)
        found = ClipFeatures.load(str(models[kind]))(torch.from_numpy(np.stack(pictures)[:, None]))
    torch.testing.assert_close(found, expected.pooler_output, rtol=0, atol=1e-5)
    assert found.shape == (3, {"clip": 12, "siglip": 16}[kind])


@pytest.mark.parametrize(("kind", "padding"), [("clip", True), ("siglip", "max_length")])
def test_sentences_are_as_transformers_makes_them(models, kind, padding):
    tokens = AutoTokenizer.from_pretrained(models[kind])(
        SENTENCES, padding=padding, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        expected = AutoModel.from_pretrained(models[kind]).get_text_features(**tokens)
    model = ClipFeatures.load(str(models[kind]))
    found = model.encode_texts(SENTENCES)
    torch.testing.assert_close(found, expected.pooler_output, rtol=0, atol=1e-5)
    alone = model.encode_texts(SENTENCES[:1])
    torch.testing.assert_close(found[:1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_features_of_a_film_are_those_of_its_whole_frames(models, kind, film, tmp_path):
    words = ["--video_dir", str(film.parent), "--output", str(tmp_path / "out"), "--workers", "1"]
    main([*words, "--models", "clip", "--clip_weights", str(models[kind]), "--interval", "2"])
    found = load_features(tmp_path / "out" / "clip_features" / "videos" / "a.npz")
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = [frames[10], frames[30], frames[50]]  # at 1, 3 and 5 seconds of ten frames each
    inputs = AutoImageProcessor.from_pretrained(models[kind])(images=chosen, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(models[kind]).get_image_features(**inputs)
    np.testing.assert_allclose(found, expected.pooler_output, rtol=0, atol=1e-5)
    made_by = json.loads((tmp_path / "out" / "extraction.json").read_text())["clip"]
    assert (made_by["model"], made_by["weights"], made_by["interval"]) == (kind, kind, 2.0)


def test_clip_vit_features_lie_where_value_has_them(models, film, tmp_path):
    """And go into a database, which says what made them."""
    words = ["--video_dir", str(film.parent), "--output", str(tmp_path / "feat"), "--workers", "1"]
    weights = ["--models", "clip", "--clip_weights", str(models["clip"])]
    main([*words, *weights, "--layout", "value"])
    found = load_features(tmp_path / "feat" / "clip-vit" / "a.npz")
    assert found.shape == (4, 12)  # a tiny model's width
    to = ["--output", str(tmp_path), "--dataset", "yc2", "--workers", "1"]
    convert_video_db_single_feature.main(["--feature_dir", str(tmp_path / "feat/clip-vit"), *to])
    db = FeatureDb(tmp_path / "yc2", "clip-vit")
    np.testing.assert_array_equal(db["a"], found)
    assert read_json(db.path / "meta.json")["extraction"]["clip"]["model"] == "clip"


def test_the_whole_picture_is_read_in_one_size(film):
    windows = read_windows(film, Sampling(1.5, (0.5,), whole=True))
    assert {window.shape for window in windows} == {(1, 48, 160, 3)}


def test_of_large_pictures_fewer_are_held(film, monkeypatch):
    monkeypatch.setattr(video_windows, "PIECE_BYTES", 2 * 48 * 160 * 3)
    video = VideoFile("a", film, "videos", str(film.parent))
    pieces = decode_videos([video], Sampling(1.5, (0.5,), whole=True), batch_size=8, workers=1)
    assert [len(piece.frames) for piece in pieces if piece.frames is not None] == [2, 2]


def test_networks_that_see_other_pictures_run_one_after_the_other(models, film, tmp_path):
    words = ["--video_dir", str(film.parent), "--output", str(tmp_path / "out"), "--random_weights"]
    with pytest.raises(UserError, match="clip sees whole pictures, the others"):
        main([*words, "--models", "resnet", "clip"])


class MeanColour(torch.nn.Module):
    """A user's extractor."""

    name, width, frame_times, whole_pictures = "colour", 3, (0.25, 0.75), True

    def forward(self, windows):
        return windows.float().mean(dim=(1, 2, 3)) / 255


def test_a_class_of_the_users_extracts(film, tmp_path):
    words = ["--video_dir", str(film.parent), "--output", str(tmp_path / "out"), "--workers", "1"]
    main(
        [*words, "--models", "tests.model.extractors.test_image_text:MeanColour", "--interval", "2"]
    )
    found = load_features(tmp_path / "out" / "colour_features" / "videos" / "a.npz")
    # It gets brighter evenly: frames 5 and 15 of 60 are the first window's.
    np.testing.assert_allclose(found[:, 0], [10 / 60, 30 / 60, 50 / 60], atol=0.02)
    made_by = json.loads((tmp_path / "out" / "extraction.json").read_text())["colour"]
    assert made_by["model"] == "colour"
    assert made_by["weights"] == "tests.model.extractors.test_image_text:MeanColour"
    assert len(made_by["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.nowhere:Network", "cannot be found"),
        ("tests.model.extractors.test_image_text:Nothing", "cannot be found"),
        (
            "tests.model.extractors.test_image_text:UserError",
            "must be an nn.Module with name, width",
        ),
        ("torch.nn:ReLU", "it lacks name"),
    ],
)
def test_a_class_that_is_no_extractor(film, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        main(["--video_dir", str(film.parent), "--output", str(tmp_path / "out"), "--models", name])


def damaged(models: dict[str, Path], tmp_path: Path, damage: str) -> str:
    folder = Path(shutil.copytree(models["clip"], tmp_path / "copy"))
    weights = folder / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "other weights":
        shutil.copy(models["siglip"] / "model.safetensors", weights)
    elif damage == "no picture sizes":
        (folder / "preprocessor_config.json").unlink()
    elif damage == "another model":
        (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 9}')
    elif damage == "no model":
        (folder / "config.json").unlink()
    return str(folder)


@pytest.mark.parametrize(
    "damage",
    [
        *("no weights", "cut short", "other weights"),
        *("no picture sizes", "another model", "no model"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line_that_says_how_to_get_one(models, tmp_path, damage):
    with pytest.raises(UserError, match="hf download openai/clip-vit-base-patch32") as told:
        ClipFeatures.load(damaged(models, tmp_path, damage))
    assert len(str(told.value).splitlines()) == 1


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no local folder and cannot be fetched from the hub"):
        ClipFeatures.load(str(tmp_path / "nowhere"))


def test_an_untrained_clip_is_of_the_usual_size_and_says_so():
    model = build_extractor("clip", None, torch.device("cpu"), half=False)
    made_by = describe(model, None, 1.5)
    assert (made_by.model, made_by.width, made_by.weights_sha256) == ("clip", 512, None)
