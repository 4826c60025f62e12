"""Loading weights: names, growth, clashes, and the report."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from config.model_config import ModelConfig
from model.checkpoint import (
    feature_axes,
    load_checkpoint,
    load_weights,
    normalise_names,
    read_state_dict,
)
from model.pretrain import HeroForPretraining
from model.tvc import HeroForTvc
from model.vcmr import HeroForVcmr
from model.videoQA import HeroForVideoQA
from tests.support.small_world import IMAGES, OF_WIDTH
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
OUTPUT = "v_encoder.f_encoder.lm_head.decoder.weight"
TYPES = "v_encoder.f_encoder.embeddings.token_type_embeddings.weight"


def small_model(vocab_size=30, width=WIDTH, **sizes):
    block = BLOCK | sizes
    text = block | {"vocab_size": vocab_size}
    blocks = {"f_config": text, "c_config": block, "q_config": text}
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


def test_entries_that_are_no_tensors_are_listed_and_ignored():
    state = copied(small_model())
    plain = {"vocab_padded": True, "step": 3, "note": "mine", "sizes": [1, 2], "none": None}
    report = load_weights(small_model(), {"vocab_padded": True} | state | plain)
    assert sorted(report.ignored) == sorted(plain)
    assert len(report.loaded) == len(state) and not report.unexpected
    assert "ignored (buffer, or no tensor): 5 (vocab_padded, step, note, " in "".join(
        report.lines()
    )


def test_an_entry_that_is_no_tensor_is_no_weight():
    state = copied(small_model()) | {"video_query_linear.bias": None}
    report = load_weights(small_model(), state)
    assert report.new_heads == ["video_query_linear.bias"] == report.ignored


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module.", "_orig_mod."])
@pytest.mark.parametrize("plain", ["vocab_padded", "module.vocab_padded"])
def test_a_prefix_that_all_names_share_is_taken_off(prefix, plain):
    source, target = small_model(), small_model()
    state = {f"{prefix}{name}": value for name, value in copied(source).items()} | {plain: True}
    report = load_weights(target, state)
    assert report.prefix == prefix and not report.unexpected and not report.missing
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
    assert f"names without their prefix {prefix}" in report.lines()


def test_a_prefix_that_belongs_to_the_names_stays():
    """The encoder alone: all names begin with v_encoder., and fit with it."""
    state = {k: v for k, v in copied(small_model()).items() if k.startswith("v_encoder.")}
    report = load_weights(small_model(), state)
    assert not report.prefix and not report.missing and len(report.loaded) == len(state)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    assert load_weights(small_model(), wrapped).prefix == "module."


def test_names_that_do_not_all_share_a_prefix_keep_it():
    state = {f"module.{name}": value for name, value in copied(small_model()).items()}
    report = load_weights(small_model(), state | {"other.weight": torch.ones(1)})
    assert not report.loaded and len(report.unexpected) == len(state) + 1


@pytest.mark.parametrize(("there", "absent"), [(WORDS, OUTPUT), (OUTPUT, WORDS)])
def test_a_weight_tied_to_one_that_is_there_is_not_missing(there, absent):
    source, target = small_model(), small_model()
    state = copied(source)
    del state[absent]
    report = load_weights(target, state)
    assert report.tied == [absent] and not report.missing
    report.require_complete("file.pt")
    for name in (WORDS, OUTPUT):
        assert torch.equal(target.state_dict()[name], source.state_dict()[there])


def test_tied_weights_that_are_both_absent_are_missing():
    state = copied(small_model())
    del state[WORDS], state[OUTPUT]
    assert sorted(load_weights(small_model(), state).missing) == sorted([WORDS, OUTPUT])


def test_tied_weights_that_differ_in_the_file_are_named():
    state = copied(small_model())
    state[OUTPUT] += 1
    model = small_model()
    report = load_weights(model, state)
    assert report.unequal == [OUTPUT] and not report.missing
    assert torch.equal(model.state_dict()[OUTPUT], state[WORDS])
    assert any(line.startswith("UNEQUAL") and OUTPUT in line for line in report.lines())


def saved(folder, content, **options):
    torch.save(content, folder / "file.pt", **options)
    return folder / "file.pt"


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"global_step": 4, "model_state_dict": state, "optim_state_dict": {}},
        lambda state: {"global_step": 4, "model_state_dict": state, "amp_state_dict": {"x": {}}},
        lambda state: {"step": 4, "model": state, "optimizer": {"state": {0: {}}}},
        lambda state: {"epoch": torch.tensor(1), "state_dict": state, "model": {"name": "hero"}},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    ],
)
def test_weights_beside_training_states_own_are_taken_out(tmp_path, wrapped):
    source, target = small_model(), small_model()
    half = {name: value.half() for name, value in copied(source).items()}
    report = load_checkpoint(target, saved(tmp_path, wrapped(half)))
    assert len(report.loaded) == len(half)
    for name, value in target.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, half[name].float())


def test_the_old_format_loads_and_says_that_it_has_no_checksum(tmp_path, caplog):
    caplog.set_level("INFO")
    source, target = small_model(), small_model()
    file = saved(tmp_path, copied(source), _use_new_zipfile_serialization=False)
    assert len(load_checkpoint(target, file).loaded) == len(source.state_dict())
    assert caplog.text.count("carries no checksum") == 1
    caplog.clear()
    load_checkpoint(target, saved(tmp_path, copied(source)))
    assert "checksum" not in caplog.text


@pytest.mark.parametrize(
    ("rename", "complaint"),
    [
        (lambda name: f"x{name}", r"has no weight of this model \(its first is xv_encoder\.f_enc"),
        (lambda name: f"roberta.{name}x", "seems to be RoBERTa.*--load_partial_pretrained"),
        (
            lambda name: f"module.roberta.encoder.layer.{name}x",
            "seems to be RoBERTa.*--load_partial_pretrained",
        ),
        (
            lambda name: name.replace("v_encoder", "encoder"),
            r"has no weight of the encoder \(v_encoder\.\*\), only video_query_linear\.weight",
        ),
    ],
)
def test_a_file_without_a_weight_of_the_encoder_stops_the_run(tmp_path, rename, complaint):
    state = {rename(name): value for name, value in copied(small_model()).items()}
    with pytest.raises(UserError, match=complaint):
        load_checkpoint(small_model(), saved(tmp_path, state))


def test_a_part_of_the_encoder_that_is_missing_is_a_warning(tmp_path, caplog):
    state = copied(small_model()) | {"other_head.weight": torch.ones(1)}
    del state["v_encoder.mask_embedding.weight"], state["video_query_linear.weight"]
    load_checkpoint(small_model(), saved(tmp_path, state))
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "MISSING" in warning.getMessage() and "v_encoder.mask_embedding" in warning.getMessage()


def test_old_names_and_half_precision():
    names = ["a.LayerNorm.gamma", "a.LayerNorm.beta", "beta", "a.abeta"]
    state = normalise_names(dict.fromkeys(names, torch.ones(2).half()))
    assert list(state) == ["a.LayerNorm.weight", "a.LayerNorm.bias", "bias", "a.abeta"]
    assert state["a.LayerNorm.weight"].dtype == torch.float32


@pytest.mark.parametrize("width", [10, 3])
def test_another_feature_width_is_named(width):
    with pytest.raises(
        UserError,
        match=rf"features 6 values wide, these are {width} wide: .*--reinit_feature_layers",
    ):
        load_weights(small_model(width=width), copied(small_model()), of_width)


def of_width(width):
    return small_model(width=width)


@pytest.mark.parametrize("task", [HeroForPretraining, HeroForTvc, HeroForVideoQA, HeroForVcmr])
def test_the_weights_that_depend_on_the_width_of_the_features(task):
    text = BLOCK | {"vocab_size": 30}
    blocks = dict.fromkeys(("f_config", "q_config", "d_config"), text) | {"c_config": BLOCK}
    config = ModelConfig.from_dict(blocks)
    before = torch.get_rng_state()
    assert feature_axes(partial(task, config)) == OF_WIDTH
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("width", [10, 3, WIDTH])
def test_feature_layers_start_afresh(width, caplog):
    """As the model initialised them, also where the file's have the same width; all else loads."""
    source, target = small_model(), small_model(width=width)
    before = copied(target)
    state = copied(source)
    del state[f"{IMAGES}img_LayerNorm.bias"]  # not even needed
    report = load_weights(target, state, of_width, reinit_features=True)
    assert sorted(report.reinitialised) == sorted(OF_WIDTH)
    assert not report.missing and not report.unexpected
    for name, value in target.state_dict().items():
        wanted = before if name in OF_WIDTH else state
        assert torch.equal(value, wanted[name]), name
    (line,) = [line for line in report.lines() if line.startswith("reinitialised")]
    assert all(name in line for name in OF_WIDTH)
    report.require_complete("file.pt")


