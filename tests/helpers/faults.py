"""Faults in the file-system calls of a start: the n-th call of a function fails, or the start is killed there.

The modules that write and publish call the file system as `os.NAME`, through their global `os`. A `Faulty` object
replaces it here. The child that does the cold work inherits it; the calls of all processes of a start count together.

`sweep` needs its own interpreter with one thread: it forks a process for each start.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import itertools
import mmap
import os
import pkgutil
import shutil
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import unpackenv.archive
import unpackenv.start
from helpers.support import describe, leftovers
from unpackenv.archive import trailer
from unpackenv.errors import UnpackenvError
from unpackenv.start import bootstrap, stamp
from unpackenv.start.cold import checks
from unpackenv.start.tree import lock, reboot_check, removal, staging, writer
from unpackenv.start.unpack import preflight

MODULES = (writer, staging, removal, stamp, lock, reboot_check, preflight, checks)
_MAKES = ("ENOSPC", "EIO", "EEXIST", "EPERM")
_CHANGES = ("EIO", "EPERM")
# What each function may fail with, where it makes something, changes it, removes it, or looks.
ERRNOS = {
    "open": (*_MAKES, "EMFILE"), "mkdir": _MAKES, "symlink": _MAKES, "link": (*_MAKES, "EXDEV"),
    "rename": (*_MAKES, "ENOTEMPTY", "EXDEV"), "unlink": _CHANGES, "rmdir": (*_CHANGES, "ENOTEMPTY"),
    "write": ("ENOSPC", "EIO"), "pwrite": ("ENOSPC", "EIO"), "ftruncate": ("ENOSPC", "EIO"), "fchmod": _CHANGES,
    "chmod": _CHANGES, "utime": _CHANGES, "listdir": ("EIO", "EMFILE"), "scandir": ("EIO", "EMFILE"),
    "statvfs": ("EIO",),
}  # fmt: skip
FUNCTIONS = tuple(ERRNOS)
KILL = "SIGKILL"
# Killed, and the next start is of the version that was there before.
KILL_BACK = "SIGKILL and back"
# A disk that is broken stays so, also for those who clean up.
LASTING = "EIO lasting"
_PR_SET_CHILD_SUBREAPER = 36
OWN_MARKS = [".unpackenv.in-place"]


class Fault(NamedTuple):
    """What happens at which call: `kind` is the name of an errno, perhaps followed by "lasting", or `KILL`."""

    function: str
    number: int
    kind: str


class Faulty:
    """`os`, but for what happens at the calls of one fault; counts the calls of all functions."""

    def __init__(self, fault: Fault | None, counts: mmap.mmap) -> None:
        self._fault = fault
        self._counts = counts  # shared by the processes of a start, a byte for each function
        self._main = os.getpid()

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        return functools.partial(self._called, name, value) if name in FUNCTIONS else value

    def _called(self, name: str, function: Any, *arguments: Any, **options: Any) -> Any:
        place = FUNCTIONS.index(name)
        self._counts[place] += 1
        fault = self._fault
        if fault and fault.function == name:
            number = self._counts[place]
            if number == fault.number or (number > fault.number and fault.kind == LASTING):
                self._happen(fault.kind)
        return function(*arguments, **options)

    def _happen(self, kind: str) -> None:
        if kind in (KILL, KILL_BACK):
            os.kill(self._main, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, kind.split()[0])
        raise OSError(code, os.strerror(code))


class Packed(NamedTuple):
    """An archive, and the tree that it holds."""

    archive: str
    state: dict[bytes, tuple[object, ...]]


class Start(NamedTuple):
    """How a start ended: its outcome, the name of its error with what it says, or "killed"; and its calls."""

    end: str
    counts: dict[str, int]


def boot(packed: Packed, place: Path, in_place: bool, fault: Fault | None = None) -> Start:
    """Start in a forked process, and wait until all of its processes are gone."""
    counts = mmap.mmap(-1, len(FUNCTIONS))
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        try:
            for module in MODULES:
                module.os = Faulty(fault, counts)  # type: ignore[attr-defined]
            end = outcome({"archive": packed.archive, "target": str(place), "in_place": in_place, "workers": 1})
            os.write(writer, end.encode("utf-8", "backslashreplace"))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        said = file.read()
    reap()
    return Start(said or "killed", dict(zip(FUNCTIONS, counts[:])))


def import_all() -> None:
    """Import here, once, what each start would import in its own process."""
    for package in (unpackenv.archive, unpackenv.start):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)


def adopt_orphans() -> None:
    """Become the parent of the processes that a killed start leaves, so that their end can be waited for."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Wait for the end of all children: until then they may hold the lock."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def outcome(arguments: dict[str, object]) -> str:
    """Bootstrap and return the outcome, or the name of the error and what it says."""
    try:
        return bootstrap.bootstrap({**arguments, "log": "off"}).outcome
    except UnpackenvError as error:
        return f"{type(error).__name__}: {error}" if error.where else f"names no place: {error}"
    except BaseException:
        return f"no error of ours: {traceback.format_exc()}"


