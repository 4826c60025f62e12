"""Checks of all records of a text database, whatever state they are in."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from data.check.findings import Case, Check, Drops
from data.prepare.work import CHUNK, map_in_chunks
from data.stores.lmdb_io import TextDb
from utils.errors import UserError

BAD_TEXT = Check(
    "records",
    "records that are damaged, lack something, or have something of another kind",
    "make it again with the preparation scripts",
    drops=Drops.RECORD,
)
BAD_VIDEO = replace(BAD_TEXT, drops=Drops.VIDEO)


def record_cases(
    db: TextDb,
    kind: Any,
    look: Callable[[str, Any], Iterator[Case]],
    listed: Collection[str],
    workers: int,
    *,
    bad: Check,
    lost: Check,
    unlisted: Check | None = None,
) -> Iterator[Case]:
    """Yield what is wrong with the records of a database.

    Args:
        db: the database.
        kind: of its records, one of :mod:`data.stores.records`.
        look: yields what is wrong with the record of an id.
        listed: ids that the side files list.
        workers: processes that read.
        bad: check of unreadable records.
        lost: check of ids that are listed only.
        unlisted: check of ids that are not listed; None: none.
    """
    ids = list(db.keys())
    stored = set(ids)
    yield from (lost(id_) for id_ in listed if id_ not in stored)
    if unlisted is not None:
        yield from (unlisted(id_) for id_ in ids if id_ not in listed)

    def cases_of(chunk: list[str]) -> list[list[Case]]:
        return [cases(id_) for id_ in chunk]

    def cases(id_: str) -> list[Case]:
        try:
            return list(look(id_, db.read(id_, kind)))
        except UserError as error:
            return [bad(id_, str(error))]

    for found in map_in_chunks(cases_of, ids, workers, len(ids), CHUNK):
        yield from found
