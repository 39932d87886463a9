"""Figures as text: Markdown tables, medians with their range, and claims that must hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

Format = Callable[[float], str]


def count(value: float) -> str:
    return f"{round(value):,}"


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
    """A figure that must not be above its limit, and better is not above `stretch`; None was not measured."""

    what: str
    limit: float
    measured: float | None
    write: Format = ratio
    stretch: float | None = None

    @property
    def holds(self) -> bool:
        return self.measured is not None and self.measured <= self.limit

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        if self.stretch is not None and self.measured <= self.stretch:
            return "ok, stretch"
        return "ok" if self.holds else "**missed**"


def claims_table(claims: Iterable[Claim]) -> str:
    """Return the table of all that had to be shown."""
    claims = list(claims)
    has_stretch = any(claim.stretch is not None for claim in claims)
    rows = []
    for claim in claims:
        limits = [claim.limit, claim.stretch] if has_stretch else [claim.limit]
        targets = ["" if limit is None else f"≤ {claim.write(limit)}" for limit in limits]
        measured = "–" if claim.measured is None else claim.write(claim.measured)
        rows.append([claim.what, *targets, measured, claim.verdict])
    return table(["must show", "target", *(["stretch"] if has_stretch else []), "measured", ""], rows)


def spread(values: Collection[float], write: Format = seconds) -> str:
    """Return the median with the least and the most."""
    return f"{write(statistics.median(values))} ({write(min(values))}–{write(max(values))})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
