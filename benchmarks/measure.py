"""Run commands and measure them: time in one run, memory in another, so that measuring memory costs no time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

_SAMPLE_SECONDS = 0.005
_LOOK_SECONDS = 0.001
_SETTLE_SECONDS = 300.0
"""A guard against hanging: a busy machine gives hardly any time to processes of the lowest priority."""
_PR_SET_CHILD_SUBREAPER = 36
SELDOM = 3
_DROP_CACHES = "/proc/sys/vm/drop_caches"

WARM, COLD, DROPPED = "warm", "cold", "dropped"
"""What is in the page cache when a command starts: what it reads; not what it reads; nothing at all (takes root)."""

Fresh = Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Command:
    """A command to measure; `argv` makes its words, given the directory that it may fill."""

    name: str
    argv: Callable[[Path], Sequence[object]]
    env: Mapping[str, str] = field(default_factory=dict)
    reads: Path | None = None
    """An archive, or a tree, that is brought into the page cache before it starts, or is removed from it."""
    cache: str = WARM
    ends: int = 0
    """Its exit status; a signal's number, less than 0, where that is how it ends."""
    prepare: Callable[[Path], object] | None = None
    """What is done in the directory before it starts, and is not measured."""
    until: Callable[[Path], bool] | None = None
    """What has to hold in the directory for the command to be done; else it is done when it has ended."""
    counts_itself: bool = True
    """Whether its own memory counts, and not only that of the processes that it leaves behind."""


@dataclass(frozen=True)
class Usage:
    """What one run took: seconds, and what the kernel counted for the process and all children it waited for."""

    wall: float
    user: float
    system: float
    switches: int
    """Context switches, voluntary and not."""
    output: str
    round: int = 0
    """In which round of several."""

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


class Failed(Exception):
    """A command ended in another way than it should."""


@dataclass(frozen=True)
class Survey:
    """What commands did when they were looked at, by their name."""

    peaks: dict[str, Peak]
    """The highest of several runs."""
    files: dict[str, int]
    """How many they left behind."""
    failed: dict[str, str]
    """Of those that do not work here, the reason; they have neither peak nor files."""


def in_turn(
    commands: Sequence[Command], rounds: int, fresh: Fresh, seldom: Collection[str] = ()
) -> dict[str, list[Usage]]:
    """Run commands in turn, each in a directory of its own. Those named in `seldom` run in every third round only."""
    usages: dict[str, list[Usage]] = {command.name: [] for command in commands}
    for number, command in _turns(commands, rounds, seldom):
        with fresh() as directory:
            usages[command.name].append(replace(run(command, directory), round=number))
    return usages


def watched_in_turn(
    commands: Sequence[Command], rounds: int, fresh: Fresh, seldom: Collection[str] = ()
) -> dict[str, list[tuple[Usage, Peak]]]:
    """Do the same, and look at memory meanwhile: for commands that take a minute."""
    found: dict[str, list[tuple[Usage, Peak]]] = {command.name: [] for command in commands}
    for number, command in _turns(commands, rounds, seldom):
        with fresh() as directory:
            usage, peak = watch(command, directory)
            found[command.name].append((replace(usage, round=number), peak))
    return found


def _turns(commands: Sequence[Command], rounds: int, seldom: Collection[str]) -> Iterator[tuple[int, Command]]:
    """Yield A B C, C B A, A B C, …, each with the number of its round.

    A slow minute of the machine then hits all alike, and so does what one leaves behind in the kernel for the next.
    """
    for number in range(rounds):
        for command in reversed(commands) if number % 2 else commands:
            if number % SELDOM and command.name in seldom:
                continue
            _say(f"round {number + 1} of {rounds}: {command.name}")
            yield number, command


def warm_up(command: Command, fresh: Fresh) -> None:
    """Run it once for nothing: the first run on a file system after a while takes up to twice as long."""
    _say(f"for nothing: {command.name}")
    with fresh() as directory:
        run(command, directory)


def survey(commands: Sequence[Command], rounds: int, fresh: Fresh) -> Survey:
    """Look at the memory of each command in `rounds` runs, at what it leaves behind, and at whether it works at all."""
    found = Survey({}, {}, {})
    for number in range(rounds):
        for command in commands:
            name = command.name
            if name in found.failed:
                continue
            _say(f"memory, round {number + 1} of {rounds}: {name}")
            with fresh() as directory:
                try:
                    peak = watch(command, directory)[1]
                except Failed as error:
                    found.failed[name] = str(error)
                else:
                    found.peaks[name] = found.peaks.get(name, Peak()) | peak
                    found.files[name] = count_files(directory)
    return found


def peaks(commands: Sequence[Command], rounds: int, fresh: Fresh) -> dict[str, Peak]:
    """Return the highest peak of each command in `rounds` runs; raises `Failed`."""
    found = survey(commands, rounds, fresh)
    for reason in found.failed.values():
        raise Failed(reason)
    return found.peaks


def count_files(directory: Path) -> int:
    """Return how many files are below a directory; one with several names counts once."""
    found: set[int] = set()
    directories: list[str | Path] = [directory]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    found.add(entry.inode())
    return len(found)


