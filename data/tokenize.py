"""Text to token ids: RoBERTa's byte-level BPE and the rules applied to text before it.

White space around a text is stripped last of all: the published weights have never read a token
that begins with a space at the front of a text.
"""

import hashlib
import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config.shared_model import TOKENIZER_FILES, has_tokenizer
from data.bpe_tokenizer import BpeTokenizer
from utils.errors import UserError
from utils.hub import fetch_folder

# Names of the special tokens' ids in meta.json.
SPECIAL = ("CLS", "BOS", "SEP", "EOS", "PAD", "MASK", "UNK")
FINGERPRINT = "tokenizer_sha256"
# Entries of meta.json that tell one tokenizer from another.
IDENTITY = (*SPECIAL, "v_range", FINGERPRINT)
DEFAULT_TOKENIZER = "roberta-base"


def tokenizer_folder(name_or_folder: str) -> Path:
    """A local folder with a tokenizer, which is given or, by name, from the hub (or its cache).

    Raises:
        UserError: the folder holds no tokenizer, or the name cannot be fetched.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = fetch_folder(
            name_or_folder,
            TOKENIZER_FILES,
            f"tokenizer {name_or_folder!r} is no local folder and no model that the hub gave",
            "give the path of a folder with vocab.json and merges.txt, or try again with a network",
        )
    if not has_tokenizer(folder):
        raise UserError(
            f"{folder} holds no tokenizer (vocab.json and merges.txt, or tokenizer.json); "
            "name another --toker"
        )
    return folder


def load_tokenizer(name_or_folder: str) -> BpeTokenizer:
    """A RoBERTa tokenizer from a :func:`tokenizer_folder`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    folder = tokenizer_folder(name_or_folder)
    try:
        return BpeTokenizer(folder)
    except Exception as error:  # tokenizers raises all sorts for a damaged file
        raise UserError(f"the tokenizer in {folder} cannot be read ({error})") from error


def special_ids(tokenizer: BpeTokenizer) -> dict[str, int | list[int] | None]:
    """Return the ids that ``meta.json`` records; None of a role that the tokenizer leaves empty.

    ``v_range`` = [first, last + 1] are the ids that a random replacement may take: "." up to
    "<|endoftext|>", or, in a tokenizer without those two, from the first id that is not special to
    the last. (Special ids in between are never drawn: :class:`data.mlm.TokenMasking`.)
    """
    vocabulary = tokenizer.get_vocab()
    if "." in vocabulary and "<|endoftext|>" in vocabulary:
        v_range = [vocabulary["."], vocabulary["<|endoftext|>"] + 1]
    else:
        ordinary = set(vocabulary.values()) - set(tokenizer.all_special_ids)
        v_range = [min(ordinary), max(ordinary) + 1]
    return {
        "BOS": tokenizer.bos_token_id,
        "EOS": tokenizer.eos_token_id,
        "SEP": tokenizer.sep_token_id,
        "CLS": tokenizer.cls_token_id,
        "PAD": tokenizer.pad_token_id,
        "MASK": tokenizer.mask_token_id,
        "UNK": tokenizer.unk_token_id,
        "v_range": v_range,
    }


def tokenizer_meta(tokenizer: BpeTokenizer) -> dict[str, Any]:
    """Return :data:`IDENTITY` of a tokenizer, as ``meta.json`` records it."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return {
        **special_ids(tokenizer),
        FINGERPRINT: fingerprint(tokenizer.get_vocab(), model["merges"]),
    }


def fingerprint(vocabulary: Mapping[str, int], merges: Iterable[str | Sequence[str]]) -> str:
    """Return a hash of what decides about ids: tokens, and merges in their order."""
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return hashlib.sha256(json.dumps([sorted(vocabulary.items()), joined]).encode()).hexdigest()


def other_tokenizer(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return what tells the tokenizers of two ``meta.json`` apart, of what both have; None:
    nothing."""
    for name in IDENTITY:
        if name in one and name in other and one[name] != other[name]:
            return f"{name} is {one[name]}, there {other[name]}"
    return None


def tokenizer_name(meta: Mapping[str, Any], place: Path | None = None) -> str | None:
    """Return the tokenizer that a ``meta.json`` names.

    Args:
        meta: its content.
        place: the database. A folder given relative to where that was made is looked for from here
            and from every folder above the database.
    """
    name = meta.get("toker") or meta.get("tokenizer")
    if not name or place is None:
        return name
    for above in place.absolute().parents:
        if (above / name).is_dir() and not Path(name).is_dir():
            return str(above / name)
    return name


def named_in_environment() -> str | None:
    """The tokenizer, hub name or folder, of commands without ``--toker``: ``$HERO_TOKER``."""
    return os.environ.get("HERO_TOKER") or None


def normalize_query(text: str) -> str:
    """Lower-case a query, question or answer that is all upper case."""
    return text.lower() if text.isupper() else text


def normalize_subtitle(text: str) -> str:
    """Unescape HTML, then lower-case what is all upper case."""
    return normalize_query(html.unescape(text))


def encode_texts(tokenizer: BpeTokenizer, texts: list[str]) -> list[list[int]]:
    """Return the token ids of each text, without special tokens; none for white space alone."""
    if not texts:
        return []
    return tokenizer.encode([text.strip() for text in texts])
