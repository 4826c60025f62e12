"""Reading all records of a text database, whatever state they are in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from data.check.findings import Case, Check, Drops
from data.prepare.work import CHUNK, map_in_chunks
from data.stores.lmdb_io import TextDb
from utils.errors import UserError


def unreadable(drops: Drops) -> Check:
    """The check of records that cannot be looked at, fixed by leaving such things out."""
    title = "records that are damaged, lack something, or have something of another kind"
    return Check("records", title, "make it again with the preparation scripts", drops=drops)


BAD_TEXT = unreadable(Drops.RECORD)
BAD_VIDEO = unreadable(Drops.VIDEO)


@dataclass(frozen=True)
class RecordReader:
    """Looks at records, a chunk at a time.

    Attributes:
        db: where they are.
        kind: of its records, one of :mod:`data.stores.records`.
        look: what is wrong with the record of an id.
        bad: the check that records fail that cannot be looked at.
    """

    db: TextDb
    kind: Any
    look: Callable[[str, Any], Iterator[Case]]
    bad: Check

    def __call__(self, ids: list[str]) -> list[list[Case]]:
        """Return what is wrong with each."""
        return [self._cases(id_) for id_ in ids]

    def _cases(self, id_: str) -> list[Case]:
        try:
            return list(self.look(id_, self.db.read(id_, self.kind)))
        except UserError as error:
            return [self.bad(id_, str(error))]


def record_cases(reader: RecordReader, ids: list[str], workers: int) -> Iterator[Case]:
    """Yield what is wrong with the records of ``ids``, which are there."""
    for cases in map_in_chunks(reader, ids, workers, len(ids), CHUNK):
        yield from cases
