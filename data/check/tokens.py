"""Token ids: one tokenizer behind all databases, and a vocabulary that the model has."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.groups import Kind
from data.check.databases import Corpus, RunData
from data.check.features import most_common
from data.check.findings import Case, Check, Finding, Severity, examine
from data.stores.lmdb_io import TextDb
from data.tokenize import FINGERPRINT, IDENTITY, SPECIAL, tokenizer_name

TOKENIZE_AGAIN = "make it again with the --toker of the others"

OTHER_TOKENIZER = Check(
    "tokenizer",
    "special token ids or vocabulary differ from the other databases'",
    TOKENIZE_AGAIN,
    Severity.WARNING,
)
OTHER_NAME = Check(
    "tokenizer",
    "tokenizer's name differs from the other databases'",
    TOKENIZE_AGAIN,
    Severity.WARNING,
)
NO_SPECIAL = Check(
    "special ids", "meta.json lacks special token ids", "make it again with the preparation scripts"
)
SPECIAL_OUTSIDE = Check(
    "vocabulary",
    "special token ids outside the model's vocabulary",
    "take the model_config (vocab_size) that belongs to the tokenizer",
)
META_CHECKS = (OTHER_TOKENIZER, OTHER_NAME, NO_SPECIAL, SPECIAL_OUTSIDE)

OUTSIDE_MODEL = "token ids outside the model's vocabulary"


@dataclass(frozen=True)
class TokenUser:
    """A database, and the special ids that the run reads from its ``meta.json``."""

    db: TextDb
    needs: tuple[str, ...]
    where: Path


def token_users(corpus: Corpus) -> Iterator[TokenUser]:
    """The text databases of a corpus."""
    if corpus.subtitles is not None:
        needs: tuple[str, ...] = ("SEP",) if corpus.reads_text else ()
        if corpus.masks_text:
            needs += ("CLS", "MASK", "v_range")
        yield TokenUser(corpus.subtitles, needs, corpus.subtitles.path)
    for queries in corpus.queries:
        judged = queries.kind in (Kind.QUESTIONS, Kind.STATEMENTS)
        yield TokenUser(queries.db, ("SEP",) if judged else ("CLS",), queries.db.path)
    for captions in corpus.captions:
        yield TokenUser(captions.captions, ("BOS", "EOS"), captions.path)


def quick_findings(data: RunData) -> Iterator[Finding]:
    """Compare the metas of all text databases with each other and with the model."""
    users = [user for corpus in data.corpora for user in token_users(corpus)]
    metas = [user.db.meta for user in users]
    usual = {
        name: most_common(json.dumps(meta[name]) for meta in metas if name in meta)
        for name in IDENTITY
    }
    name = most_common(filter(None, map(_last_name, metas)))
    for user in users:
        cases = _meta_cases(user, usual, name, data.vocab_size)
        yield from examine(user.where, META_CHECKS, cases)


def _meta_cases(
    user: TokenUser, usual: dict[str, str | None], usual_name: str | None, vocab_size: int
) -> Iterator[Case]:
    meta = user.db.meta
    yield from (NO_SPECIAL(name) for name in user.needs if name not in meta)
    for name, value in usual.items():
        if name in meta and json.dumps(meta[name]) != value:
            yield OTHER_TOKENIZER(name, f"{meta[name]}, not {value}")
    toker = _last_name(meta)
    if toker and toker != usual_name and FINGERPRINT not in meta:
        yield OTHER_NAME(toker, f"not {usual_name}")
    ids = {name: meta[name] for name in SPECIAL if isinstance(meta.get(name), int)}
    if isinstance(meta.get("v_range"), list):
        ids["v_range"] = meta["v_range"][-1] - 1
    for name, id_ in ids.items():
        if not 0 <= id_ < vocab_size:
            yield SPECIAL_OUTSIDE(name, f"{id_}, vocab_size {vocab_size}")


def _last_name(meta: dict) -> str | None:
    """The tokenizer's name, or that of its folder."""
    name = tokenizer_name(meta)
    return Path(name).name if isinstance(name, str) else None


def outside(texts: Iterable[Sequence[int]], vocab_size: int) -> str:
    """An id of ``texts`` that the model has no embedding for, and why; "" if there is none."""
    for text in texts:
        if text and not (min(text) >= 0 and max(text) < vocab_size):
            worst = min(text) if min(text) < 0 else max(text)
            return f"{worst}, vocab_size {vocab_size}"
    return ""
