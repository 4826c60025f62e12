"""Checks of databases, and their findings."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from utils.errors import shorten

NAMED = 5  # ids that a row of the table shows


class Severity(StrEnum):
    """Severity of a finding."""

    ERROR = "error"  # a run would fail, or a metric would be wrong
    WARNING = "warning"  # unusual, but it trains
    OK = "ok"


class Drops(StrEnum):
    """What leaving out fixes a problem."""

    VIDEO = "video"
    RECORD = "record"  # of the database itself: a query, a caption


@dataclass(frozen=True)
class Check:
    """Something that can be wrong with a database."""

    topic: str  # what is checked, in a word or two
    title: str  # what is wrong, in a few words
    fix: str
    severity: Severity = Severity.ERROR
    drops: Drops | None = None

    def __call__(self, id_: str, detail: str = "") -> "Case":
        """Return the case of an id that failed the check."""
        return Case(self, id_, shorten(detail, 500))


def warning(topic: str, title: str, fix: str) -> Check:
    """Return a check whose failure is a warning."""
    return Check(topic, title, fix, Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Case:
    """An id that failed a check."""

    check: Check
    id: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.id} ({self.detail})" if self.id and self.detail else self.id or self.detail


@dataclass
class Finding:
    """A check of a database, and the ids that failed it (none: it passed)."""

    check: Check
    where: str
    cases: list[Case] = field(default_factory=list)
    of: int | None = None  # ids checked
    lenient: bool = False  # the run does not read these ids: a warning at most

    @property
    def severity(self) -> Severity:
        if not self.cases:
            return Severity.OK
        return Severity.WARNING if self.lenient else self.check.severity

    @property
    def title(self) -> str:
        return f"{self.check.title} (not read by this run)" if self.lenient else self.check.title

    @property
    def examples(self) -> str:
        """The first few cases."""
        shown = "; ".join(map(str, self.cases[:NAMED]))
        return shown + "; …" * (len(self.cases) > NAMED)

    def line(self) -> str:
        """Return one line for a log."""
        if self.check is CANNOT_OPEN:
            return self.examples
        count = f"{len(self.cases)} of {self.of}" if self.of else str(len(self.cases))
        return f"{self.where} (first: {self.examples}): {self.title} ({count}); {self.check.fix}"


CANNOT_OPEN = Check(
    "opens", "cannot be opened", "fix the path, or copy, download or build it again"
)


def examine(
    where: object,
    checks: Iterable[Check],
    cases: Iterable[Case],
    of: int | None = None,
    read: Collection[str] | None = None,
) -> list[Finding]:
    """Return one finding per check, also for those that passed.

    Args:
        where: the database.
        checks: all that were made; each case belongs to one of them.
        cases: the failures.
        of: how many ids were checked.
        read: ids that the run reads; errors of others become separate warnings. None: all.
    """
    findings = {(check, False): Finding(check, str(where), of=of) for check in checks}
    for case in cases:
        lenient = read is not None and case.id not in read
        new = Finding(case.check, str(where), of=of, lenient=lenient)
        findings.setdefault((case.check, lenient), new).cases.append(case)
    return list(findings.values())
