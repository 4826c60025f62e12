"""Text to token ids: normalization, then RoBERTa's byte-level BPE.

White space around a text is stripped last: the published weights were trained on texts that do not
begin with a space.
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
SPECIAL = ("BOS", "EOS", "SEP", "CLS", "PAD", "MASK", "UNK")
FINGERPRINT = "tokenizer_sha256"
# Entries of meta.json that identify a tokenizer.
IDENTITY = (*SPECIAL, "v_range", FINGERPRINT)
DEFAULT_TOKENIZER = "roberta-base"


def tokenizer_folder(name_or_folder: str) -> Path:
    """Return a local folder with a tokenizer: the given one, or of a name on the hub (or cached);
    UserError if there is none, or it cannot be fetched."""
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
    """Load a RoBERTa tokenizer from a :func:`tokenizer_folder`; UserError if it is damaged."""
    folder = tokenizer_folder(name_or_folder)
    try:
        return BpeTokenizer(folder)
    except Exception as error:  # tokenizers raises any exception for a damaged file
        raise UserError(f"the tokenizer in {folder} cannot be read ({error})") from error


def special_ids(tokenizer: BpeTokenizer) -> dict[str, int | list[int] | None]:
    """Return the ids that ``meta.json`` records; None of a role without a token.

    ``v_range`` = [first, last + 1] are the ids that a random replacement may be: "." to
    "<|endoftext|>", or, in a tokenizer without those, the first to the last id that is not special.
    (Special ids in between are never drawn: :class:`data.mlm.TokenMasking`.)
    """
    vocabulary = tokenizer.get_vocab()
    if "." in vocabulary and "<|endoftext|>" in vocabulary:
        v_range = [vocabulary["."], vocabulary["<|endoftext|>"] + 1]
    else:
        ordinary = set(vocabulary.values()) - set(tokenizer.all_special_ids)
        v_range = [min(ordinary), max(ordinary) + 1]
    ids = {role: getattr(tokenizer, f"{role.lower()}_token_id") for role in SPECIAL}
    return {**ids, "v_range": v_range}


def tokenizer_meta(tokenizer: BpeTokenizer) -> dict[str, Any]:
    """Return :data:`IDENTITY` of a tokenizer, as ``meta.json`` records it."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return {**special_ids(tokenizer), FINGERPRINT: fingerprint(tokenizer.get_vocab(), merges)}


def fingerprint(vocabulary: Mapping[str, int], merges: Iterable[str | Sequence[str]]) -> str:
    """Return a hash of tokens, and of merges in their order."""
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return hashlib.sha256(json.dumps([sorted(vocabulary.items()), joined]).encode()).hexdigest()


def other_tokenizer(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first difference of two tokenizers in entries that both ``meta.json`` have, or
    None."""
    for name in IDENTITY:
        if name in one and name in other and one[name] != other[name]:
            return f"{name} is {one[name]}, there {other[name]}"
    return None


def tokenizer_name(meta: Mapping[str, Any], place: Path | None = None) -> str | None:
    """Return the tokenizer that a ``meta.json`` names.

    Args:
        meta: its content.
        place: the database. The relative path of a folder is tried from the working directory and
            from every folder above the database.
    """
    name = meta.get("toker") or meta.get("tokenizer")
    if not name or place is None:
        return name
    for above in place.absolute().parents:
        if (above / name).is_dir() and not Path(name).is_dir():
            return str(above / name)
    return name


def named_in_environment() -> str | None:
    """Return ``$HERO_TOKER``: the tokenizer (hub name or folder) if ``--toker`` is not given."""
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
