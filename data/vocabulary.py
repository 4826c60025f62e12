"""The vocabulary of generated text: the tokenizer that a database was made with."""

from dataclasses import dataclass
from typing import Self

from data.bpe_tokenizer import BpeTokenizer
from data.stores.lmdb_io import TextDb
from data.tokenize import (
    load_tokenizer,
    named_in_environment,
    other_tokenizer,
    tokenizer_meta,
    tokenizer_name,
)
from utils.errors import UserError


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and its ids for decoding."""

    tokenizer: BpeTokenizer
    begin: int  # <s>
    end: int  # </s>
    known_ids: tuple[int, ...]  # all ids it has, in order

    @classmethod
    def of(cls, db: TextDb, toker: str | None = None) -> Self:
        """Load ``toker`` (hub name or folder), ``$HERO_TOKER``, or the tokenizer that made ``db``;
        UserError if it cannot be loaded, or is not the database's."""
        tokenizer = load_tokenizer(toker or named_in_environment() or named_tokenizer(db))
        if difference := other_tokenizer(tokenizer_meta(tokenizer), db.meta):
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} is not the one that made {db.path}: its "
                f"{difference}; name the right --toker (or HERO_TOKER)"
            )
        known = tuple(sorted(tokenizer.get_vocab().values()))
        if db.vocab_size is not None and known[-1] >= db.vocab_size:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} has {known[-1] + 1} tokens, the model "
                f"{db.vocab_size}; name the right --toker"
            )
        return cls(tokenizer, db.meta["BOS"], db.meta["EOS"], known)

    def text(self, ids: list[int]) -> str:
        """Return the text of token ids; a leading space is kept."""
        return self.tokenizer.decode(ids)


def named_tokenizer(db: TextDb) -> str:
    """Return the tokenizer that made a database; UserError if ``meta.json`` does not name it."""
    name = tokenizer_name(db.meta, db.path)
    if not name:
        raise UserError(
            f"{db.path / 'meta.json'} does not say which tokenizer made it; set --toker"
        )
    return name
