"""Run commands and measure them: time in one run, memory in another, so that measuring memory costs no time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_SAMPLE_SECONDS = 0.005

Fresh = Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Command:
    """A command to measure; `argv` makes its words, given the directory that it may fill."""

    name: str
    argv: Callable[[Path], Sequence[object]]
    env: Mapping[str, str] = field(default_factory=dict)
    reads: Path | None = None
    """What is read into the page cache before it starts: an archive, or a tree."""


@dataclass(frozen=True)
class Usage:
    """What one run took: seconds, and what the kernel counted for the process and all children it waited for."""

    wall: float
    user: float
    system: float
    switches: int
    output: str

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Peak:
    """The most memory that one run had at a time, in bytes."""

    pss: int = 0
    """Of all its processes together; a page that several map counts once."""
    rss: int = 0
    """Of all its processes together; a page that several map counts for each."""
    largest: int = 0
    """Of its largest process, as the kernel tracked it (VmHWM)."""

    def __or__(self, other: Peak) -> Peak:
        return Peak(max(self.pss, other.pss), max(self.rss, other.rss), max(self.largest, other.largest))


def in_turn(commands: Sequence[Command], rounds: int, fresh: Fresh) -> dict[str, list[Usage]]:
    """Run A B C, A B C, …, each in a directory of its own; a slow minute of the machine then hits all alike."""
    usages: dict[str, list[Usage]] = {command.name: [] for command in commands}
    for number in range(rounds):
        for command in commands:
            _say(f"round {number + 1} of {rounds}: {command.name}")
            with fresh() as directory:
                usages[command.name].append(run(command, directory))
    return usages


def peaks(commands: Sequence[Command], rounds: int, fresh: Fresh) -> dict[str, Peak]:
    """Return the highest peak of each command in `rounds` runs."""
    found = {command.name: Peak() for command in commands}
    for number in range(rounds):
        for command in commands:
            _say(f"memory, round {number + 1} of {rounds}: {command.name}")
            with fresh() as directory:
                found[command.name] |= watch(command, directory)
    return found


def run(command: Command, directory: Path) -> Usage:
    """Run it once, with nothing else done meanwhile."""
    with _started(command, directory) as (pid, started, output):
        _, status, counted = os.wait4(pid, 0)
        wall = time.perf_counter() - started
        text = _checked(command, status, output)
    return Usage(wall, counted.ru_utime, counted.ru_stime, counted.ru_nvcsw + counted.ru_nivcsw, text)


def watch(command: Command, directory: Path) -> Peak:
    """Run it once and look at its processes every few milliseconds."""
    peak = Peak()
    with _started(command, directory) as (pid, _, output):
        while True:
            peak |= _memory(pid)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            time.sleep(_SAMPLE_SECONDS)
        _checked(command, status, output)
    return peak


@contextlib.contextmanager
def _started(command: Command, directory: Path) -> Iterator[tuple[int, float, BinaryIO]]:
    """Start it in a process group of its own, of which nothing is left in the end."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command.argv(directory)]
    if command.reads:
        _read(command.reads)
    with tempfile.TemporaryFile() as output:
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **command.env}
        started = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, environment, file_actions=files, setpgroup=0)
        try:
            yield pid, started, output
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _checked(command: Command, status: int, output: BinaryIO) -> str:
    output.seek(0)
    text = output.read().decode(errors="replace")
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if code:
        raise subprocess.CalledProcessError(code, command.name, text)
    return text


def _read(path: Path) -> None:
    """Bring a file, or all files of a tree, into the page cache."""
    buffer = bytearray(1 << 20)
    names = (
        (os.path.join(directory, name) for directory, _, files in os.walk(path) for name in files)
        if path.is_dir()
        else [path]
    )
    for name in names:
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _memory(pid: int) -> Peak:
    """Return what a process and its descendants have right now."""
    pss = rss = largest = 0
    for process in _family(pid):
        with contextlib.suppress(OSError, KeyError):  # it has ended meanwhile
            rollup = _kilobytes(f"/proc/{process}/smaps_rollup")
            pss += rollup["Pss"]
            rss += rollup["Rss"]
            largest = max(largest, _kilobytes(f"/proc/{process}/status").get("VmHWM", 0))
    return Peak(pss << 10, rss << 10, largest << 10)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    yield from _family(int(child))


def _kilobytes(path: str) -> dict[str, int]:
    with open(path) as file:
        words = (line.split() for line in file)
        return {line[0].rstrip(":"): int(line[1]) for line in words if line[-1] == "kB"}


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
