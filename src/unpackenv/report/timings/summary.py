"""The figures of a log: how long starts took, on what, which were slow, which failed.

A percentile is the nearest rank: p90 is the shortest time that at least 90 % of the starts did not
exceed. It is always a start that took place, so it can be looked at. Of less than 10 starts p90 would be the
slowest, and of less than 100 p99: people are not shown those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from unpackenv.report.timings.log import Import, Log, Mark, Start
from unpackenv.report.timings.words import OUTCOMES

PERCENTILES = (50, 90, 99)
# So many starts are the fewest of which a percentile is not the slowest.
_FEWEST = {50: 1, 90: 10, 99: 100}
_TOP = 10
T = TypeVar("T")


def nearest_rank(ordered: Sequence[T], percent: int) -> T:
    """Return the smallest of the `ordered` values that at least `percent` of them do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def telling(count: int) -> tuple[int, ...]:
    """Return the percentiles that say something of so many starts."""
    return tuple(percent for percent in PERCENTILES if count >= _FEWEST[percent])


@dataclass(frozen=True)
class Distribution:
    """How some durations are spread, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """Return that of `values`, of which there is at least one."""
        ordered = sorted(values)
        p50, p90, p99 = (nearest_rank(ordered, percent) for percent in PERCENTILES)
        return cls(len(ordered), p50, p90, p99, ordered[-1])

    def telling(self) -> dict[int, float]:
        """Return the percentiles that say something of so many."""
        return {percent: getattr(self, f"p{percent}") for percent in telling(self.count)}


@dataclass(frozen=True)
class Group:
    """The starts of one outcome, fastest first."""

    outcome: str
    starts: list[Start]

    @property
    def whole(self) -> Distribution:
        """How long they took."""
        return Distribution.of(start.milliseconds for start in self.starts)

    @property
    def phases(self) -> dict[str, Distribution]:
        """How long each phase took, of the starts that had it; in the order of phases."""
        by_phase: dict[str, list[float]] = {}
        for start in self.starts:
            for name, duration in start.steps.items():
                by_phase.setdefault(name, []).append(duration)
        return {name: Distribution.of(durations) for name, durations in by_phase.items()}

    @property
    def examples(self) -> dict[str, Start]:
        """Return the starts that are the percentiles that say something, and the slowest where none of them is it."""
        count = len(self.starts)
        found = {f"p{percent}": nearest_rank(self.starts, percent) for percent in telling(count)}
        return found if count == 1 or PERCENTILES[-1] in telling(count) else {**found, "slowest": self.starts[-1]}


@dataclass(frozen=True)
class Failures:
    """The starts that failed for one reason; the last of them has the words."""

    reason: str
    count: int
    last: Start


@dataclass(frozen=True)
class Readiness:
    """When applications reached a point that they named, after starts of one outcome ("" where it is not known).

    Milliseconds since the process started, since the bootstrap ended, and of the latter those of imports.
    """

    name: str
    outcome: str
    process: Distribution | None
    bootstrap: Distribution | None
    imports: Distribution | None


@dataclass(frozen=True)
class SlowImport:
    """A module that was among the slowest imports: how often, and the medians of its milliseconds."""

    module: str
    count: int
    self_ms: float
    cumulative_ms: float


@dataclass(frozen=True)
class Summary:
    """All figures of a log. `first` and `last` are seconds since 1970, None where the log has no times."""

    log: Log
    groups: list[Group]
    slowest: list[Start]
    failures: list[Failures]
    readiness: list[Readiness]
    imports: list[SlowImport]
    first: float | None
    last: float | None


def summarize(log: Log) -> Summary:
    """Make the figures of a log."""
    times = [start.time for start in log.starts if start.time is not None]
    return Summary(
        log,
        groups=_groups(log.starts),
        slowest=sorted(log.starts, key=attrgetter("milliseconds"), reverse=True)[:_TOP],
        failures=_failures(log.starts),
        readiness=_readiness(log.marks),
        imports=_imports(log.marks),
        first=min(times, default=None),
        last=max(times, default=None),
    )


def _groups(starts: list[Start]) -> list[Group]:
    by_outcome: dict[str, list[Start]] = {outcome: [] for outcome in OUTCOMES}  # what a later version adds follows
    for start in sorted(starts, key=attrgetter("milliseconds")):
        by_outcome.setdefault(start.outcome, []).append(start)
    return [Group(outcome, found) for outcome, found in by_outcome.items() if found]


def _failures(starts: list[Start]) -> list[Failures]:
    by_reason: dict[str, list[Start]] = {}
    for start in starts:
        if start.error:
            by_reason.setdefault(start.error.reason, []).append(start)
    groups = [Failures(reason, len(found), found[-1]) for reason, found in by_reason.items()]
    return sorted(groups, key=lambda group: -group.count)


def _readiness(marks: list[Mark]) -> list[Readiness]:
    by_point: dict[tuple[str, str], list[Mark]] = {}
    for mark in marks:
        by_point.setdefault((mark.name, mark.start.outcome if mark.start else ""), []).append(mark)
    return [
        Readiness(
            *point,
            process=_known(mark.process_ms for mark in found),
            bootstrap=_known(mark.bootstrap_ms for mark in found),
            imports=_known(mark.import_ms for mark in found),
        )
        for point, found in by_point.items()
    ]


def _known(values: Iterable[float | None]) -> Distribution | None:
    known = [value for value in values if value is not None]
    return Distribution.of(known) if known else None


def _imports(marks: list[Mark]) -> list[SlowImport]:
    by_module: dict[str, list[Import]] = {}
    for mark in marks:
        for each in mark.imports:
            by_module.setdefault(each.module, []).append(each)
    found = [
        SlowImport(
            module,
            len(imports),
            Distribution.of(each.self_ms for each in imports).p50,
            Distribution.of(each.cumulative_ms for each in imports).p50,
        )
        for module, imports in by_module.items()
    ]
    return sorted(found, key=lambda each: -each.self_ms)[:_TOP]
