"""Processes that a command leaves behind: they are waited for, their memory counts, and none is left."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import measure
from measure import Command

MEGABYTE = 1_000_000
# It ends, and a grandchild goes on in a group of its own, which then writes the file `done`.
LEAVES = """
import os, sys, time
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    os.setsid()
    {before}
    open(sys.argv[1] + "/done", "w").close()
    {after}
    os._exit(0)
os.wait()
"""


@pytest.fixture(autouse=True)
def adopted() -> Iterator[None]:
    """With a child that was there before, and is none of a command's."""
    with subprocess.Popen(["sleep", "600"]) as other:
        with measure.adopting():
            yield
            assert not measure._children()
        other.kill()


def leaves(before: str, after: str = "pass", **options: object) -> Command:
    code = LEAVES.format(before=before, after=after)
    return Command("leaves", lambda at: [sys.executable, "-c", code, at], **options)


def is_done(directory: Path) -> bool:
    return (directory / "done").exists()


def test_the_next_sample_waits_for_what_the_last_one_left(tmp_path: Path) -> None:
    seen = []
    fresh = measure.settled(lambda: contextlib.nullcontext(tmp_path), lambda at: seen.append(is_done(at)))
    measure.in_turn([leaves("time.sleep(0.5)")], 1, fresh)
    assert seen == [True]


def test_a_command_that_says_when_it_is_done_is_measured_until_then(tmp_path: Path) -> None:
    with measure.settled(lambda: contextlib.nullcontext(tmp_path))():
        usage = measure.run(leaves("time.sleep(0.5)", until=is_done), tmp_path)
        assert is_done(tmp_path)
    assert usage.wall > 0.5


def test_a_command_that_ends_and_is_not_done_has_failed(tmp_path: Path) -> None:
    ends = Command("ends", lambda at: [sys.executable, "-c", "pass"], until=is_done)
    for measured in (measure.run, measure.watch):
        with pytest.raises(measure.Failed, match="ends ended before it was done"):
            measured(ends, tmp_path)


def test_what_does_not_end_is_killed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_SETTLE_SECONDS", 0.1)
    fresh = measure.settled(lambda: contextlib.nullcontext(tmp_path))
    with pytest.raises(measure.Failed, match=r"1 process\(es\) did not end"):
        measure.in_turn([leaves("pass", "time.sleep(600)")], 1, fresh)


def test_nothing_is_left_where_a_sample_fails(tmp_path: Path) -> None:
    fresh = measure.settled(lambda: contextlib.nullcontext(tmp_path))
    with pytest.raises(measure.Failed, match="ended with 0"):
        measure.in_turn([leaves("time.sleep(600)", ends=1)], 1, fresh)
    assert not is_done(tmp_path)


@pytest.mark.parametrize(("itself", "least", "most"), [(True, 100, 150), (False, 50, 99)])
def test_memory_of_what_is_left_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, itself: bool, least: int, most: int
) -> None:
    look = measure._memory

    def look_at_both(*pids: int) -> measure.Peak:
        if not (tmp_path / "own").exists():
            return measure.Peak()
        found = look(*pids)
        (tmp_path / "seen").touch()
        return found

    monkeypatch.setattr(measure, "_memory", look_at_both)
    both = """
import os, sys, time
pid = os.fork()
if pid == 0:
    if os.fork():
        os._exit(0)
    os.setsid()
    left = b"y" * 60_000_000
    open(sys.argv[1] + "/left", "w").close()
    while not os.path.exists(sys.argv[1] + "/seen"): time.sleep(0.01)
    open(sys.argv[1] + "/done", "w").close()
    os._exit(0)
os.wait()
mine = b"x" * 50_000_000
while not os.path.exists(sys.argv[1] + "/left"): time.sleep(0.01)
open(sys.argv[1] + "/own", "w").close()
while not os.path.exists(sys.argv[1] + "/done"): time.sleep(0.01)
"""
    command = Command("both", lambda at: [sys.executable, "-c", both, at], until=is_done, counts_itself=itself)
    with measure.settled(lambda: contextlib.nullcontext(tmp_path))():
        _, peak = measure.watch(command, tmp_path)
    assert least * MEGABYTE < peak.pss < most * MEGABYTE


def test_what_a_command_needs_is_prepared_before_it_starts(tmp_path: Path) -> None:
    reads = "import sys; print(open(sys.argv[1]).read())"
    command = Command(
        "reads",
        lambda at: [sys.executable, "-c", reads, at / "made"],
        prepare=lambda at: (at / "made").write_text("prepared"),
    )
    assert measure.run(command, tmp_path).output == "prepared\n"
