"""The findings of a look at a container: what is fine, what is worth knowing, and what makes a start slow or fail."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from unpackenv.errors import UnpackenvError
from unpackenv.report.terminal import BOLD_RED, GREEN, YELLOW, Table

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
_STYLES = {OK: GREEN, WARNING: YELLOW, PROBLEM: BOLD_RED}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `level` is OK, NOTE, WARNING (a start is slow, or may surprise) or PROBLEM (it fails). `hint` says what
    to do, `reason` is the code that a failing start logs, and `facts` are the figures, in bytes and seconds.
    """

    topic: str
    level: str
    text: str
    hint: str = ""
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def of_error(topic: str, error: UnpackenvError, level: str = PROBLEM, **facts: object) -> Finding:
    """Return the finding that a step of a start raises `error`."""
    text = f"{error.where}: {error.what}" if error.where else error.what
    return Finding(topic, level, text, error.hint, error.reason, {**facts, **error.facts})


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which a start meets them, and a sentence on what a start would do."""

    findings: list[Finding]
    summary: str

    def count(self, level: str) -> int:
        """Return how many findings are of that level."""
        return sum(finding.level == level for finding in self.findings)

    def exit_code(self, strict: bool) -> int:
        """Return 1 if a start fails, or with `strict` if there are warnings; else 0."""
        return int(self.count(PROBLEM) > 0 or (strict and self.count(WARNING) > 0))

    def fields(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "summary": self.summary,
            "problems": self.count(PROBLEM),
            "warnings": self.count(WARNING),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def table(self) -> Table:
        """Return the findings for people, each with what to do about it."""
        rows = [
            (finding.level, finding.topic, finding.text + (f"\n  {finding.hint}" if finding.hint else ""))
            for finding in self.findings
        ]
        return Table("What a start here depends on", ("level", "topic", "what was found"), rows, styles=_STYLES)
