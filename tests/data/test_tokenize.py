"""The tokenizer and the rules for text."""

import json
import random
import shutil

import pytest
from transformers import RobertaTokenizer

from data import bpe_tokenizer, tokenize
from data.bpe_tokenizer import BpeTokenizer
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


ODD_TEXTS = [
    *("", "  ", "a  b   c\n\nd", "don't WE'LL you've", "12345 6.7%", "\x00\x01", "ﬁ ½ ² Ⅷ"),
    *(
        "naïve café \U0001f600 e\u0301",
        "中文 日本語 \ud7ff",
        "\u200b\xa0\t\n",
        "<S> <mask",
        "<|endoftext|>",
    ),
    *("<s> a </s>", "x <mask> y<mask>", "<pad><unk>z", "<new>thing <new> ok"),
    *(" a man ", "a\t b \nc", "a\xa0 b \u3000c", "a \x1c b\x85 c", "a \u200b b", "it 's a dog 's"),
]
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False}
CONFIG = "tokenizer_config.json"
# What a tokenizer's folder may hold beside vocab.json and merges.txt.
SIDE_FILES = [
    {},
    {CONFIG: {"add_prefix_space": True, "mask_token": MASK | {"__type": "AddedToken"}}},
    {CONFIG: {"mask_token": "<hole>", "extra_special_tokens": ["thing"]}},
    {CONFIG: {"added_tokens_decoder": {"900": {"content": "<new>", "lstrip": True}}}},
    {CONFIG: {"split_special_tokens": True}},
    {"special_tokens_map.json": {"mask_token": MASK, "bos_token": "<s>"}},
    {"added_tokens.json": {"<new>": 900}},
]


def assert_same_tokenizer(folder):
    known, own = RobertaTokenizer.from_pretrained(folder), BpeTokenizer(folder)
    ids = known(ODD_TEXTS, add_special_tokens=False)["input_ids"]
    assert own.encode(ODD_TEXTS) == ids
    assert list(map(own.decode, ids)) == known.batch_decode(ids, clean_up_tokenization_spaces=False)
    assert own.get_vocab() == known.get_vocab() and len(own) == len(known)
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(own, f"{role}_token_id") == getattr(known, f"{role}_token_id")
    assert set(own.all_special_ids) == set(known.all_special_ids)


@pytest.mark.golden
@pytest.mark.parametrize("files", SIDE_FILES, ids=json.dumps)
def test_ids_are_those_of_transformers(files, world, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(world / "toker" / name, tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert_same_tokenizer(tmp_path)


@pytest.mark.golden
@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}], ids=json.dumps)
def test_words_of_a_text_are_encoded_as_the_whole(config, world, tmp_path, monkeypatch):
    monkeypatch.setattr(bpe_tokenizer, "_MOST_PIECES", 40)  # it forgets the pieces now and then
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(world / "toker" / name, tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    tokenizer = BpeTokenizer(tmp_path)
    drawn, letters = random.Random(0), "  ab'sTX1,é中\t\n\xa0\u3000\x1c\x85\u200b<"
    for _ in range(300):
        texts = ["".join(drawn.choices(letters, k=drawn.randrange(12))) for _ in range(20)]
        whole = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        assert tokenizer.encode(texts) == [encoding.ids for encoding in whole]


@pytest.mark.golden
@pytest.mark.parametrize("dropped", [(), (CONFIG,)])
def test_a_folder_that_transformers_wrote(dropped, world, tmp_path):
    tokenizer = RobertaTokenizer.from_pretrained(world / "toker")
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path)
    for name in dropped:
        (tmp_path / name).unlink()
    assert (tmp_path / "tokenizer.json").is_file() and not (tmp_path / "vocab.json").exists()
    assert_same_tokenizer(tmp_path)


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
