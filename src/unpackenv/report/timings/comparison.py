"""Compare two logs, before and after: what became slower or faster, and whether that is more than noise.

Each median has a range: with 95 % probability the true median is between the two starts at its ends
(order statistics: about √n ranks below and above the middle, for any distribution of durations).
A difference is more than noise if the two ranges are apart. This is a strict rule: between logs without
a true difference, it calls far less than one figure in twenty different.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from unpackenv.report.timings.summary import Summary, nearest_rank

SLOWER, FASTER, NOISE, TOO_FEW = "slower", "faster", "within noise", "too few starts to tell"
# With five starts even the range from the fastest to the slowest misses the true median once in sixteen times.
_FEWEST = 6
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Median:
    """The median of `count` durations in milliseconds, and its 95 % range, None if there are too few of them."""

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
    """The change of one duration for one outcome: of a phase, or of the whole start (`phase` is "")."""

    outcome: str
    phase: str
    before: Median
    after: Median

    @property
    def difference(self) -> float:
        """By how many milliseconds the median has grown."""
        return self.after.value - self.before.value

    @property
    def verdict(self) -> str:
        """SLOWER, FASTER, NOISE or TOO_FEW."""
        before, after = self.before.range, self.after.range
        if before is None or after is None:
            return TOO_FEW
        if after[0] > before[1]:
            return SLOWER
        return FASTER if after[1] < before[0] else NOISE


def compare(before: Summary, after: Summary) -> list[Change]:
    """Return the changes for every outcome that both have: of the whole start, then of its phases."""
    changes = []
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
    return changes