def test_other_clashes_stay_errors_where_feature_layers_start_afresh():
    other_head = copied(small_model()) | {"video_query_linear.weight": torch.ones(4, 4)}
    with pytest.raises(UserError, match=r"^1 weights .*video_query_linear\.weight: file \(4, 4\)"):
        load_weights(small_model(width=10), other_head, of_width, reinit_features=True)
    with pytest.raises(UserError, match=r"^11 weights .*model \(video_query_linear\.weight: file"):
        load_weights(small_model(width=10), other_head, of_width)
    wider = copied(small_model(hidden_size=16))
    with pytest.raises(UserError, match=r"img_linear\.weight: file \(16, 6\), model \(8, 10\)"):
        load_weights(small_model(width=10), wider, of_width, reinit_features=True)


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
    nested = {"step": 3, "layers": {"0": {"weight": torch.ones(2)}}}
    for content, named in (
        ({"step": 3, "optimizer": {}}, r"\['step', 'optimizer'\]"),
        (nested, r"\['step', 'layers'\]"),
        ({"model": {"step": 3}}, r"\['model'\]"),
        ([torch.ones(2)], "list"),
        (torch.ones(2), "Tensor"),
    ):
        with pytest.raises(UserError, match=f"no flat dictionary of tensors .*holds {named}"):
            read_state_dict(saved(tmp_path, content))


