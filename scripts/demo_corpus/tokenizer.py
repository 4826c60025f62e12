"""A small byte-level BPE tokenizer in RoBERTa's layout."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer

from utils.files import atomic_write, write_json

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in roberta-base
_LAST = ("<|endoftext|>", "<mask>")
SMALLEST = len(_FIRST) + 256 + len(_LAST)  # every byte is a token


def train_tokenizer(texts: Iterable[str], size: int, folder: Path) -> int:
    """Train on the texts and write ``vocab.json, merges.txt, config.json``; return the size.

    It is smaller than ``size`` if the texts have no more pairs to merge. The result can be loaded
    with ``transformers.RobertaTokenizer.from_pretrained(folder)``.
    """
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts, vocab_size=size - len(_LAST), special_tokens=list(_FIRST), show_progress=False
    )
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(trained["vocab"].items(), key=lambda entry: entry[1]))
    for token in _LAST:
        vocabulary[token] = len(vocabulary)
    with atomic_write(folder / "vocab.json") as temporary:
        temporary.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    with atomic_write(folder / "merges.txt") as temporary:
        merges = "".join(f"{left} {right}\n" for left, right in trained["merges"])
        temporary.write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    write_json(folder / "config.json", {"model_type": "roberta"})
    return len(vocabulary)
