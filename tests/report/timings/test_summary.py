"""The figures of many starts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import timing_logs
from helpers.timing_logs import TIME, error, fetched, filled, killed, mark, start
from unpackenv.report.timings import log
from unpackenv.report.timings.causes import waited_for
from unpackenv.report.timings.summary import Distribution, Summary, nearest_rank, summarize
from unpackenv.report.timings.words import UNTIL_FAILED


def summary_of(tmp_path: Path, *records: dict[str, object]) -> Summary:
    return summarize(log.read([str(timing_logs.write(tmp_path / "starts.log", records))]))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=120), st.integers(1, 100))
def test_nearest_rank_is_what_it_says(values: list[int], percent: int) -> None:
    """The smallest value that at least so many percent do not exceed, by counting."""
    enough = [value for value in values if sum(other <= value for other in values) * 100 >= percent * len(values)]
    assert nearest_rank(sorted(values), percent) == min(enough)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 1, 1)),
        (2, (1, 2, 2)),
        (10, (5, 9, 10)),
        (100, (50, 90, 99)),
        (101, (51, 91, 100)),
        (200, (100, 180, 198)),
    ],
)
def test_percentiles_are_figures_that_were_measured(count: int, expected: tuple[int, int, int]) -> None:
    found = Distribution.of(range(count, 0, -1))
    assert (found.p50, found.p90, found.p99) == expected
    assert (found.count, found.largest) == (count, count)


def test_outcomes_and_phases(tmp_path: Path) -> None:
    found = summary_of(
        tmp_path,
        start("reused", 3, phases={"check": 2.5, "import paths": 0.5}),
        *(start("unpacked", 100 + number, phases={"check": 1, "unpack": 99 + number}) for number in range(10)),
        error("no-space", 50), error("no-space", 60), error("lock-timeout", 600_000),
        start("reused", 5, phases={"check": 4, "lock": 1}),
        start("a new one", 1),
    )  # fmt: skip
    assert [(group.outcome, len(group.starts)) for group in found.groups] == [
        ("unpacked", 10), ("reused", 2), ("error", 3), ("a new one", 1),
    ]  # fmt: skip
    unpacked, reused, failed, _ = found.groups
    assert (unpacked.whole.p50, unpacked.whole.p90, unpacked.whole.largest) == (104, 108, 109)
    assert (unpacked.phases["unpack"].p50, unpacked.phases["check"].p99) == (103, 1)
    assert {name: each.milliseconds for name, each in unpacked.examples.items()} == {
        "p50": 104,
        "p90": 108,
        "slowest": 109,
    }
    assert {name: each.milliseconds for name, each in reused.examples.items()} == {"p50": 3, "slowest": 5}
    assert list(reused.phases) == ["check", "import paths", "lock"]
    assert (reused.phases["lock"].count, reused.phases["check"].count) == (1, 2)
    assert failed.phases[UNTIL_FAILED.name].largest == 540_000
    assert [start.milliseconds for start in found.slowest] == [600_000, *range(109, 100, -1)]
    assert [(each.reason, each.count, each.last.where.rpartition(":")[2]) for each in found.failures] == [
        ("no-space", 2, "13"), ("lock-timeout", 1, "14"),
    ]  # fmt: skip


def test_files_that_were_filled_behind_applications(tmp_path: Path) -> None:
    """Of each file the longest wait counts, once a tree: several opens may have waited for it."""
    found = summary_of(
        tmp_path,
        start("named"), filled(1000, ("a.so", 90), ("a.so", 80), ("b.py", 7)),
        start("named"), filled(1400, ("b.py", 95)), start("named"), filled(1200),
        start(fill_why="too few"), start(fill_why="too few"), start(fill_why="in place"),
        start("named"), killed("no room"),
    )  # fmt: skip
    fills = found.filled
    assert fills
    assert fills.milliseconds == Distribution(3, 1200, 1400, 1400, 1400)
    assert (fills.waits.p50, fills.waits.largest) == (1, 3)
    assert (fills.waited_ms.p50, fills.waited_ms.largest) == (95, 177)
    assert [(each.path, each.count, each.ms) for each in fills.longest] == [("b.py", 2, 95), ("a.so", 1, 90)]
    assert [(each.why, each.count) for each in found.filled_before] == [("too few", 2), ("in place", 1)]
    (failed,) = found.failures
    assert (failed.reason, failed.count, failed.last.error and failed.last.error.what) == (
        "tree-unfilled",
        1,
        "no room",
    )
    assert [group.outcome for group in found.groups] == ["unpacked", "named"]
    assert summary_of(tmp_path, start()).filled is None


def test_what_was_fetched(tmp_path: Path) -> None:
    """By outcome, of the starts that fetched something; and until trees were filled."""
    found = summary_of(
        tmp_path,
        start(fetched=fetched(90, 400)), start(fetched=fetched(10, 20, cached=80_000_000, retries=3)), start(),
        start("reused"), start("named", fetched=fetched(1, 5)), filled(fetched=fetched(92, 700)), filled(),
    )  # fmt: skip
    unpacked, named, reused = found.groups
    assert unpacked.fetched["bytes"] == Distribution(2, 10_000_000, 90_000_000, 90_000_000, 90_000_000)
    assert [unpacked.fetched[part].largest for part in ("cached", "retries", "wait_ms")] == [80_000_000, 3, 400]
    assert (named.fetched["wait_ms"].largest, reused.fetched) == (5, {})
    assert found.filled
    assert found.filled.fetched["bytes"] == Distribution(1, 92_000_000, 92_000_000, 92_000_000, 92_000_000)
    alone = summary_of(tmp_path, start(), filled())
    assert alone.filled
    assert (alone.groups[0].fetched, alone.filled.fetched) == ({}, {})


def test_the_summary_says_from_when_to_when(tmp_path: Path) -> None:
    found = summary_of(tmp_path, start(time=TIME + 5), start(time=None), error(time=TIME))
    assert (found.first, found.last) == (TIME, TIME + 5)
    found = summary_of(tmp_path, start(time=None))
    assert (found.first, found.last) == (None, None)


def test_time_to_ready(tmp_path: Path) -> None:
    slow = [{"module": "pandas", "self_ms": 90.0, "cumulative_ms": 400.0}]
    found = summary_of(
        tmp_path,
        start("unpacked"), mark("ready", 900, import_ms=250.0, imports=slow), start("reused"), mark("ready", 400),
        start("reused"), mark("ready", 420, imports=[*slow, {"module": "re", "self_ms": 7.0, "cumulative_ms": 9.0}]),
        mark("ready", 77, pid=8, bootstrap_ms=None), mark("loaded", None),
    )  # fmt: skip
    by_point = {(each.name, each.outcome): each for each in found.readiness}
    assert list(by_point) == [("ready", "unpacked"), ("ready", "reused"), ("ready", ""), ("loaded", "reused")]
    cold, warm, unknown, loaded = by_point.values()
    assert (cold.process, cold.imports) == (Distribution(1, 900, 900, 900, 900), Distribution(1, 250, 250, 250, 250))
    assert (warm.process, warm.imports) == (Distribution(2, 400, 420, 420, 420), None)
    assert (unknown.bootstrap, loaded.process, loaded.bootstrap) == (None, None, Distribution(1, 300, 300, 300, 300))
    assert [(each.module, each.count, each.self_ms) for each in found.imports] == [("pandas", 2, 90), ("re", 1, 7)]


UNPACK = {"check": 10.0, "unpack": 90.0}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (start(phases={"lock": 95, "check": 5}, lock_wait_ms=90.0), "another start, which held the lock: 90 ms (90%)"),
        (start(phases={"lock": 50, "unpack": 50}, lock_wait_ms=0.0), "lock: 50 ms (50%)"),
        (start(phases={"lock": 100}, lock_wait_ms=49.0), "lock: 100 ms (100%), 49 ms of it for another start"),
        (start(phases=UNPACK, throttled_ms=25.0), "the CPU quota: throttled for 25 ms, summed over CPUs"),
        (start(phases=UNPACK, throttled_ms=24.0), "unpack: 90 ms (90%)"),
        (start(phases=UNPACK, throttled_ms=None, cpu_ms=90.0), "unpack: 90 ms (90%)"),
        (start(phases=UNPACK, cpu_ms=45.0), "unpack: 90 ms (90%), CPUs used for 25% of it: disk, or other processes"),
        (start(phases=UNPACK, cpu_ms=None), "unpack: 90 ms (90%)"),
        (
            start(phases=UNPACK, workers=1, workers_why="setting", cpu_ms=90.0),
            "unpack: 90 ms (90%), by 1 worker, as UNPACKENV_WORKERS says",
        ),
        (start(phases={"check": 60, "import paths": 40}, cpu_ms=1.0), "check: 60 ms (60%)"),
        (error(milliseconds=600, lock_wait_ms=500.0), "another start, which held the lock: 500 ms (83%)"),
        (error(milliseconds=600), "until it failed: 540 ms (90%)"),
        (start(phases={"unpack": 0}), "unpack: 0 ms (0%)"),
        (start("off", 0, phases={}), ""),
        (
            start(phases=UNPACK, fetched=fetched(90, 100.0)),  # by two workers
            "the network: 50 ms (50%), for 90.0 MB in 12 requests",
        ),
        (start(phases=UNPACK, cpu_ms=90.0, fetched=fetched(90, 98.0)), "unpack: 90 ms (90%)"),
        (
            start(phases={"check": 70.0, "unpack": 30.0}, fetched=fetched(1, 80.0)),  # both waited all of the unpack
            "the network: 50 ms (50%), for 1.0 MB in 12 requests",
        ),
        (start(phases={"check": 70.0, "unpack": 30.0}, fetched=fetched(1, 79.0)), "check: 70 ms (70%)"),
        (
            start("named", phases={"names": 100}, workers=0, fetched=fetched(1, 60.0, retries=2, cached=5000)),
            "the network: 60 ms (60%), for 1.0 MB in 12 requests, 2 of them tried again, and 5.0 kB from the cache",
        ),
        (
            start(phases={"lock": 60, "unpack": 40}, lock_wait_ms=60.0, fetched=fetched(1, 120.0)),
            "another start, which held the lock: 60 ms (60%)",
        ),
    ],
)  # fmt: skip
def test_what_a_start_waited_for(tmp_path: Path, record: dict[str, object], expected: str) -> None:
    (slowest,) = summary_of(tmp_path, record).slowest
    assert waited_for(slowest) == expected


def test_shares_are_never_more_than_the_whole(tmp_path: Path) -> None:
    (slowest,) = summary_of(tmp_path, start(milliseconds=100, phases={"unpack": 100.4})).slowest
    assert "(100%)" in waited_for(slowest)
    assert math.isclose(slowest.milliseconds, 100)
