"""Loading weights: names, growth, clashes, and the report."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from config.model_config import ModelConfig
from model.checkpoint import load_weights, normalise_names, read_state_dict
from model.vcmr import HeroForVcmr
from utils.errors import UserError

BLOCK = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
WIDTH = 6
WORDS = "v_encoder.f_encoder.embeddings.word_embeddings.weight"
FRAMES = "v_encoder.f_encoder.img_embeddings.position_embeddings.weight"
TYPES = "v_encoder.f_encoder.embeddings.token_type_embeddings.weight"


def small_model(vocab_size=30, width=WIDTH):
    text = BLOCK | {"vocab_size": vocab_size}
    blocks = {"f_config": text, "c_config": BLOCK, "q_config": text}
    return HeroForVcmr(ModelConfig.from_dict(blocks), width)


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_words_are_padded_to_a_multiple_of_eight():
    assert small_model(vocab_size=30).state_dict()[WORDS].shape == (32, 8)


def test_everything_loads_by_name():
    source, target = small_model(), small_model()
    report = load_weights(target, copied(source))
    assert len(report.loaded) == len(source.state_dict())
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_a_smaller_vocabulary_is_padded_with_zero_rows():
    state = copied(small_model(vocab_size=16))
    model = small_model(vocab_size=30)
    report = load_weights(model, state)
    assert torch.equal(model.state_dict()[WORDS][:16], state[WORDS])
    assert not model.state_dict()[WORDS][16:].any()
    assert WORDS in report.grown and "v_encoder.f_encoder.lm_head.bias" in report.grown


def test_the_frame_table_takes_the_files_length_and_grows_with_zeros():
    state = copied(small_model())
    longer = small_model()
    state[FRAMES] = torch.randn(130, 8)
    load_weights(longer, state)
    assert torch.equal(longer.state_dict()[FRAMES], state[FRAMES])
    state[FRAMES] = torch.randn(50, 8)
    shorter = small_model()
    load_weights(shorter, state)
    assert torch.equal(shorter.state_dict()[FRAMES][:50], state[FRAMES])
    assert not shorter.state_dict()[FRAMES][50:].any()


def test_one_token_type_becomes_both():
    state = copied(small_model())
    state[TYPES] = torch.randn(1, 8)
    model = small_model()
    load_weights(model, state)
    assert torch.equal(model.state_dict()[TYPES], state[TYPES].expand(2, 8))


def test_the_report_tells_new_ignored_missing_and_unexpected_apart():
    state = copied(small_model())
    del state["video_query_linear.weight"], state["v_encoder.mask_embedding.weight"]
    state["decoder.tri_mask"] = torch.ones(3, 3)
    state["extra.weight"] = torch.ones(1)
    report = load_weights(small_model(), state)
    assert report.new_heads == ["video_query_linear.weight"]
    assert report.missing == ["v_encoder.mask_embedding.weight"]
    assert report.ignored == ["decoder.tri_mask"]
    assert report.unexpected == ["extra.weight"]
    assert any("UNEXPECTED" in line and "extra.weight" in line for line in report.lines())
    with pytest.raises(UserError, match="lacks 2 weights"):
        report.require_complete(Path("model_step_1.pt"))


def test_old_names_and_half_precision():
    state = normalise_names(
        {"a.LayerNorm.gamma": torch.ones(2).half(), "a.LayerNorm.beta": torch.zeros(2)}
    )
    assert list(state) == ["a.LayerNorm.weight", "a.LayerNorm.bias"]
    assert state["a.LayerNorm.weight"].dtype == torch.float32


def test_another_feature_width_is_named():
    with pytest.raises(UserError, match="features 6 values wide, these are 10 wide"):
        load_weights(small_model(width=10), copied(small_model()))


def test_other_shape_clashes_are_listed():
    state = copied(small_model())
    state["video_query_linear.weight"] = torch.ones(4, 4)
    with pytest.raises(
        UserError, match=r"video_query_linear\.weight: file \(4, 4\), model \(8, 8\)"
    ):
        load_weights(small_model(), state)


def test_files_of_every_kind(tmp_path):
    state = {"x": torch.arange(3.0)}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name)["x"], state["x"])


@pytest.mark.parametrize("name", ["a.pt", "b.safetensors"])
def test_a_file_cut_short_is_one_clear_line(tmp_path, name):
    state = {"x": torch.arange(3000.0)}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short"):
        read_state_dict(tmp_path / name)


def test_what_is_no_state_dict_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "none.pt")
    torch.save({"step": 3}, tmp_path / "point.pt")
    with pytest.raises(UserError, match="no flat dictionary of tensors"):
        read_state_dict(tmp_path / "point.pt")


def test_junk_is_one_clear_line(tmp_path):
    """The unpickler trips over damaged bytes in many ways; a user sees one."""
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.zeros(5, 5)}, whole, _use_new_zipfile_serialization=False)
    content = bytearray(whole.read_bytes())
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.pt"
    for size in [0, 1, 20, *rng.integers(1, len(content), 40)]:
        broken = content.copy()
        broken[rng.integers(len(broken))] ^= 0xFF
        damaged.write_bytes(rng.bytes(size) if size < 30 else bytes(broken[:size]))
        with pytest.raises(UserError, match=r"damaged\.pt cannot be read \(.+\); was it cut short"):
            read_state_dict(damaged)
