"""A log with starts of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import timing_logs
from helpers.timing_logs import TIME, error, mark, start
from unpackenv.report.timings.words import PHASES, UNPACK


@pytest.fixture
def log_of_all(tmp_path: Path) -> Path:
    """A log with starts of every outcome, some of them slow, and with marks."""
    shorter = [name for name in PHASES if name != UNPACK.name]
    unpacked = {**dict.fromkeys(shorter, 5), "lock": 12, "open": 20, "publish": 8, "fork": 10}
    records = []
    for number in range(20):
        whole = 200 + 40 * number
        records += [
            start(
                "unpacked",
                whole,
                time=TIME + number,
                phases={**unpacked, "unpack": whole - sum(unpacked.values())},
                pid=number + 1,
            ),
            mark("ready", whole + 300, pid=number + 1),
            start("reused", 3 + number / 10, time=TIME + 60 + number, phases={"check": 2.5, "import paths": 0.5}),
            start("waited", 90, time=TIME + number, phases={"check": 5, "lock": 85}, lock_wait_ms=80.0),
        ]
    records += [error("no-space"), error("no-space"), error("lock-timeout", 2000, lock_wait_ms=1990.0)]
    return timing_logs.write(tmp_path / "starts.log", records)
