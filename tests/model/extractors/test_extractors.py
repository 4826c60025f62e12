"""The extractors' networks: against reference arithmetic and other implementations; their files."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from model.extractors.build import build_extractor
from model.extractors.resnet import IMAGENET_MEAN, IMAGENET_STD, ResNetFeatures
from model.extractors.slowfast import SlowFastFeatures
from model.extractors.weights import load_published
from tests.support import RECORDED
from utils.errors import UserError
from utils.tensor_files import weights_file

RECORD = json.loads((RECORDED / "slowfast.json").read_text())["layouts"]
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
DEPTHS, WIDTHS = (2, 1, 2, 1), (16, 32, 48, 64)


def made_up(name: str, shape: list[int]) -> torch.Tensor:
    """A weight that depends on its name alone and keeps activations in range."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(".weight"):
        value = rng.uniform(0.5, 1.0, shape)
    else:
        value = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(value.astype(np.float32))


def norm(name: str, channels: int) -> dict[str, list[int]]:
    return {f"{name}.{part}": [channels] for part in NORM_PARTS}


def torchvision_shapes(depths, widths) -> dict[str, list[int]]:
    """Names and shapes of torchvision's bottleneck ResNets."""
    shapes = {"conv1.weight": [64, 3, 7, 7], **norm("bn1", 64)}
    inputs = 64
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for block in range(depth):
            at, inner = f"layer{stage}.{block}", width // 4
            shapes[f"{at}.conv1.weight"] = [inner, inputs, 1, 1]
            shapes[f"{at}.conv2.weight"] = [inner, inner, 3, 3]
            shapes[f"{at}.conv3.weight"] = [width, inner, 1, 1]
            for number, channels in enumerate((inner, inner, width), start=1):
                shapes |= norm(f"{at}.bn{number}", channels)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = [width, inputs, 1, 1]
                shapes |= norm(f"{at}.downsample.1", width)
            inputs = width
    return shapes | {"fc.weight": [1000, inputs], "fc.bias": [1000]}


def torchvision_state(depths=DEPTHS, widths=WIDTHS) -> dict[str, torch.Tensor]:
    shapes = torchvision_shapes(depths, widths)
    return {name: made_up(name, shape) for name, shape in shapes.items()}


