"""Two logs, before and after: what became slower or faster, and whether that is more than noise.

Each median stands in a range: with 95 % probability the true median lies between the two starts that
are its ends (order statistics: about √n ranks below and above the middle; nothing is assumed of how
durations are spread). A difference is more than noise where the two ranges are apart. This is a strict
rule: of logs that are the same in truth, far less than one figure in twenty is called different.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from unpackenv.report.timings.summary import Summary, nearest_rank

SLOWER, FASTER, NOISE, TOO_FEW = "slower", "faster", "within noise", "too few starts to tell"
# With five even the range from the fastest to the slowest misses the true median once in sixteen times.
_FEWEST = 6
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Median:
    """The median of `count` durations in milliseconds, and its 95 % range, None where they are too few for one."""

    count: int
    value: float
    range: tuple[float, float] | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Median:
        """Return the median of `values`, of which there is at least one."""
        ordered = sorted(values)
        count = len(ordered)
        # So many at each end: the binomial distribution, which the normal one replaces well from six on.
        outside = math.floor((count - 1 - _NORMAL_95 * math.sqrt(count)) / 2)
        ends = (ordered[outside], ordered[-1 - outside]) if count >= _FEWEST else None
        return cls(count, nearest_rank(ordered, 50), ends)


@dataclass(frozen=True)
class Change:
    """What became of one duration: of the whole start (`phase` is "") or of one phase, for one outcome."""

    outcome: str
    phase: str
    before: Median
    after: Median

    @property
    def difference(self) -> float:
        """Milliseconds that the median has grown."""
        return self.after.value - self.before.value

    @property
    def verdict(self) -> str:
        """A plain word for it."""
        before, after = self.before.range, self.after.range
        if before is None or after is None:
            return TOO_FEW
        if after[0] > before[1]:
            return SLOWER
        return FASTER if after[1] < before[0] else NOISE


def compare(before: Summary, after: Summary) -> list[Change]:
    """Return the changes of every outcome that both have, the whole before its phases."""
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
