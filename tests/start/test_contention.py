"""Many starts on one target: one unpacks, the others wait and use its tree, also when that one is killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import is_waiting, processes_with, run, start, wait_for, wrapper
from helpers.support import Tally, leftovers
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree

Mount = Callable[..., None]
WAITING = 8
MODULES = 200

# Waits until the test lets all of them go at once.
GATE = """
import fcntl, os, sys
gate = os.open(os.environ["GATE"], os.O_RDONLY)
open(f"{os.environ['GATE']}.{os.getpid()}", "x").close()
fcntl.flock(gate, fcntl.LOCK_SH)
os.execv(sys.argv[1], sys.argv[1:])
"""

# Imports a module of each package, and looks at the first and the last line of every module that was packed.
APP = f"""
import importlib, os, sys
version, target = int(os.environ["VERSION"]), os.environ["TARGET"]
for number in range(9):
    module = importlib.import_module("packed_%d.module_%d" % (number, number))
    assert (module.VERSION, module.END) == (version, number), (module.VERSION, version, module.__file__)
    assert module.__file__.startswith(target), module.__file__
for number in range({MODULES}):
    with open("%s/packed_%d/module_%d.py" % (target, number % 9, number)) as file:
        first, *_, last = file.read().splitlines()
    assert (first, last) == (f"VERSION = {{version}}", f"END = {{number}}"), (first, version, last, file.name)
print("whole")
"""


def packed(folder: Path, version: int, extra_files: int = 0) -> Path:
    """An archive of a version of the application's packages; `extra_files` make it take longer."""
    files = {f"packed_{number}/__init__.py": "" for number in range(9)}
    for number in range(MODULES):
        text = f"VERSION = {version}\nTEXT = '''{'text ' * number}'''\nEND = {number}\n"
        files[f"packed_{number % 9}/module_{number}.py"] = text
    files.update({f"data/{number}": "data" * 99 for number in range(extra_files)})
    archive = folder / f"version-{version}.tar.zst"
    pack_tree(archive, write_tree(folder / f"tree-{version}", files))
    return archive


def settings(archive: Path, target: Path, version: int, **more: object) -> dict[str, str]:
    """The environment of a start, and of its application."""
    return environment(
        UNPACKENV_ARCHIVE=archive, UNPACKENV_TARGET=target, UNPACKENV_LOG="json", VERSION=version, TARGET=target, **more
    )


def by_wrapper() -> list[object]:
    """The application, started through the wrapper."""
    return wrapper("--", sys.executable, "-c", APP)


def by_bootstrap() -> list[object]:
    """The application, which calls bootstrap() itself."""
    return [sys.executable, "-c", f"import unpackenv\nunpackenv.bootstrap()\n{APP}"]


