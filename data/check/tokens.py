"""Checks of token ids: one tokenizer for all databases, and the model's vocabulary."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from config.groups import Kind
from data.check.databases import Corpus, RunData
from data.check.features import most_common
from data.check.findings import Case, Check, Finding, examine, warning
from data.tokenize import FINGERPRINT, IDENTITY, SPECIAL, tokenizer_name

TOKENIZE_AGAIN = "make it again with the --toker of the others"

OTHER_TOKENIZER = warning(
    "tokenizer", "special token ids or vocabulary differ from the other databases'", TOKENIZE_AGAIN
)
OTHER_NAME = warning(
    "tokenizer", "tokenizer's name differs from the other databases'", TOKENIZE_AGAIN
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


class TextMeta(NamedTuple):
    """The ``meta.json`` of a text database."""

    where: Path  # the database
    meta: dict
    needs: tuple[str, ...]  # special ids that the run reads


def text_metas(corpus: Corpus) -> Iterator[TextMeta]:
    """Yield the metas of a corpus's text databases."""
    if corpus.subtitles is not None:
        needs: tuple[str, ...] = ("SEP",) if corpus.reads_text else ()
        if corpus.masks_text:
            needs += ("CLS", "MASK", "v_range")
        yield TextMeta(corpus.subtitles.path, corpus.subtitles.meta, needs)
    for queries in corpus.queries:
        judged = queries.kind in (Kind.QUESTIONS, Kind.STATEMENTS)
        yield TextMeta(queries.db.path, queries.db.meta, ("SEP",) if judged else ("CLS",))
    for captions in corpus.captions:
        yield TextMeta(captions.path, captions.captions.meta, ("BOS", "EOS"))


def quick_findings(data: RunData) -> Iterator[Finding]:
    """Compare the metas of all text databases with each other and with the model."""
    texts = [text for corpus in data.corpora for text in text_metas(corpus)]
    metas = [text.meta for text in texts]
    usual = {
        name: most_common(json.dumps(meta[name]) for meta in metas if name in meta)
        for name in IDENTITY
    }
    name = most_common(filter(None, map(_last_name, metas)))
    for where, meta, needs in texts:
        lacking = [NO_SPECIAL(name) for name in needs if name not in meta]
        cases = [*lacking, *_meta_cases(meta, usual, name, data.vocab_size)]
        yield from examine(where, META_CHECKS, cases)


def _meta_cases(
    meta: dict, usual: dict[str, str | None], usual_name: str | None, vocab_size: int
) -> Iterator[Case]:
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
    """Return the tokenizer's name, or that of its folder."""
    name = tokenizer_name(meta)
    return Path(name).name if isinstance(name, str) else None


def outside(texts: Iterable[Sequence[int]], vocab_size: int) -> str:
    """Return the largest id of ``texts`` if the model has no embedding for it, and why; else ""."""
    largest = max(map(max, filter(None, texts)), default=-1)
    return f"{largest}, vocab_size {vocab_size}" if largest >= vocab_size else ""
