"""Starting from RoBERTa: the right layers at the right places, from every kind of file."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import RobertaConfig, RobertaForMaskedLM

from config.model_config import ModelConfig
from data.video import collate_texts
from model.checkpoint import load_checkpoint
from model.layers import set_dropout
from model.pretrain import HeroForPretraining
from model.roberta import load_roberta, read_roberta
from utils.errors import UserError

WORDS, PADDED_WORDS = 61, 64
HIDDEN, WIDTH, LAYERS = 24, 6, 12
BLOCK = {
    "hidden_size": HIDDEN,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 30,
    "type_vocab_size": 1,
}
TEXTS = [[0, 5, 9, 60, 7], [0, 33], [0, *range(3, 20)]]
PREFIX = "v_encoder.f_encoder."


@pytest.fixture(scope="module")
def roberta():
    """Random weights everywhere, norms and biases included."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=WORDS, num_hidden_layers=LAYERS, layer_norm_eps=1e-12, pad_token_id=1, **BLOCK
    )
    model = RobertaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def hero(num_layers=6, words=WORDS):
    text = BLOCK | {"vocab_size": words, "num_hidden_layers": num_layers}
    temporal = BLOCK | {"num_hidden_layers": 1, "type_vocab_size": 2}
    query = text | {"num_hidden_layers": 0}
    config = ModelConfig.from_dict({"f_config": text, "c_config": temporal, "q_config": query})
    model = HeroForPretraining(config, WIDTH)
    set_dropout(model, 0.0)
    return model.eval()


@torch.no_grad()
def by_hand(roberta, tokens, layers):
    """One text through RoBERTa's own modules, put together as HERO reads text: (L, H)."""
    embeddings = roberta.roberta.embeddings
    x = embeddings.word_embeddings.weight[tokens]
    x = x + embeddings.position_embeddings.weight[: len(tokens)]  # positions count from 0
    x = x + embeddings.token_type_embeddings.weight[0]
    norm = embeddings.LayerNorm
    x = F.layer_norm(x, (HIDDEN,), norm.weight, norm.bias, eps=1e-5)[None]
    for number in layers:
        x = roberta.roberta.encoder.layer[number](x)
        x = x[0] if isinstance(x, tuple) else x
    return x[0]


@torch.no_grad()
def word_logits_by_hand(roberta, x):
    head = roberta.lm_head
    x = F.gelu(head.dense(x))
    x = F.layer_norm(x, (HIDDEN,), head.layer_norm.weight, head.layer_norm.bias, eps=1e-5)
    return x @ roberta.roberta.embeddings.word_embeddings.weight.T + head.bias


@pytest.mark.parametrize(
    ("num_layers", "skip", "taken"),
    [
        (6, True, [1, 3, 5, 7, 9, 11]),
        (6, False, [0, 1, 2, 3, 4, 5]),
        (4, True, [2, 5, 8, 11]),
        (12, True, list(range(12))),
    ],
)
@torch.no_grad()
def test_the_text_encoder_equals_one_put_together_by_hand(roberta, num_layers, skip, taken):
    model = hero(num_layers)
    report = load_roberta(model, roberta.state_dict(), skip)
    assert not [name for name in report.missing if "encoder.layer" in name and "f_enc" in name]
    assert not report.unexpected
    text = collate_texts(TEXTS)
    ours = model.v_encoder.encode_text(text).split([len(tokens) for tokens in TEXTS])
    for tokens, vectors in zip(TEXTS, ours, strict=True):
        wanted = by_hand(roberta, tokens, taken)
        torch.testing.assert_close(vectors, wanted, atol=1e-5, rtol=0)
        logits = model.v_encoder.f_encoder.lm_head(vectors)[:, :WORDS]
        torch.testing.assert_close(logits, word_logits_by_hand(roberta, wanted), atol=1e-4, rtol=0)


def save_folder(roberta, folder):
    roberta.save_pretrained(folder)
    return folder