def outcome_of(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a start whose application must have run, and return what the start did."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (0, "whole\n"), stderr
    (line,) = stderr.splitlines()
    return str(json.loads(line)["outcome"])


@contextmanager
def ended(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Whatever becomes of the test, none of its processes lives on."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=PATIENCE)


# --- many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "starts"), [("absent", 64), ("older version", 16), ("mount root", 16), ("in place", 16)]
)
def test_simultaneous_starts_unpack_once_and_all_see_the_whole_tree(
    tmp_path: Path, target: Path, how: str, starts: int, mount: Mount, tally: Tally
) -> None:
    archive = packed(tmp_path, 2, extra_files=3000)  # so that it takes long enough for others to come
    if how != "absent":
        target.mkdir()
    if how == "mount root":
        mount("-t", "tmpfs", "none", target)
    env = settings(archive, target, 2, UNPACKENV_IN_PLACE="yes" if how == "in place" else "no")
    if how != "absent":  # then all of them find a tree that they must not use
        older = {**env, "UNPACKENV_ARCHIVE": str(packed(tmp_path, 1)), "VERSION": "1"}
        assert run(by_wrapper(), older).stdout == "whole\n"
    lock = target / ".unpackenv.lock" if how in ("mount root", "in place") else target.with_name(".tree.unpackenv.lock")
    counts = Counter(simultaneous([by_wrapper(), by_bootstrap()] * (starts // 2), env, tmp_path / "gate", lock))
    tally("starts, up to 64 at once", sum(counts.values()))
    tally("of these, unpacked", counts["unpacked"])
    tally("of these, waited", counts["waited"])
    assert counts["unpacked"] == 1
    assert counts["waited"] >= WAITING - 1  # how many more do depends on how busy the machine is
    assert counts["unpacked"] + counts["waited"] + counts["reused"] == starts
    assert leftovers(target) == ([".unpackenv.in-place"] if how == "in place" else [])


def simultaneous(commands: list[list[object]], env: dict[str, str], gate: Path, lock: Path) -> list[str]:
    """Let all commands go at once, the lock being held until some wait for it; return what each start did."""
    gate.touch()
    with gate.open() as file, lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_EX)
        running = [
            start([sys.executable, "-S", "-c", GATE, *command], {**env, "GATE": str(gate)}) for command in commands
        ]
        with ended(running):
            wait_for(lambda: len(list(gate.parent.glob("gate.*"))) == len(commands), "all starts to be ready", *running)
            fcntl.flock(file, fcntl.LOCK_UN)
            wait_for(lambda: sum(is_waiting(process.pid, lock) for process in running) >= WAITING, "some to wait")
            fcntl.flock(held, fcntl.LOCK_UN)
            return [outcome_of(process) for process in running]


# --- the one that unpacks is killed --------------------------------------------------------------


class Winner:
    """A start that is stopped in the midst of its unpack, with all of its processes."""

    def __init__(self, folder: Path, target: Path, slow: dict[str, str]) -> None:
        self.archive = packed(folder, 1, extra_files=3000)
        self.lock = target.with_name(".tree.unpackenv.lock")
        self._work = target.with_name(".tree.unpackenv.work")
        self._mark = f"PROCESSES_OF={folder}"
        self.process = start(
            by_bootstrap(), {**slow, **settings(self.archive, target, 1, PYTHONPATH=slow["PYTHONPATH"])}
        )
        wait_for(Path(slow["STARTED"]).exists, "the unpack to begin", self.process)
        self.signal(signal.SIGSTOP)
        Path(slow["GO"]).touch()
        assert self._work.exists()
        assert not target.exists()

    def signal(self, signum: int, *, main: bool = True) -> None:
        """Send a signal to all of its processes, or to all but the application's own."""
        for pid in processes_with(self._mark):
            if main or pid != self.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)


@pytest.fixture
def winner(tmp_path: Path, target: Path, slow: dict[str, str]) -> Iterator[Winner]:
    """A start that is stopped in the midst of its unpack."""
    one = Winner(tmp_path, target, slow)
    yield one
    one.signal(signal.SIGKILL)
    one.process.communicate(timeout=PATIENCE)


@contextmanager
def waiters(winner: Winner, target: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts that wait for the winner."""
    env = settings(winner.archive, target, 1)
    running = [start(by_wrapper() if number % 2 else by_bootstrap(), env) for number in range(count)]
    with ended(running):
        wait_for(lambda: all(is_waiting(process.pid, winner.lock) for process in running), "all to wait", *running)
        yield running


def test_a_waiter_takes_over_when_the_winner_is_killed_with_all_its_processes(winner: Winner, target: Path) -> None:
    with waiters(winner, target, 8) as running:
        winner.signal(signal.SIGKILL)
        counts = Counter(outcome_of(process) for process in running)
    assert counts["unpacked"] == 1
    assert counts["waited"] == 7
    assert leftovers(target) == []


def test_what_a_killed_application_began_is_used_by_all_waiters(winner: Winner, target: Path) -> None:
    """The processes that work for it hold the lock until they are done: nobody disturbs them."""
    with waiters(winner, target, 8) as running:
        winner.signal(signal.SIGCONT, main=False)  # first: the kernel hangs up on orphans that are stopped
        winner.process.kill()
        counts = Counter(outcome_of(process) for process in running)
    assert counts == {"waited": 8}
    assert leftovers(target) == []


def test_a_waiter_takes_over_when_only_the_processes_that_unpack_are_killed(winner: Winner, target: Path) -> None:
    with waiters(winner, target, 8) as running:
        winner.signal(signal.SIGKILL, main=False)
        winner.signal(signal.SIGCONT)
        stderr = winner.process.communicate(timeout=PATIENCE)[1]
        assert winner.process.returncode == 1
        assert "UnpackFailed" in stderr
        assert "was killed by signal 9" in stderr
        counts = Counter(outcome_of(process) for process in running)
    assert counts["unpacked"] == 1
    assert counts["waited"] == 7
    assert leftovers(target) == []


# --- waiting has an end --------------------------------------------------------------------------


def test_waiters_give_up_after_the_timeout_and_name_the_holder(winner: Winner, target: Path) -> None:
    env = settings(winner.archive, target, 1, UNPACKENV_LOCK_TIMEOUT="0.7")
    running = [start(wrapper("--", "echo", "ran"), env) for _ in range(4)]
    with ended(running):
        for process in running:
            stdout, stderr = process.communicate(timeout=PATIENCE)
            assert (process.returncode, stdout) == (125, "")
            check_message(json.loads(stderr), winner)
            assert json.loads(stderr)["lock_wait_ms"] >= 700
    winner.signal(signal.SIGCONT)
    assert outcome_of(winner.process) == "unpacked"
    assert leftovers(target) == []


def check_message(error: dict[str, Any], winner: Winner) -> None:
    holder = f"process {winner.process.pid} on {os.uname().nodename}"
    assert error["reason"] == "lock-timeout"
    assert error["facts"]["holder"] == holder
    assert error["what"] == f"{holder} has been unpacking for longer than 0.7 s"
    assert error["where"] == str(winner.lock)
    assert "UNPACKENV_LOCK_TIMEOUT" in error["hint"]


def test_a_timeout_of_nothing_does_not_wait(winner: Winner, target: Path) -> None:
    done = run(wrapper("--", "echo", "ran"), settings(winner.archive, target, 1, UNPACKENV_LOCK_TIMEOUT="0"))
    assert (done.returncode, done.stdout) == (125, "")
    assert json.loads(done.stderr)["reason"] == "lock-timeout"
