"""Model sizes: the shipped files hold the published numbers; mistakes are named."""

import copy
import json

import pytest

from config.model_config import BlockConfig, ModelConfig
from tests.support import REPOSITORY
from utils.errors import UserError
from utils.files import write_json

CONFIG = REPOSITORY / "config"

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 514,
    "type_vocab_size": 2,
}


def small(**changes: object) -> dict:
    """Parsed JSON of a small model; ``changes`` go to its first block."""
    return {"f_config": {**SMALL, "vocab_size": 1000, **changes}, "c_config": dict(SMALL)}


def sizes(block: BlockConfig) -> tuple:
    return (
        block.num_hidden_layers,
        block.vocab_size,
        block.type_vocab_size,
        block.max_position_embeddings,
    )


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (
            "hero_pretrain",
            {"f": (6, 50265, 1, 514), "c": (3, None, 2, 514), "q": (0, 50265, 1, 514)},
        ),
        (
            "hero_finetune",
            {"f": (6, 50272, 2, 514), "c": (3, None, 2, 514), "q": (0, 50272, 1, 514)},
        ),
        ("hero_tvc", {"f": (6, 50272, 2, 514), "c": (3, None, 2, 514), "d": (2, 50272, 1, 1024)}),
    ],
)
def test_published_sizes(name, blocks):
    config = ModelConfig.from_json(CONFIG / f"{name}.json")
    present = {key: getattr(config, f"{key}_config") for key in "fcqd"}
    assert {key: sizes(block) for key, block in present.items() if block} == blocks
    for key in blocks:
        block = present[key]
        assert (block.hidden_size, block.num_attention_heads) == (768, 12)
        assert (block.intermediate_size, block.hidden_act) == (3072, "gelu")
        assert (block.hidden_dropout_prob, block.attention_probs_dropout_prob) == (0.1, 0.1)
        assert (block.initializer_range, block.layer_norm_eps) == (0.02, 1e-12)


@pytest.mark.parametrize(("name", "other"), [("hero_debug", "q"), ("hero_debug_tvc", "d")])
def test_debug_sizes(name, other):
    config = ModelConfig.from_json(CONFIG / f"{name}.json")
    assert sizes(config.f_config) == (2, 2048, 2, 514)
    assert sizes(config.c_config) == (1, None, 2, 514)
    assert getattr(config, f"{other}_config").hidden_size == 128


@pytest.mark.parametrize("path", sorted(CONFIG.glob("hero_*.json")), ids=lambda path: path.stem)
def test_shipped_files_hold_no_unknown_key(path, caplog):
    ModelConfig.from_json(path)
    assert caplog.text == ""


@pytest.mark.golden
def test_recorded_sizes_survive_a_round_trip(expected):
    for path in [expected / "model_finetune.json", expected / "model_tvc.json"]:
        config = ModelConfig.from_json(path)
        assert ModelConfig.from_dict(config.to_dict()) == config
        saved = json.loads(path.read_text())
        for name, block in config.to_dict().items():
            assert block == {"layer_norm_eps": 1e-12, **saved[name]}
    assert config.q_config is None and config.d_config is not None


def test_absent_keys_have_defaults():
    config = ModelConfig.from_dict(small())
    assert (config.f_config.layer_norm_eps, config.f_config.hidden_act) == (1e-12, "gelu")
    assert ModelConfig.from_dict(small(layer_norm_eps=1e-5)).f_config.layer_norm_eps == 1e-5
    assert (config.q_config, config.d_config) == (None, None)


def test_unknown_keys_are_reported(caplog):
    blocks = {**small(pooler="tanh"), "x_config": {}}
    assert ModelConfig.from_dict(blocks) == ModelConfig.from_dict(small())
    assert "unknown keys are ignored: f_config.pooler, x_config" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 66},
            "f_config: hidden_size = 66 must be a multiple of 4 heads",
        ),
        ({"hidden_size": "64"}, 'f_config: hidden_size: expected an integer, got "64"'),
        ({"hidden_act": "tanh"}, "f_config: hidden_act: expected one of gelu"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob = 1.0 must be at least 0 and below 1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1 must be 0 or more"),
        ({"vocab_size": 0}, "vocab_size = 0 must be greater than 0"),
        ({"vocab_size": None}, "f_config needs vocab_size"),
        ({"hidden_size": 128}, "all blocks need the same hidden_size, found [64, 128]"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    write_json(tmp_path / "model.json", small(**changes))
    with pytest.raises(UserError) as caught:
        ModelConfig.from_json(tmp_path / "model.json")
    assert str(caught.value).startswith(str(tmp_path / "model.json"))
    assert message in str(caught.value)


def test_absent_values_are_named():
    blocks = copy.deepcopy(small())
    del blocks["c_config"]["hidden_size"]
    with pytest.raises(UserError, match="c_config: needs hidden_size"):
        ModelConfig.from_dict(blocks)
    with pytest.raises(UserError, match="needs c_config"):
        ModelConfig.from_dict({"f_config": small()["f_config"]})
    with pytest.raises(UserError, match="expected a JSON object with f_config and c_config"):
        ModelConfig.from_dict([])
