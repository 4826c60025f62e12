"""The words a model may write: the tokenizer that a database was made with."""

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
    """A tokenizer, and what decoding needs to know of it."""

    tokenizer: BpeTokenizer
    begin: int  # <s>
    end: int  # </s>
    known_ids: tuple[int, ...]  # all ids it has, in order

    @classmethod
    def of(cls, db: TextDb, toker: str | None = None) -> Self:
        """``toker`` (hub name or folder), ``$HERO_TOKER``, or else the tokenizer that made ``db``.

        Raises:
            UserError: it cannot be loaded, or is another than the database's.
        """
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
        """The text of token ids, its leading space kept."""
        return self.tokenizer.decode(ids)


def named_tokenizer(db: TextDb) -> str:
    """The tokenizer that made a database.

    Raises:
        UserError: ``meta.json`` does not say.
    """
    name = tokenizer_name(db.meta, db.path)
    if not name:
        raise UserError(
            f"{db.path / 'meta.json'} does not say which tokenizer made it; set --toker"
        )
    return name