def reference_resnet(state, images, depths) -> torch.Tensor:
    """ResNet's arithmetic from torchvision's names: (B, S, S, 3) uint8 → (B, width)."""

    def normed(x, name):
        weight, bias, mean, var = (state[f"{name}.{part}"] for part in NORM_PARTS)
        return F.batch_norm(x, mean, var, weight, bias)

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = (images / 255.0 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    x = normed(conv(x.permute(0, 3, 1, 2), "conv1", 2), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = normed(conv(x, f"{at}.conv1"), f"{at}.bn1").relu()
            y = normed(conv(y, f"{at}.conv2", stride), f"{at}.bn2").relu()
            y = normed(conv(y, f"{at}.conv3"), f"{at}.bn3")
            if block == 0:
                x = normed(conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")
            x = (x + y).relu()
    return x.mean(dim=(2, 3))


def small_resnet() -> ResNetFeatures:
    return ResNetFeatures(DEPTHS, WIDTHS).eval()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def pixels(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


# --- ResNet ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_resnet_is_torchvisions(tmp_path):
    state, images = torchvision_state(), pixels(2, 64, 64, 3)
    model = small_resnet()
    load_published(model.network, saved(tmp_path / "resnet.pth", state), model.layouts)
    found = model(images[:, None])
    assert found.shape == (2, 64)
    torch.testing.assert_close(found, reference_resnet(state, images, DEPTHS))


def test_every_name_of_resnet_152_has_a_place(tmp_path):
    shapes = torchvision_shapes((3, 8, 36, 3), (256, 512, 1024, 2048))
    with torch.device("meta"):
        model = ResNetFeatures()
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    counters = {f"{name.rpartition('.')[0]}.num_batches_tracked" for name in shapes if "bn" in name}
    state |= {name: torch.tensor(0) for name in counters}  # newer files have them
    with pytest.warns(UserWarning, match="no-op"):  # nothing can be copied to "meta"
        load_published(model.network, saved(tmp_path / "resnet152.pth", state), model.layouts)
    assert model.width == 2048


@torch.no_grad()
@pytest.mark.parametrize("form", ["folder", "safetensors", "bin"])
def test_resnet_of_hugging_face(tmp_path, form):
    torch.manual_seed(0)
    config = ResNetConfig(depths=list(DEPTHS), hidden_sizes=list(WIDTHS))
    other = ResNetForImageClassification(config).eval()
    path = tmp_path / "resnet-152"
    other.save_pretrained(path)
    if form == "safetensors":
        path = path / "model.safetensors"
    if form == "bin":
        (path / "model.safetensors").unlink()
        saved(path / "pytorch_model.bin", other.state_dict())
    model = small_resnet()
    load_published(model.network, weights_file(path), model.layouts)
    images = pixels(1, 1, 64, 64, 3)
    normalised = (images[:, 0] / 255.0 - model.mean) / model.std
    reference = other.resnet(normalised.permute(0, 3, 1, 2)).pooler_output.flatten(1)
    torch.testing.assert_close(model(images), reference)


# --- SlowFast -------------------------------------------------------------------------------------


def recorded_state(layout: str) -> dict[str, torch.Tensor]:
    record = RECORD[layout]
    shapes = dict(record["weights"])
    for name, channels in record["norms"].items():
        shapes |= norm(name, channels)
    state = {name: made_up(name, shape) for name, shape in shapes.items()}
    return state | {f"{name}.num_batches_tracked": torch.tensor(0) for name in record["norms"]}


@torch.no_grad()
@pytest.mark.parametrize("layout", RECORD)
def test_slowfast_is_that_of_other_implementations(tmp_path, layout):
    path = saved(tmp_path / "slowfast.pyth", {"model_state": recorded_state(layout), "epoch": 1})
    model = SlowFastFeatures().eval()
    load_published(model, path, model.layouts)
    found = model(pixels(1, 32, 64, 64, 3))
    assert found.shape == (1, 2304)
    recorded = torch.tensor(RECORD[layout]["features"])
    torch.testing.assert_close(found[0, ::64], recorded, rtol=1e-4, atol=1e-4)


def test_the_slow_pathway_sees_8_frames_with_the_first_and_the_last():
    assert SlowFastFeatures(8).slow_frames.tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


# --- Files that do not fit ------------------------------------------------------------------------


def without(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is no flat dictionary of tensors"),
        ({"epoch": 3}, "is no flat dictionary of tensors"),
        ({}, "is no flat dictionary of tensors"),
        ({"encoder.weight": torch.zeros(1)}, "no known way .encoder.weight, …; known: torchvision"),
        (
            without(torchvision_state(), "layer3.1.bn2.bias"),
            "lacks encoder.stages.2.layers.1.layer",
        ),
        (torchvision_state() | {"layer9.0.gate": torch.zeros(1)}, "has the unknown layer9.0.gate"),
        (torchvision_state((3, 1, 2, 1)), "unknown encoder.stages.0.layers.2.layer.0.conv"),
        (torchvision_state(widths=(16, 32, 48, 80)), r"is \(80, 48, 1, 1\) there and \(64, 48"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, message):
    path = saved(tmp_path / "w.pth", content)
    with pytest.raises(UserError, match=message) as caught:
        load_published(small_resnet().network, path, ResNetFeatures.layouts)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02K\x01."])
def test_a_file_that_is_no_weights(tmp_path, content):
    path = tmp_path / "SLOWFAST_8x8_R50.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no PyTorch file"):
        load_published(SlowFastFeatures(8), path, SlowFastFeatures.layouts)


def test_a_pickle_with_code_is_not_executed(tmp_path):
    path = saved(tmp_path / "w.pth", {"model_state": Path("/")})
    with pytest.raises(UserError, match="cannot be read"):
        load_published(SlowFastFeatures(8), path, SlowFastFeatures.layouts)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="do not exist"):
        weights_file(tmp_path / "resnet.pth")
    with pytest.raises(UserError, match="holds no weights"):
        weights_file(tmp_path)


# --- Untrained ------------------------------------------------------------------------------------


@pytest.mark.slow
@torch.no_grad()
def test_untrained_networks_are_always_the_same_and_tell_pictures_apart():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model = build_extractor("resnet", None, torch.device("cpu"), half=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = build_extractor("resnet", None, torch.device("cpu"), half=False)
    images = pixels(2, 1, 64, 64, 3)
    images[1] //= 4
    found = model(images)
    assert torch.equal(found, again(images))
    assert found.shape == (2, 2048)
    assert 0.01 < found.std() < 100
    assert (found[0] - found[1]).abs().mean() > 0.01
