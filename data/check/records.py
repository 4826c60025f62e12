"""Reading all records of a text database, whatever state they are in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data.check.findings import Case, Check, Drops
from data.prepare.work import CHUNK, map_in_chunks
from data.stores.lmdb_environment import RESTORE
from data.stores.lmdb_io import TextDb
from utils.errors import UserError


@dataclass(frozen=True)
class ReadChecks:
    """Whether a record can be read and looked at at all."""

    damaged: Check
    malformed: Check

    @classmethod
    def dropping(cls, drops: Drops) -> "ReadChecks":
        """The checks whose problems are mended by leaving such things out."""
        again = "make it again with the preparation scripts"
        lacking = "records that lack something, or have something of another kind"
        return cls(
            Check("records", "records that are damaged", RESTORE, drops=drops),
            Check("records", lacking, again, drops=drops),
        )

    def both(self) -> tuple[Check, Check]:
        """As a tuple."""
        return self.damaged, self.malformed


OF_TEXTS = ReadChecks.dropping(Drops.RECORD)
OF_VIDEOS = ReadChecks.dropping(Drops.VIDEO)


@dataclass(frozen=True)
class RecordReader:
    """Looks at records, a chunk at a time.

    Attributes:
        db: where they are.
        look: what is wrong with the record of an id.
        checks: for records that cannot be looked at.
    """

    db: TextDb
    look: Callable[[str, dict], Iterator[Case]]
    checks: ReadChecks

    def __call__(self, ids: list[str]) -> list[list[Case]]:
        """What is wrong with each."""
        return [self._cases(id_) for id_ in ids]

    def _cases(self, id_: str) -> list[Case]:
        try:
            return list(self.look(id_, self.db[id_]))
        except UserError as error:
            return [self.checks.damaged(id_, str(error))]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return [self.checks.malformed(id_, repr(error))]


def record_cases(reader: RecordReader, ids: list[str], workers: int) -> Iterator[Case]:
    """What is wrong with the records of ``ids``, which are there."""
    for cases in map_in_chunks(reader, ids, workers, len(ids), CHUNK):
        yield from cases