def state_of(place: Path) -> dict[bytes, tuple[object, ...]]:
    """Return what a target holds, without what is of unpackenv."""
    return {path: state for path, state in describe(place).items() if not path.startswith(b".unpackenv.")}


class Sweep:
    """Goes through all faults of a start of one kind; two versions take turns on the target where it `replaces`."""

    def __init__(self, versions: list[Packed], place: Path, *, replaces: bool, in_place: bool) -> None:
        self.versions = versions
        self.place = place
        self.replaces = replaces
        self.in_place = in_place
        self.keeps_directory = place.exists()
        self.kinds: dict[str, int] = {}  # how many starts ended how
        self.problems: list[str] = []
        self.faults = 0

    def run(self, killed: bool) -> None:
        """Let a fault happen at every call that a start makes, each in turn, and one that lasts; or have it killed."""
        new, old = self.versions
        self._prepare(old)
        counts = boot(new, self.place, self.in_place).counts
        kills = itertools.cycle([KILL, KILL_BACK])
        turns: Iterator[tuple[Packed, Packed]] = itertools.cycle([(old, new), (new, old)])
        for function, count in counts.items():
            errnos = itertools.cycle(ERRNOS[function])
            for number in range(1, count + 1):
                for kind in (next(kills),) if killed else (next(errnos), LASTING):
                    new, old = next(turns) if self.replaces else (self.versions[0], self.versions[1])
                    self._prepare(old)
                    self._try(Fault(function, number, kind), new, old)

    def _prepare(self, old: Packed) -> None:
        if self.replaces:
            assert boot(old, self.place, self.in_place).end in ("unpacked", "reused")
            return
        for path in [*self.place.parent.iterdir(), *(self.place.iterdir() if self.place.exists() else ())]:
            if path == self.place and self.keeps_directory:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()

    def _try(self, fault: Fault, new: Packed, old: Packed) -> None:
        self.faults += 1
        end = boot(new, self.place, self.in_place, fault).end
        problems = list(self._wrong_end(end, fault, new, old))
        wanted = old if fault.kind == KILL_BACK else new
        again = boot(wanted, self.place, self.in_place).end
        problems += [f"next start: {problem}" for problem in self._wrong_next(again, wanted)]
        name = end.partition(":")[0]
        self.kinds[name] = self.kinds.get(name, 0) + 1
        if problems:
            self.problems.append(f"{fault}: {end}: {'; '.join(problems)}")
            if self.replaces:  # from the beginning
                self.replaces = False
                self._prepare(old)
                self.replaces = True

    def _wrong_end(self, end: str, fault: Fault, new: Packed, old: Packed) -> Iterator[str]:
        """Yield what is wrong with the end of a start with a fault, and with what it left."""
        if end.startswith(("no error of ours", "names no place")):
            yield "unclear error"
        if end == "killed" and fault.kind not in (KILL, KILL_BACK):
            yield "killed"
        found = stamp.read(str(self.place))
        if found is None:
            if end in ("unpacked", "reused", "waited"):
                yield "nothing there"
            return
        facts, fd = found
        os.close(fd)
        claimed = next(each for each in (new, old) if trailer.identify(each.archive).key == facts["key"][0])
        if end in ("unpacked", "reused", "waited") and claimed is not new:
            yield "calls the old tree the new one"
        if not self._holds(claimed):
            yield "stamp of a tree that is not there"

    def _wrong_next(self, end: str, new: Packed) -> Iterator[str]:
        if end not in ("unpacked", "reused"):
            yield end
        elif not self._holds(new):
            yield f"{end}, and the tree is not whole"
        known = {path for version in self.versions for path in version.state}
        if extra := state_of(self.place).keys() - known:
            yield f"{end}, and there is {sorted(extra)}"
        left = [name for name in leftovers(self.place) if not (self.in_place and name in OWN_MARKS)]
        if left:
            yield f"{end}, and left {left}"

    def _holds(self, packed: Packed) -> bool:
        found = state_of(self.place)
        if self.in_place:
            found = {path: state for path, state in found.items() if path in packed.state}
        return found == packed.state


def sweep(
    archives: list[str], trees: list[str], place: str, *, replaces: bool, in_place: bool, killed: bool
) -> dict[str, object]:
    """Go through all faults and return the counts and the problems found."""
    import_all()
    adopt_orphans()
    versions = [Packed(archive, describe(Path(tree))) for archive, tree in zip(archives, trees)]
    one = Sweep(versions, Path(place), replaces=replaces, in_place=in_place)
    one.run(killed)
    return {"faults": one.faults, "ends": one.kinds, "problems": one.problems}
