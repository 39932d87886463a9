"""How figures are written: Markdown tables, medians with their range, and what had to be shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Format = Callable[[float], str]


def seconds(value: float) -> str:
    return f"{value:.3f}"


def milliseconds(value: float) -> str:
    return f"{value * 1e3:.1f}"


def fine_milliseconds(value: float) -> str:
    return f"{value * 1e3:.2f}"


def megabytes(value: float) -> str:
    """A megabyte is 1,000,000 bytes."""
    return f"{value / 1e6:.1f}"


def ratio(value: float) -> str:
    return f"{value:.3f}"


@dataclass(frozen=True)
class Claim:
    """A figure that must not be above its limit."""

    what: str
    limit: float
    measured: float
    write: Format = ratio

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit

    def row(self) -> tuple[str, str, str, str]:
        return self.what, f"≤ {self.write(self.limit)}", self.write(self.measured), "ok" if self.holds else "**missed**"


def claims_table(claims: Iterable[Claim]) -> str:
    """Return the table of all that had to be shown."""
    return table(("must show", "target", "measured", ""), [claim.row() for claim in claims])


def spread(values: Sequence[float], write: Format = seconds) -> str:
    """Return the median with the least and the most."""
    return f"{write(statistics.median(values))} ({write(min(values))}–{write(max(values))})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