def run(command: Command, directory: Path) -> Usage:
    """Run it once, with nothing else done meanwhile, but for looking whether it is done if it says how."""
    with _started(command, directory) as (pid, started, output):
        done = _done(command, directory, pid, started)
        _, status, counted = os.wait4(pid, 0)
        usage = _usage(command, started, status, counted, output)
        return replace(usage, wall=done) if command.until else usage


def _done(command: Command, directory: Path, pid: int, started: float) -> float:
    """Wait until the command is done, if it says how; return after how many seconds."""
    while command.until and not command.until(directory):
        _check_going_on(command, directory, pid)
        time.sleep(_LOOK_SECONDS)
    return time.perf_counter() - started


def _check_going_on(command: Command, directory: Path, pid: int) -> None:
    """Raise `Failed` if a command has ended, left nobody behind, and is not done."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended and not _left(pid) and command.until and not command.until(directory):
        raise Failed(f"{command.name} ended before it was done")


def watch(command: Command, directory: Path) -> tuple[Usage, Peak]:
    """Run it once and look at its processes every few milliseconds, which takes a little of its time."""
    peak = Peak()
    with _started(command, directory) as (pid, started, output):
        while command.until and not command.until(directory):
            _check_going_on(command, directory, pid)
            peak |= _memory(*([pid] if command.counts_itself else []), *_left(pid))
            time.sleep(_SAMPLE_SECONDS)
        while True:
            if not command.until:
                peak |= _memory(pid)
            ended, status, counted = os.wait4(pid, os.WNOHANG)
            if ended:
                return _usage(command, started, status, counted, output), peak
            time.sleep(_SAMPLE_SECONDS)


# --- processes that are left behind --------------------------------------------------------------


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Become the parent of every process that a command leaves behind: then they can be counted, and waited for."""
    _others.update(_children())
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)
        _others.clear()


def _adopt(whether: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def settled(fresh: Fresh, check: Callable[[Path], object] | None = None) -> Fresh:
    """Return what yields the same directories, and in the end waits until no process is left; then `check` may look.

    Raises `Failed` if one does not end, and kills it. Within `adopting` only.
    """

    @contextlib.contextmanager
    def settling() -> Iterator[Path]:
        with fresh() as directory:
            before = set(_children())
            try:
                yield directory
            except BaseException:
                _end(before, 0)
                raise
            left = _end(before, _SETTLE_SECONDS)
            if left:
                raise Failed(f"{left} process(es) did not end within {_SETTLE_SECONDS:g} s")
            if check:
                check(directory)

    return settling


def _end(before: set[int], patience: float) -> int:
    """Wait until no child is left but those of `before`; return how many had to be killed after `patience` seconds."""
    killed = 0
    deadline = time.monotonic() + patience
    while others := set(_children()) - before:
        for pid in others:
            if time.monotonic() > deadline:
                killed += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            else:
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_LOOK_SECONDS)
    return killed


def _left(pid: int) -> list[int]:
    """Return the processes that a command has left behind, those without a parent of their own only."""
    return [child for child in _children() if child != pid]


_others: set[int] = set()
"""Children that this process had before, such as an engine that tests have started."""


def _children() -> list[int]:
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += map(int, file.read().split())
    return [pid for pid in found if pid not in _others]


# -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _started(command: Command, directory: Path) -> Iterator[tuple[int, float, BinaryIO]]:
    """Start it in a process group of its own, of which nothing is left in the end."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command.argv(directory)]
    if command.prepare:
        command.prepare(directory)
    if command.reads:
        _read(command.reads) if command.cache == WARM else evict(command.reads)
    if command.cache == DROPPED:
        Path(_DROP_CACHES).write_text("3")
    with tempfile.TemporaryFile() as output:
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **command.env}
        started = time.perf_counter()
        try:
            pid = os.posix_spawnp(words[0], words, environment, file_actions=files, setpgroup=0)
        except OSError as error:
            raise Failed(f"{command.name} cannot be started ({error.strerror}: {words[0]})") from error
        try:
            yield pid, started, output
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _usage(command: Command, started: float, status: int, counted: resource.struct_rusage, output: BinaryIO) -> Usage:
    wall = time.perf_counter() - started
    output.seek(0)
    text = output.read().decode(errors="replace")
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if code != command.ends:
        raise Failed(f"{command.name} ended with {code}: {text.strip() or 'without a word'}")
    return Usage(wall, counted.ru_utime, counted.ru_stime, counted.ru_nvcsw + counted.ru_nivcsw, text)


def can_drop_caches() -> bool:
    """Whether this user may empty the page cache."""
    return os.access(_DROP_CACHES, os.W_OK)


def _read(path: Path) -> None:
    """Bring a file, or all files of a tree, into the page cache."""
    buffer = bytearray(1 << 20)
    for name in _files(path):
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def evict(path: Path) -> None:
    """Remove a file, or all files of a tree, from the page cache; what is not written back yet, is first."""
    for name in _files(path):
        with open(name, "rb", buffering=0) as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(path: Path) -> Iterator[str | Path]:
    if not path.is_dir():
        yield path
    for directory, _, names in os.walk(path):
        for name in names:
            file = os.path.join(directory, name)
            if not os.path.islink(file):
                yield file


def _memory(*pids: int) -> Peak:
    """Return what processes and their descendants have right now."""
    pss = rss = largest = 0
    for process in (each for pid in pids for each in _family(pid)):
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
