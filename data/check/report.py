"""Findings as a table, as JSON, and as a list of ids to leave out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from data.check.broken_databases import BrokenRecords
from data.check.findings import Drops, Finding, Severity
from utils.errors import shorten

WIDTHS = [34, 40, None, None, 44, 40]  # of the table's columns, in characters
PASSED_WIDTHS = [70, 80]
NAMED_LINES = 3
LINE_CHARACTERS = 400  # of them together


@dataclass
class Report:
    """All findings, one per check and database: a later one replaces an earlier one."""

    _findings: dict[tuple, Finding] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        for finding in findings:
            self._findings[finding.check, finding.where, finding.lenient] = finding

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [found for found in self._findings.values() if found.severity is severity]

    @property
    def errors(self) -> list[Finding]:
        return self.of(Severity.ERROR)

    @property
    def warnings(self) -> list[Finding]:
        return self.of(Severity.WARNING)

    def table(self) -> str:
        """Return what is wrong, errors first; then the checks that passed."""
        headers = ["check", "database", "severity", "how many", "examples", "how to fix"]
        rows = [
            [
                f"{found.check.topic}: {found.title}",
                found.where,
                str(found.severity),
                len(found.cases),
                found.examples,
                found.check.fix,
            ]
            for found in (*self.errors, *self.warnings)
        ]
        parts = [tabulate(rows, headers, tablefmt="simple_grid", maxcolwidths=WIDTHS)]
        return "\n".join((parts if rows else []) + [self._passed(), self.summary()])

    def _passed(self) -> str:
        """Return the topics of each database in which nothing is wrong."""
        topics: dict[str, dict[str, bool]] = {}
        for found in self._findings.values():
            passed = topics.setdefault(found.where, {})
            topic = found.check.topic
            passed[topic] = passed.get(topic, True) and found.severity is Severity.OK
        rows = [
            [where, ", ".join(topic for topic, ok in passed.items() if ok)]
            for where, passed in topics.items()
            if any(passed.values())
        ]
        return tabulate(rows, ["database", "ok"], "simple", maxcolwidths=PASSED_WIDTHS)

    def summary(self) -> str:
        """Return the numbers of errors, warnings and passed checks."""
        return (
            f"{len(self.errors)} error(s), {len(self.warnings)} warning(s), "
            f"{len(self.of(Severity.OK))} check(s) passed"
        )

    def first_errors(self) -> str:
        """Return the first errors in one line."""
        shown = "; ".join(found.line() for found in self.errors[:NAMED_LINES])
        more = len(self.errors) - NAMED_LINES
        return shorten(f"{shown}; and {more} more" if more > 0 else shown, LINE_CHARACTERS)

    def to_json(self) -> list[dict[str, Any]]:
        """Return one object per check and database, with all ids."""
        return [
            {
                "check": found.check.topic,
                "problem": found.title,
                "database": found.where,
                "severity": str(found.severity),
                "count": len(found.cases),
                "of": found.of,
                "cases": [{"id": case.id, "detail": case.detail} for case in found.cases],
                "fix": found.check.fix if found.cases else None,
            }
            for found in self._findings.values()
        ]

    def broken_records(self) -> BrokenRecords:
        """Return what to leave out to fix all errors of single ids."""
        drops = BrokenRecords()
        for found in self.errors:
            ids = {case.id for case in found.cases if case.id}
            if found.check.drops is Drops.VIDEO:
                drops.videos |= ids
            elif found.check.drops is Drops.RECORD:
                drops.of(found.where).update(ids)
        return drops

    def undroppable(self) -> list[Finding]:
        """Return the errors that leaving ids out does not fix."""
        return [found for found in self.errors if found.check.drops is None]