def save_bin(roberta, folder):
    torch.save(roberta.state_dict(), folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def save_safetensors(roberta, folder):
    roberta.save_pretrained(folder)  # leaves out tied weights
    return folder / "model.safetensors"


def save_old_names(roberta, folder):
    """As the published start of pre-training has them: lm_head.LayerNorm; early BERT's gamma."""
    state = {
        name.replace("lm_head.layer_norm", "lm_head.LayerNorm")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): value.clone()
        for name, value in roberta.state_dict().items()
        if name != "lm_head.decoder.bias"
    }
    save_file(state, folder / "old.safetensors")
    return folder / "old.safetensors"


def save_word_prediction_inside(roberta, folder):
    """Everything below one name: roberta.lm_head.* too."""
    state = {
        f"roberta.{name.removeprefix('roberta.')}": v for name, v in roberta.state_dict().items()
    }
    torch.save(state, folder / "inside.pt")
    return folder / "inside.pt"


def save_bare(roberta, folder):
    """Names of the encoder without roberta., and the bias of the words under its second name."""
    state = {name.removeprefix("roberta."): value for name, value in roberta.state_dict().items()}
    del state["lm_head.bias"]
    torch.save(state, folder / "bare.pt")
    return folder / "bare.pt"


def save_wrapped(roberta, folder):
    state = {f"module.{name}": value for name, value in roberta.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, folder / "wrapped.pt")
    return folder / "wrapped.pt"


@pytest.mark.parametrize(
    "save",
    [
        save_folder,
        save_bin,
        save_safetensors,
        save_old_names,
        save_word_prediction_inside,
        save_bare,
        save_wrapped,
    ],
)
@torch.no_grad()
def test_every_kind_of_file_gives_the_same(roberta, tmp_path, save):
    wanted, model = hero(), hero()
    load_roberta(wanted, roberta.state_dict(), skip_layers=True)
    load_roberta(model, read_roberta(str(save(roberta, tmp_path))), skip_layers=True)
    for name, value in wanted.v_encoder.f_encoder.state_dict().items():
        if not name.startswith(("img_embeddings", "pooler")):  # a masked-LM model has neither
            assert torch.equal(model.v_encoder.f_encoder.state_dict()[name], value), name


def test_every_name_is_loaded_or_listed(roberta):
    extra = {"classifier.dense.weight": torch.ones(2), "roberta.extra.bias": torch.ones(2)}
    buffers = {"roberta.embeddings.position_ids": torch.arange(3)}
    plain = {"vocab_padded": True}
    state = roberta.state_dict() | extra | buffers | plain
    report = load_roberta(hero(), state, skip_layers=True)
    assert report.unexpected == list(extra)
    layers = {name for name in state if "encoder.layer" in name}
    assert len(report.left_out) == len(layers) / 2 and set(report.left_out) < layers
    assert "roberta.encoder.layer.0.output.dense.weight" in report.left_out
    assert f"{PREFIX}embeddings.position_ids" in report.ignored and "vocab_padded" in report.ignored
    named = (report.loaded, report.grown, report.left_out, report.ignored, report.unexpected)
    assert sum(map(len, named)) == len(state)


def test_a_name_that_stands_there_twice_is_listed(roberta):
    again = {"roberta.lm_head.dense.bias": torch.zeros(HIDDEN)}
    model = hero()
    report = load_roberta(model, roberta.state_dict() | again, skip_layers=True)
    assert report.unexpected == list(again)
    bias = model.v_encoder.f_encoder.lm_head.dense.bias
    assert torch.equal(bias.detach(), roberta.state_dict()["lm_head.dense.bias"])


def test_a_folder_without_word_prediction_does_not_make_it_up(roberta, tmp_path):
    roberta.roberta.save_pretrained(tmp_path)
    model = hero()
    before = model.v_encoder.f_encoder.lm_head.dense.weight.detach().clone()
    report = load_roberta(model, read_roberta(str(tmp_path)), skip_layers=True)
    assert f"{PREFIX}lm_head.dense.weight" in report.missing
    assert torch.equal(model.v_encoder.f_encoder.lm_head.dense.weight.detach(), before)


