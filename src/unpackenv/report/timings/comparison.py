"""Compare two logs, before and after: what became slower or faster, and whether that is more than noise.

Each median has a range: with 95 % probability the true median is between the two starts at its ends
(order statistics: about √n ranks below and above the middle, for any distribution of durations).
A difference is more than noise if the two ranges are apart. This is a strict rule: between logs without
a true difference, it calls far less than one figure in twenty different.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unpackenv.report.timings.summary import Group, Summary, nearest_rank
from unpackenv.report.timings.words import FETCHED

SLOWER, FASTER, NOISE, TOO_FEW = "slower", "faster", "within noise", "too few starts to tell"
MORE, LESS = "more", "less"
# With five starts even the range from the fastest to the slowest misses the true median once in sixteen times.
_FEWEST = 6
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Median:
    """The median of `count` figures, and its 95 % range, None if there are too few of them."""

    count: int
    value: float
    range: tuple[float, float] | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Median:
        """Return the median of `values`; there must be at least one."""
        ordered = sorted(values)
        count = len(ordered)
        # The values outside at each end, by the normal approximation of the binomial distribution, good from six on.
        outside = math.floor((count - 1 - _NORMAL_95 * math.sqrt(count)) / 2)
        ends = (ordered[outside], ordered[-1 - outside]) if count >= _FEWEST else None
        return cls(count, nearest_rank(ordered, 50), ends)


@dataclass(frozen=True)
class Change:
    """The change of one duration in milliseconds for one outcome: of a phase, or of the whole start (`phase` is "")."""

    grown, shrunk = SLOWER, FASTER

    outcome: str
    phase: str
    before: Median
    after: Median

    @property
    def difference(self) -> float:
        """By how much the median has grown."""
        return self.after.value - self.before.value

    @property
    def verdict(self) -> str:
        """What it has become (`grown` or `shrunk`), NOISE or TOO_FEW."""
        before, after = self.before.range, self.after.range
        if before is None or after is None:
            return TOO_FEW
        if after[0] > before[1]:
            return self.grown
        return self.shrunk if after[1] < before[0] else NOISE


class FetchedChange(Change):
    """The change of what starts of one outcome fetched: `phase` is a name of words.FETCHED, whose unit it has."""

    grown, shrunk = MORE, LESS


def compare(before: Summary, after: Summary) -> list[Change]:
    """Return the changes for every outcome that both have: of the whole start, of its phases, of what it fetched."""
    changes: list[Change] = []
    earlier = {group.outcome: group for group in before.groups}
    for new in after.groups:
        old = earlier.get(new.outcome)
        if old is None:
            continue
        whole = ([start.milliseconds for start in group.starts] for group in (old, new))
        changes.append(Change(new.outcome, "", *map(Median.of, whole)))
        for phase in new.phases:
            parts = [[start.steps[phase] for start in group.starts if phase in start.steps] for group in (old, new)]
            if all(parts):
                changes.append(Change(new.outcome, phase, *map(Median.of, parts)))
        changes += _compare_fetched(old, new)
    return changes


def _compare_fetched(old: Group, new: Group) -> Iterator[FetchedChange]:
    found = [[start.fetched for start in group.starts if start.fetched] for group in (old, new)]
    for name in FETCHED if all(found) else ():
        figures = ([getattr(each, name) for each in side] for side in found)
        yield FetchedChange(new.outcome, name, *map(Median.of, figures))
