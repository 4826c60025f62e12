"""Text to token ids: RoBERTa's byte-level BPE and the rules applied to text before it.

White space around a text is stripped last of all: the published weights have never read a token
that begins with a space at the front of a text.
"""

import html
from pathlib import Path

from data.bpe_tokenizer import BpeTokenizer
from utils.errors import UserError

_FILES = ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"]
_FILES += ["special_tokens_map.json", "added_tokens.json"]

# Names of the special tokens' ids in meta.json.
SPECIAL = ("CLS", "BOS", "SEP", "EOS", "PAD", "MASK", "UNK")


def load_tokenizer(name_or_folder: str) -> BpeTokenizer:
    """A RoBERTa tokenizer from a local folder or, by name, from the hub (or its local cache).

    Raises:
        UserError: the folder holds no tokenizer, or the name cannot be fetched.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = _fetch(name_or_folder)
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    ):
        raise UserError(
            f"{folder} holds no tokenizer (vocab.json and merges.txt, or tokenizer.json); "
            "name another --toker"
        )
    try:
        return BpeTokenizer(folder)
    except Exception as error:  # tokenizers raises all sorts for a damaged file
        raise UserError(f"the tokenizer in {folder} cannot be read ({error})") from error


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # offline, no such name, no access, a path that does not exist: …
        raise UserError(
            f"the tokenizer {name!r} is no local folder and cannot be fetched from the hub "
            f"({str(error).splitlines()[0]}); give the path of a folder with vocab.json and "
            "merges.txt, or try again with a network"
        ) from error


def special_ids(tokenizer: BpeTokenizer) -> dict[str, int | list[int]]:
    """Return the ids that ``meta.json`` records.

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
