"""The tokenizer and the rules for text."""

import shutil

import pytest

from data import tokenize
from data.mlm import TokenMasking
from data.tokenize import encode_texts, load_tokenizer, normalize_query, normalize_subtitle
from utils.errors import UserError


@pytest.mark.parametrize(
    ("text", "query", "subtitle"),
    [
        ("HELLO THERE", "hello there", "hello there"),
        ("Hello THERE", "Hello THERE", "Hello THERE"),
        (" ÉTÉ 1960!", " été 1960!", " été 1960!"),
        ("1960!", "1960!", "1960!"),
        ("A &AMP; B", "a &amp; b", "a & b"),
        ("A &amp; B", "A &amp; B", "a & b"),  # unescaped first, and then it is all upper case
        ("&lt;I&gt;NOBODY&#39;S", "&lt;I&gt;NOBODY&#39;S", "<i>nobody's"),
    ],
)
def test_text_rules(text, query, subtitle):
    assert normalize_query(text) == query
    assert normalize_subtitle(text) == subtitle


@pytest.mark.golden
def test_special_ids_are_those_of_the_record(world):
    tokenizer = load_tokenizer(str(world / "toker"))
    vocabulary = tokenizer.get_vocab()
    ids = tokenize.special_ids(tokenizer)
    assert ids["CLS"] == ids["BOS"] == vocabulary["<s>"]
    assert ids["SEP"] == ids["EOS"] == vocabulary["</s>"]
    assert ids["v_range"] == [vocabulary["."], vocabulary["<|endoftext|>"] + 1]


@pytest.mark.golden
def test_without_a_full_stop_every_ordinary_id_is_in_range(world):
    tokenizer = load_tokenizer(str(world / "toker"))
    ids = tokenize.special_ids(_Renamed(tokenizer))
    special = set(tokenizer.all_special_ids)
    drawn = set(TokenMasking.of(0.15, ids).replacements.tolist())
    assert drawn == set(range(len(tokenizer))) - special


class _Renamed:
    """A tokenizer that spells its full stop otherwise."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def get_vocab(self):
        return {{".": "dot"}.get(k, k): v for k, v in self._tokenizer.get_vocab().items()}


@pytest.mark.golden
def test_white_space_around_a_text_is_stripped(world):
    tokenizer = load_tokenizer(str(world / "toker"))
    spaces = " \t\r\n\x0b\x1c\x85\xa0\u2003\u3000"
    plain, spaced = encode_texts(tokenizer, ["the man", f"{spaces}the man{spaces}"])
    assert plain == spaced
    assert encode_texts(tokenizer, [normalize_subtitle("&nbsp;THE MAN&#10;")]) == [plain]
    assert encode_texts(tokenizer, []) == []
    assert encode_texts(tokenizer, ["", spaces]) == [[], []]


def test_a_folder_without_a_tokenizer(tmp_path, world):
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(str(tmp_path))
    shutil.copy(world / "toker" / "vocab.json", tmp_path)  # merges.txt is missing
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "merges.txt").write_text("no pairs")
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(str(tmp_path))


def test_an_unreachable_hub(monkeypatch, tmp_path):
    def refuse(name, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=r"'roberta-base' is no local folder .*\(no route\); give"):
        load_tokenizer("roberta-base")
