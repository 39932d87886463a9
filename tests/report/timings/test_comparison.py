"""Before and after: the range of a median, and when a difference is called more than noise."""

from __future__ import annotations

import random
from math import comb
from pathlib import Path

import pytest

from helpers import timing_logs
from helpers.timing_logs import fetched, start
from unpackenv.report.timings import log
from unpackenv.report.timings.comparison import (
    FASTER,
    LESS,
    MORE,
    NOISE,
    SLOWER,
    TOO_FEW,
    Change,
    FetchedChange,
    Median,
    compare,
)
from unpackenv.report.timings.summary import Summary, summarize


@pytest.mark.parametrize("count", [*range(6, 120), 500, 1001])
def test_the_range_holds_the_median_as_often_as_it_says(count: int) -> None:
    """With k values left out at each end, it misses the true median if no more than k fall on one side of that."""
    (low, high) = Median.of(range(count)).range or (0, 0)
    left_out = int(low)
    assert high == count - 1 - left_out
    misses = 2 * sum(comb(count, number) for number in range(left_out + 1)) / 2**count
    assert misses <= 0.05
    assert misses >= 0.02 or count < 30  # and is no wider than it must be


def test_of_few_nothing_is_said() -> None:
    assert Median.of([1, 2, 3, 4, 5]).range is None
    assert Median.of([1, 2, 3, 4, 5, 6]).range == (1, 6)


def change(before: list[float], after: list[float]) -> Change:
    return Change("unpacked", "", Median.of(before), Median.of(after))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([100.0] * 6, [101.0] * 6, SLOWER),
        ([101.0] * 6, [100.0] * 6, FASTER),
        ([100.0] * 6, [100.0] * 6, NOISE),
        ([*range(90, 110)], [*range(95, 115)], NOISE),
        ([*range(90, 110)], [*range(110, 130)], SLOWER),
        ([100.0] * 5, [900.0] * 50, TOO_FEW),
        ([100.0] * 50, [900.0] * 5, TOO_FEW),
    ],
)
def test_a_change_is_judged_by_its_size_and_number(before: list[float], after: list[float], verdict: str) -> None:
    assert change(before, after).verdict == verdict


def test_how_often_the_verdict_errs() -> None:
    """Durations as starts have them: a long tail to the slow side."""
    draw = random.Random(6)

    def starts(factor: float) -> list[float]:
        return [100 * factor * draw.lognormvariate(0, 0.2) for _ in range(40)]

    false_alarms = sum(change(starts(1), starts(1)).verdict != NOISE for _ in range(500))
    found = sum(change(starts(1), starts(1.3)).verdict == SLOWER for _ in range(500))
    assert false_alarms <= 0.02 * 500
    assert found >= 0.9 * 500


def summary_of(path: Path, *records: dict[str, object]) -> Summary:
    return summarize(log.read([str(timing_logs.write(path, records))]))


def test_outcomes_and_phases_of_both(tmp_path: Path) -> None:
    before = summary_of(
        tmp_path / "before",
        *(start("unpacked", 100 + number, phases={"check": 1, "unpack": 99 + number, "old": 0}) for number in range(9)),
        start("waited"),
    )
    after = summary_of(
        tmp_path / "after",
        *(
            start("unpacked", 200 + number, phases={"check": 1, "unpack": 199 + number, "new": 0})
            for number in range(9)
        ),
        start("reused"),
    )
    found = compare(before, after)
    assert [(each.outcome, each.phase, each.difference, each.verdict) for each in found] == [
        ("unpacked", "", 100, SLOWER), ("unpacked", "check", 0, NOISE), ("unpacked", "unpack", 100, SLOWER),
    ]  # fmt: skip
    assert compare(summary_of(tmp_path / "x", start("waited")), after) == []


def test_what_was_fetched_before_and_after(tmp_path: Path) -> None:
    """With a cache, say; where one side has fetched nothing, there is nothing to compare."""
    before = summary_of(tmp_path / "before", *(start(fetched=fetched(90 + each, 300)) for each in range(9)))
    after = summary_of(tmp_path / "after", *(start(fetched=fetched(9, 300, cached=81_000_000)) for _ in range(9)))
    found = [each for each in compare(before, after) if isinstance(each, FetchedChange)]
    assert [(each.outcome, each.phase, each.verdict) for each in found] == [
        ("unpacked", "bytes", LESS), ("unpacked", "cached", MORE), ("unpacked", "requests", NOISE),
        ("unpacked", "retries", NOISE), ("unpacked", "wait_ms", NOISE),
    ]  # fmt: skip
    assert found[0].difference == -85_000_000
    local = summary_of(tmp_path / "local", *(start() for _ in range(9)))
    assert not any(isinstance(each, FetchedChange) for each in [*compare(before, local), *compare(local, after)])
