"""The measurements of one run, its leftovers, and the page cache before it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import measure
from measure import COLD, Command
from rig import freshfs

MEGABYTE = 1_000_000
# A parent and a child: 30 MB that both have, 55 of the child, and 120 that the parent had before anybody looked.
FAMILY = """
import os, sys, time
before = b"x" * 120_000_000; del before
mine = b"x" * 30_000_000
if os.fork():
    os.wait()
else:
    child = b"y" * 55_000_000
    open(sys.argv[1] + "/ready", "w").close()
    while not os.path.exists(sys.argv[1] + "/seen"):
        time.sleep(0.01)
"""


def python(code: str, **options: object) -> Command:
    return Command("python", lambda at: [sys.executable, "-c", code, at], **options)


def test_a_run_counts_the_time_of_the_processor_with_that_of_children(tmp_path: Path) -> None:
    busy = "import os\nif not os.fork():\n while os.times().user < 0.2: sum(range(99_999))\n os._exit(0)\nos.wait()"
    usage = measure.run(python(busy), tmp_path)
    assert usage.user > 0.1
    assert usage.wall >= usage.user * 0.9
    assert usage.switches > 0


@pytest.mark.parametrize(
    ("code", "says"), [("raise SystemExit('no room')", "no room"), ("raise SystemExit(3)", "with 3")]
)
def test_a_command_that_fails_says_why(tmp_path: Path, code: str, says: str) -> None:
    with pytest.raises(measure.Failed, match=says):
        measure.run(python(code), tmp_path)


def test_a_command_may_be_ended_by_the_signal_that_is_expected(tmp_path: Path) -> None:
    kills_itself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    measure.run(python(kills_itself, ends=-signal.SIGKILL), tmp_path)
    with pytest.raises(measure.Failed, match="ended with -9"):
        measure.run(python(kills_itself), tmp_path)
    with pytest.raises(measure.Failed, match="ended with 0"):
        measure.run(python("pass", ends=-signal.SIGKILL), tmp_path)


def test_memory_of_all_processes_counts_shared_pages_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = measure._memory

    def look_at_the_family(pid: int) -> measure.Peak:
        if not (tmp_path / "ready").exists():
            return measure.Peak()
        found = look(pid)
        (tmp_path / "seen").touch()
        return found

    monkeypatch.setattr(measure, "_memory", look_at_the_family)
    _, peak = measure.watch(python(FAMILY), tmp_path)
    assert 80 * MEGABYTE < peak.pss < 98 * MEGABYTE  # in the end 30 that both have, and 55
    assert 100 * MEGABYTE < peak.rss < 135 * MEGABYTE
    assert 120 * MEGABYTE < peak.largest < 140 * MEGABYTE


def test_what_does_not_work_is_told_from_what_does(tmp_path: Path) -> None:
    writes = "import sys; open(sys.argv[1] + '/file', 'w').close()"
    good = Command("good", lambda at: [sys.executable, "-c", writes, at])
    bad = Command("bad", lambda at: [sys.executable, "-c", "raise SystemExit('no such codec')"])
    found = measure.survey([good, bad], 2, lambda: contextlib.nullcontext(tmp_path))
    assert found.files == {"good": 1}
    assert found.peaks.keys() == {"good"}
    assert found.failed.keys() == {"bad"}
    assert "no such codec" in found.failed["bad"]
    with pytest.raises(measure.Failed, match="no such codec"):
        measure.peaks([good, bad], 1, lambda: contextlib.nullcontext(tmp_path))


def test_a_program_that_is_not_there_fails_as_well(tmp_path: Path) -> None:
    absent = Command("absent", lambda at: ["/no/such/program"])
    with pytest.raises(measure.Failed, match="No such file"):
        measure.run(absent, tmp_path)


def test_commands_take_turns_and_some_run_in_every_third_round_only(tmp_path: Path) -> None:
    log = "import sys; open(sys.argv[1] + '/log', 'a').write(sys.argv[2])"
    commands = [
        Command(name, lambda at, name=name: [sys.executable, "-c", log, at, name], reads=tmp_path) for name in "AB"
    ]
    usages = measure.in_turn(commands, 4, lambda: contextlib.nullcontext(tmp_path), seldom={"B"})
    assert (tmp_path / "log").read_text() == "ABAABA"  # and the other way round in every second round
    assert {name: [usage.round for usage in runs] for name, runs in usages.items()} == {"A": [0, 1, 2, 3], "B": [0, 3]}


def test_files_are_counted_once_whatever_their_names(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_text("text")
    os.link(tmp_path / "deep" / "er" / "file", tmp_path / "again")
    os.symlink("again", tmp_path / "link")
    (tmp_path / "other").touch()
    assert measure.count_files(tmp_path) == 2


def test_an_evicted_file_is_not_in_the_page_cache(disk: Path) -> None:
    file = disk / "file"
    file.write_bytes(os.urandom(1 << 20))  # and not written back yet
    assert _is_cached(file)
    measure.run(python("pass", reads=disk, cache=COLD), disk)
    assert not _is_cached(file)
    measure.run(python("pass", reads=disk), disk)
    assert _is_cached(file)
    measure.evict(file)
    assert not _is_cached(file)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a file system that keeps nothing in memory that can be dropped, as tmpfs does."""
    ext4 = next(kind for kind in freshfs.KINDS if kind.name == "ext4")
    problem = ext4.problem()
    if problem:
        pytest.skip(f"ext4 cannot be mounted here: {problem}")
    with ext4.fresh() as directory:
        yield directory


def _is_cached(path: Path) -> bool:
    """Whether the last page of a file can be read at once."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], os.fstat(fd).st_size - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