def test_a_hero_checkpoint_is_not_taken_for_roberta(tmp_path):
    torch.save(hero().state_dict(), tmp_path / "hero.pt")
    with pytest.raises(UserError, match=r"hero\.pt is a HERO checkpoint.*no_load_partial_pretrai"):
        read_roberta(str(tmp_path / "hero.pt"))


def test_roberta_without_its_option_stops(roberta, tmp_path):
    for save in (save_bin, save_word_prediction_inside, save_bare, save_wrapped):
        with pytest.raises(UserError, match=r"seems to be RoBERTa.*--load_partial_pretrained"):
            load_checkpoint(hero(), save(roberta, tmp_path))


@pytest.mark.parametrize("words", [WORDS, PADDED_WORDS])
def test_the_vocabulary_is_padded_with_zeros(roberta, words):
    model = hero(words=words)
    load_roberta(model, roberta.state_dict(), skip_layers=True)
    own, theirs = model.state_dict(), roberta.state_dict()
    for name, source in (
        ("embeddings.word_embeddings.weight", "roberta.embeddings.word_embeddings.weight"),
        ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
        ("lm_head.bias", "lm_head.bias"),
    ):
        table = own[PREFIX + name]
        assert len(table) == PADDED_WORDS
        assert torch.equal(table[:WORDS], theirs[source])
        assert not table[WORDS:].any()
    # A padded size counts all rows as words; the true size leaves the padding out of losses.
    assert model.v_encoder.f_encoder.lm_head.vocab_size == words


def test_both_token_types_are_robertas_one(roberta):
    model = hero()
    load_roberta(model, roberta.state_dict(), skip_layers=True)
    table = model.v_encoder.f_encoder.embeddings.token_type_embeddings.weight
    row = roberta.roberta.embeddings.token_type_embeddings.weight[0]
    assert torch.equal(table.detach(), row.detach().expand(2, HIDDEN))


def test_the_output_stays_tied_to_the_words(roberta):
    model = hero()
    load_roberta(model, roberta.state_dict(), skip_layers=True)
    encoder = model.v_encoder.f_encoder
    assert encoder.lm_head.decoder.weight is encoder.embeddings.word_embeddings.weight


def test_what_roberta_lacks_keeps_its_start(roberta):
    torch.manual_seed(1)
    model = hero()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_roberta(model, roberta.state_dict(), skip_layers=True)
    fresh = set(report.missing) | set(report.new_heads)
    assert f"{PREFIX}img_embeddings.img_linear.weight" in fresh
    assert "v_encoder.c_encoder.encoder.layer.0.attention.self.query.weight" in fresh
    assert "video_query_linear.weight" in fresh
    for name in fresh:
        assert torch.equal(model.state_dict()[name], before[name]), name


def test_too_few_layers(roberta):
    with pytest.raises(UserError, match=r"has 12 layers.*needs 13"):
        load_roberta(hero(num_layers=13), roberta.state_dict(), skip_layers=True)


def test_a_name_that_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="neither a file of weights, nor a RoBERTa folder"):
        read_roberta(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "held", [("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin",)]
)
def test_one_file_of_weights_comes_of_the_hub(roberta, tmp_path, monkeypatch, held):
    (tmp_path / "hub").mkdir()
    (tmp_path / "cache").mkdir()
    save_safetensors(roberta, tmp_path / "hub")
    save_bin(roberta, tmp_path / "hub")

    def download(name, allow_patterns):
        for file in set(allow_patterns) & set(held):
            (tmp_path / "cache" / file).symlink_to(tmp_path / "hub" / file)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetched = read_roberta(f"somebody/{len(held)}-files")
    assert torch.equal(fetched["lm_head.bias"], roberta.state_dict()["lm_head.bias"])
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [held[0]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no route.\nTry again"), "no route"),
        (OSError(), "OSError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_line(monkeypatch, error, reason):
    def refuse(name, **options):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=rf"^nobody/x is neither .* \({reason}\); .*its folder$"):
        read_roberta("nobody/x")
