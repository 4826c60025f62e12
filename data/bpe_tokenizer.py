"""RoBERTa's byte-level BPE, from a tokenizer's files of transformers.

Ids are those of ``transformers.RobertaTokenizer``; importing that package would take seconds.
"""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from utils.files import read_json

# In the order in which tokens that the vocabulary lacks are added to it.
_ROLES = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
_MOST_PIECES = 1 << 18  # of texts, whose ids are cached


class BpeTokenizer:
    """Text to token ids and back; special tokens in texts are encoded, none are added.

    Args:
        folder: with ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

    Attributes:
        name_or_path: the folder.
        backend_tokenizer: of the library ``tokenizers``.
        bos_token_id, eos_token_id, unk_token_id, sep_token_id, pad_token_id, cls_token_id,
            mask_token_id: None for a role that has no token in the folder's files.

    Raises:
        Exception: of any kind, for damaged files.
    """

    def __init__(self, folder: Path) -> None:
        self.name_or_path = str(folder)
        config = _read_if_there(folder / "tokenizer_config.json")
        serialized = _read_if_there(folder / "tokenizer.json")
        self.backend_tokenizer = _backend(folder, serialized.get("model"), config)
        added = _listed_tokens(folder, config, serialized)
        if "added_tokens_decoder" not in config:
            config |= _read_if_there(folder / "special_tokens_map.json")
        given = {role: config.get(f"{role}_token", token) for role, token in _ROLES.items()}
        extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
        special = [_special_token(token) for token in (*given.values(), *extra) if token]
        known = {token.content for token in added}
        self.backend_tokenizer.add_tokens(
            added + [token for token in special if token.content not in known]
        )
        names = (
            token.content for token in self.backend_tokenizer.get_added_tokens_decoder().values()
        )
        self._added = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._ids: dict[str, list[int]] = {}  # of pieces of texts
        self.backend_tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
        find = self.backend_tokenizer.token_to_id
        ids = {
            role: find(_special_token(token).content) if token else None
            for role, token in given.items()
        }
        self.bos_token_id, self.eos_token_id, self.unk_token_id = ids["bos"], ids["eos"], ids["unk"]
        self.sep_token_id, self.pad_token_id = ids["sep"], ids["pad"]
        self.cls_token_id, self.mask_token_id = ids["cls"], ids["mask"]
        self.all_special_ids = list({find(token.content): None for token in special})

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """Return ids by token, with added tokens."""
        return self.backend_tokenizer.get_vocab()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        # A space before a word begins a token: words are encoded separately, each once.
        split = [self._pieces(text) for text in texts]
        wanted = {piece: None for pieces in split for piece in pieces}
        if len(self._ids) > _MOST_PIECES:
            self._ids.clear()
        new = [piece for piece in wanted if piece not in self._ids]
        encodings = self.backend_tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._ids.update(zip(new, (encoding.ids for encoding in encodings), strict=True))
        return [list(chain.from_iterable(map(self._ids.__getitem__, of))) for of in split]

    def _pieces(self, text: str) -> list[str]:
        """Split a text before its spaces, unless it has double spaces or added tokens."""
        if "  " in text or self._added.search(text):
            return [text]
        first, *words = text.split(" ")
        return [first, *[f" {word}" for word in words]]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens and a leading space kept."""
        return self.backend_tokenizer.decode(ids, skip_special_tokens=False)


def _backend(folder: Path, model: dict | None, config: dict) -> Tokenizer:
    """Return the tokenizer without special tokens; ``model`` is that of ``tokenizer.json``."""
    if model is None:
        vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    else:
        vocab, merges = model["vocab"], model["merges"]
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
    backend = Tokenizer(BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=bool(config.get("add_prefix_space"))
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _listed_tokens(folder: Path, config: dict, serialized: dict) -> list[AddedToken]:
    """Return the tokens that are matched before a text is split, of the first file that has any."""
    if "added_tokens_decoder" in config:
        listed = {int(id_): token for id_, token in config["added_tokens_decoder"].items()}
    else:
        by_name = _read_if_there(folder / "added_tokens.json")
        listed = {id_: {"content": token} for token, id_ in by_name.items()}
        listed |= {token["id"]: token for token in serialized.get("added_tokens", ())}
    return [_added_token(listed[id_]) for id_ in sorted(listed)]


def _special_token(given: str | dict[str, Any]) -> AddedToken:
    return _added_token({"content": given} if isinstance(given, str) else given, special=True)


def _added_token(entry: dict[str, Any], **more: bool) -> AddedToken:
    options = ("single_word", "lstrip", "rstrip", "normalized", "special")
    given = {name: entry[name] for name in options if name in entry}
    return AddedToken(entry["content"], **given | more)


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}