def test_an_object_in_a_file_is_named_and_not_read(tmp_path):
    file = saved(tmp_path, {"weight": torch.ones(2), "options": SimpleNamespace(lr=1.0)})
    with pytest.raises(UserError, match=r"it holds a types\.SimpleNamespace, not only tensors"):
        read_state_dict(file)


def test_a_folder_or_a_hub_name_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: name a file"):
        read_state_dict(tmp_path)
    (tmp_path / "config.json").touch()
    for path in (tmp_path, "roberta-base"):
        with pytest.raises(UserError, match="--load_partial_pretrained takes the folder or hub"):
            read_state_dict(path)


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


def test_damage_in_the_middle_is_found_by_its_checksum(tmp_path):
    file = saved(tmp_path, {"x": torch.arange(9000.0)})
    with file.open("r+b") as content:
        content.seek(file.stat().st_size // 2)
        content.write(bytes(4096))
    with pytest.raises(UserError, match=r"is damaged \(its entry \w+/data/0: Bad CRC-32"):
        read_state_dict(file)


def cyclic():
    content = {}
    content["model"] = content
    return content


def nested(levels):
    content = torch.ones(1)
    for _ in range(levels):
        content = [content]
    return {"x": torch.ones(1), "more": content}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"x": torch.eye(3).to_sparse()}, "it holds a sparse tensor"),
        (lambda: {"x": torch.eye(3).to_sparse_csr()}, "it holds a sparse tensor"),
        (
            lambda: {"x": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
            r"it holds a quantized tensor, .*: x\)",
        ),
        (lambda: {"x": torch.ones(2, device="meta")}, "it holds a tensor without values"),
        (
            lambda: {"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
            "it holds a nested tensor",
        ),
        (lambda: {"x": torch.ones(1).expand(1 << 40)}, "claims to hold 4398046511104 bytes"),
        (lambda: {"x": bytearray(9)}, "it holds a __builtin__.bytearray"),
        (lambda: {0: torch.ones(1)}, "names an entry by a int 0, not by text"),
        (lambda: {("a", 1): torch.ones(1)}, "names an entry by a tuple, not by text"),
        (lambda: {"x" * 5000: torch.ones(1)}, r"unusable name x{80}…"),
        (lambda: {"a\nb": torch.ones(1)}, r"unusable name 'a\\nb'"),
        (lambda: nested(100), "nests containers more than 32 levels deep"),
        (cyclic, r"is no flat dictionary of tensors .* holds \['model'\]"),
    ],
)
def test_what_no_weights_are_made_of_is_one_clear_line(tmp_path, content, message, in_zip):
    torch.save(content(), tmp_path / "x.pt", _use_new_zipfile_serialization=in_zip)
    with pytest.raises(UserError, match=message) as error:
        read_state_dict(tmp_path / "x.pt")
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(1.0), r"file \(\), model \(8, 8\)"),
        (torch.ones(8, 8, dtype=torch.int64), "holds numbers of the type torch.int64"),
        (torch.ones(8, 8, dtype=torch.complex64), "holds numbers of the type torch.complex64"),
        (torch.full((8, 8), float("nan")), "1 weights of the checkpoint are not finite, such as"),
        (torch.full((8, 8), -float("inf")), "such as video_query_linear.weight: they hold NaN or"),
    ],
)
def test_values_that_do_not_fit(value, message):
    state = copied(small_model()) | {"video_query_linear.weight": value}
    with pytest.raises(UserError, match=message):
        load_weights(small_model(), state)


def test_a_table_of_frame_positions_of_no_width_grows_nothing():
    name = "v_encoder.f_encoder.img_embeddings.position_embeddings.weight"
    for table in (torch.tensor(1.0), torch.ones(1 << 40, 0)):
        with pytest.raises(UserError, match=f"{name}: file"):
            load_weights(small_model(), copied(small_model()) | {name: table})
