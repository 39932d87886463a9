"""Compute the figures of a log: how long starts and their phases took, which starts were slow, which failed.

A percentile is the nearest rank: p90 is the shortest time that at least 90 % of the starts did not
exceed. So it is the time of a real start, which the log has. With less than 10 starts p90 would be the slowest, and
with less than 100 p99: tables and pictures leave those out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from unpackenv.report.timings.log import FilledLine, Import, KilledLine, Mark, StartLine, TimingLog
from unpackenv.report.timings.words import FETCHED, OUTCOMES

PERCENTILES = (50, 90, 99)
# The smallest number of starts for each percentile; with fewer it is just the slowest.
_FEWEST = {50: 1, 90: 10, 99: 100}
_TOP = 10
T = TypeVar("T")


def nearest_rank(ordered: Sequence[T], percent: int) -> T:
    """Return the smallest of the `ordered` values that at least `percent` of them do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def telling(count: int) -> tuple[int, ...]:
    """Return the percentiles that are worth showing for `count` starts."""
    return tuple(percent for percent in PERCENTILES if count >= _FEWEST[percent])


@dataclass(frozen=True)
class Distribution:
    """The distribution of some durations, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """Return the distribution of `values`; there must be at least one."""
        ordered = sorted(values)
        p50, p90, p99 = (nearest_rank(ordered, percent) for percent in PERCENTILES)
        return cls(len(ordered), p50, p90, p99, ordered[-1])

    def telling(self) -> dict[int, float]:
        """Return the percentiles that are worth showing."""
        return {percent: getattr(self, f"p{percent}") for percent in telling(self.count)}


@dataclass(frozen=True)
class Group:
    """The starts of one outcome, fastest first."""

    outcome: str
    starts: list[StartLine]

    @property
    def whole(self) -> Distribution:
        """How long they took."""
        return Distribution.of(start.milliseconds for start in self.starts)

    @property
    def phases(self) -> dict[str, Distribution]:
        """How long each phase took in the starts that had it, in the order of phases."""
        by_phase: dict[str, list[float]] = {}
        for start in self.starts:
            for name, duration in start.steps.items():
                by_phase.setdefault(name, []).append(duration)
        return {name: Distribution.of(durations) for name, durations in by_phase.items()}

    @property
    def fetched(self) -> dict[str, Distribution]:
        """What they fetched of remote archives, by the names of words.FETCHED; nothing if no start fetched any."""
        return _fetched(self.starts)

    @property
    def examples(self) -> dict[str, StartLine]:
        """The starts at the percentiles that are worth showing, and the slowest one, unless p99 is among them."""
        count = len(self.starts)
        examples = {f"p{percent}": nearest_rank(self.starts, percent) for percent in telling(count)}
        return examples if count == 1 or PERCENTILES[-1] in telling(count) else {**examples, "slowest": self.starts[-1]}


@dataclass(frozen=True)
class Failures:
    """The number of starts that failed for one reason, and the last of them, whose error is shown.

    An application that was killed since its tree could not be filled counts as a start that failed.
    """

    reason: str
    count: int
    last: StartLine | KilledLine


@dataclass(frozen=True)
class SlowFile:
    """A file for which opens waited longest: in how many trees, and the milliseconds of the longest wait."""

    path: str
    count: int
    ms: float


@dataclass(frozen=True)
class Fills:
    """The trees that were filled behind their applications.

    Of each: milliseconds until it was filled, how many opens waited, and how many milliseconds they waited together.
    `fetched` is what was fetched for those of remote archives, by the names of words.FETCHED.
    """

    milliseconds: Distribution
    waits: Distribution
    waited_ms: Distribution
    longest: list[SlowFile]
    fetched: dict[str, Distribution]


@dataclass(frozen=True)
class FilledBefore:
    """A reason why files were filled before the application although they were to be filled behind it."""

    why: str
    count: int


@dataclass(frozen=True)
class Readiness:
    """When applications reached a point that they marked, after starts of one outcome ("" if it is unknown).

    Milliseconds since the process started, since the bootstrap ended, and the part of the latter that imports took.
    """

    name: str
    outcome: str
    process: Distribution | None
    bootstrap: Distribution | None
    imports: Distribution | None


@dataclass(frozen=True)
class SlowImport:
    """A module that was among the slowest imports: how often it was, and the medians of its milliseconds."""

    module: str
    count: int
    self_ms: float
    cumulative_ms: float


@dataclass(frozen=True)
class Summary:
    """All figures of a log. `first` and `last` are seconds since 1970, None if the log has no times.

    `filled` is None if no tree was filled behind its application.
    """

    log: TimingLog
    groups: list[Group]
    slowest: list[StartLine]
    failures: list[Failures]
    filled: Fills | None
    filled_before: list[FilledBefore]
    readiness: list[Readiness]
    imports: list[SlowImport]
    first: float | None
    last: float | None


def summarize(log: TimingLog) -> Summary:
    """Compute the figures of a log."""
    times = [start.time for start in log.starts if start.time is not None]
    return Summary(
        log,
        groups=_groups(log.starts),
        slowest=sorted(log.starts, key=attrgetter("milliseconds"), reverse=True)[:_TOP],
        failures=_failures(log),
        filled=_filled(log.filled),
        filled_before=_filled_before(log.starts),
        readiness=_readiness(log.marks),
        imports=_imports(log.marks),
        first=min(times, default=None),
        last=max(times, default=None),
    )


def _groups(starts: list[StartLine]) -> list[Group]:
    by_outcome: dict[str, list[StartLine]] = {outcome: [] for outcome in OUTCOMES}  # outcomes of later versions follow
    for start in sorted(starts, key=attrgetter("milliseconds")):
        by_outcome.setdefault(start.outcome, []).append(start)
    return [Group(outcome, members) for outcome, members in by_outcome.items() if members]


def _failures(log: TimingLog) -> list[Failures]:
    by_reason: dict[str, list[StartLine | KilledLine]] = {}
    lines: list[StartLine | KilledLine] = [*log.starts, *log.killed]
    for line in lines:
        if line.error:
            by_reason.setdefault(line.error.reason, []).append(line)
    groups = [Failures(reason, len(failed), failed[-1]) for reason, failed in by_reason.items()]
    return sorted(groups, key=lambda group: -group.count)


def _filled(lines: list[FilledLine]) -> Fills | None:
    if not lines:
        return None
    by_path: dict[str, list[float]] = {}
    for line in lines:
        slowest: dict[str, float] = {}
        for wait in line.longest:
            slowest[wait.path] = max(wait.ms, slowest.get(wait.path, 0.0))
        for path, ms in slowest.items():
            by_path.setdefault(path, []).append(ms)
    files = [SlowFile(path, len(waits), max(waits)) for path, waits in by_path.items()]
    return Fills(
        milliseconds=Distribution.of(line.milliseconds for line in lines),
        waits=Distribution.of(line.waits for line in lines),
        waited_ms=Distribution.of(line.waited_ms for line in lines),
        longest=sorted(files, key=lambda each: -each.ms)[:_TOP],
        fetched=_fetched(lines),
    )


def _fetched(lines: Iterable[StartLine | FilledLine]) -> dict[str, Distribution]:
    found = [line.fetched for line in lines if line.fetched]
    return {name: Distribution.of(getattr(each, name) for each in found) for name in FETCHED} if found else {}


def _filled_before(starts: list[StartLine]) -> list[FilledBefore]:
    counts: dict[str, int] = {}
    for start in starts:
        if start.fill_why:
            counts[start.fill_why] = counts.get(start.fill_why, 0) + 1
    return sorted((FilledBefore(why, count) for why, count in counts.items()), key=lambda each: -each.count)


def _readiness(marks: list[Mark]) -> list[Readiness]:
    by_point: dict[tuple[str, str], list[Mark]] = {}
    for mark in marks:
        by_point.setdefault((mark.name, mark.start.outcome if mark.start else ""), []).append(mark)
    return [
        Readiness(
            *point,
            process=_distribution(mark.process_ms for mark in same),
            bootstrap=_distribution(mark.bootstrap_ms for mark in same),
            imports=_distribution(mark.import_ms for mark in same),
        )
        for point, same in by_point.items()
    ]


def _distribution(values: Iterable[float | None]) -> Distribution | None:
    """Return the distribution of the values that are not None; None if all are."""
    durations = [value for value in values if value is not None]
    return Distribution.of(durations) if durations else None


def _imports(marks: list[Mark]) -> list[SlowImport]:
    by_module: dict[str, list[Import]] = {}
    for mark in marks:
        for each in mark.imports:
            by_module.setdefault(each.module, []).append(each)
    modules = [
        SlowImport(
            module,
            len(imports),
            Distribution.of(each.self_ms for each in imports).p50,
            Distribution.of(each.cumulative_ms for each in imports).p50,
        )
        for module, imports in by_module.items()
    ]
    return sorted(modules, key=lambda each: -each.self_ms)[:_TOP]
