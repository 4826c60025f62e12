"""The words a model may write: the tokenizer that a database was made with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data.bpe_tokenizer import BpeTokenizer
from data.stores.lmdb_io import TextDb
from data.tokenize import load_tokenizer, special_ids
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
        """The tokenizer that made ``db``, or ``toker`` (hub name or folder).

        Raises:
            UserError: it cannot be loaded, or is another than the database's.
        """
        tokenizer = load_tokenizer(toker or _named_by(db))
        own = special_ids(tokenizer)
        odd = [name for name, id_ in own.items() if db.meta.get(name, id_) != id_]
        if odd:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} is not the one that made {db.path}: its "
                f"{odd[0]} is {own[odd[0]]}, there it is {db.meta[odd[0]]}; name the right --toker"
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


def _named_by(db: TextDb) -> str:
    """``toker`` of ``meta.json``; a folder given relative to where the database was made is looked
    for from here and from every folder above the database."""
    name = db.meta.get("toker") or db.meta.get("tokenizer")
    if not name:
        raise UserError(
            f"{db.path / 'meta.json'} does not say which tokenizer made it; set --toker"
        )
    for above in db.path.absolute().parents:
        if (above / name).is_dir() and not Path(name).is_dir():
            return str(above / name)
    return name
