"""Check archive and machine before the first byte is written."""

from __future__ import annotations

from unpackenv.archive import interpreter
from unpackenv.errors import (
    InterpreterMismatch,
    MemoryTooSmall,
    NoSpace,
    TargetInMemory,
    TargetNoExec,
)
from unpackenv.start.machine import limits, mounts
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 4096
# What the kernel keeps in memory of a file on a tmpfs besides its pages: inode, directory entry, name.
_INODE = 1024


def check_interpreter(facts: dict[str, list[str]], where: str, running: dict[str, str] | None) -> None:
    """Raise `InterpreterMismatch` unless the environment was packed for `running`, by default this interpreter."""
    mismatch = interpreter.mismatch(facts, running)
    if mismatch:
        fact, packed, running_fact = mismatch
        raise InterpreterMismatch(
            f"was packed for {fact} {packed}, and this interpreter has {running_fact}",
            where=where,
            hint="Run it with the interpreter and on the base image that it was packed for, or pack it for these",
            fact=fact,
            packed=packed,
            found=running_fact,
        )


class FreeSpace:
    """The space that was free on the file system of a directory when this was created."""

    def __init__(self, directory: str, memory_left: int, freed_first: tuple[int, int] = (0, 0)) -> None:
        """`memory_left` is what the memory limit leaves, in bytes: on a tmpfs, files are memory.

        `freed_first` is how many bytes and files will be removed before.
        """
        size, files = freed_first
        status = os.statvfs(directory)
        self.directory = directory
        self.noexec = bool(status.f_flag & os.ST_NOEXEC)
        # A ramfs has no limit of its own, and reports 0 for everything.
        self._bytes = status.f_bavail * status.f_frsize + size if status.f_blocks else limits.UNLIMITED
        self._inodes = status.f_favail + files if status.f_files else limits.UNLIMITED
        mount = mounts.holding(os.path.realpath(directory))
        in_memory = mount is not None and mount.kind in ("tmpfs", "ramfs")
        self._memory = memory_left + size if in_memory else limits.UNLIMITED

    def check(self, size: int, members: int, memory: int = 0, exactly: Callable[[], int] | None = None) -> None:
        """Raise `NoSpace` or `TargetInMemory` unless a tree of `size` bytes fits.

        `memory` is what unpacking it takes in addition, in bytes. If space is tight, `exactly` is called for the bytes
        that the files take in whole blocks.
        """
        # Half a block is lost at the end of each file, on average, and a directory has one.
        need = size + members * _BLOCK // 2
        if exactly and min(self._bytes, self._memory - memory) < size + members * (_BLOCK + _INODE):
            need = max(need, exactly() + members * (_INODE if self._memory < limits.UNLIMITED else 0))
        if self._bytes < need:
            raise NoSpace(
                f"needs {need / 1e6:.1f} MB and has {self._bytes / 1e6:.1f} MB free",
                where=self.directory,
                hint="Free space there, or name another target with UNPACKENV_TARGET",
                need=need,
                have=self._bytes,
            )
        if self._inodes < members:
            raise NoSpace(
                f"needs {members} inodes and has {self._inodes} free",
                where=self.directory,
                hint="Free inodes there, or name another target with UNPACKENV_TARGET",
                need=members,
                have=self._inodes,
            )
        if self._memory < need + memory:
            raise TargetInMemory(
                f"is on a tmpfs, whose files count as memory: about {(need + memory) / 1e6:.0f} MB are needed, "
                f"and the memory limit leaves {self._memory / 1e6:.0f} MB",
                where=self.directory,
                hint="Raise the container's memory limit, or name a target on disk with UNPACKENV_TARGET",
                need=need + memory,
                have=self._memory,
            )


def on_disk(size: int) -> int:
    """Return how many bytes a file of `size` bytes takes, in whole blocks."""
    return -(-size // _BLOCK) * _BLOCK


def check_memory(needed: int, left: int, where: str) -> None:
    """Raise `MemoryTooSmall` unless the memory limit leaves the bytes that a start is estimated to need."""
    if left < needed:
        raise MemoryTooSmall(
            f"unpacking needs about {needed / 1e6:.0f} MB of memory, and the memory limit leaves {left / 1e6:.0f} MB",
            where=where,
            hint="Raise the container's memory limit, pack with a smaller --frame-size, or say UNPACKENV_FORCE=yes",
            need=needed,
            have=left,
        )


def check_exec(directory: str) -> None:
    """Raise `TargetNoExec` if shared objects below `directory` cannot be loaded."""
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        raise TargetNoExec(
            f"{how_mounted(directory)} noexec, and the archive has shared objects, which could not be loaded from "
            "there",
            where=directory,
            hint="Mount it with exec, name another target with UNPACKENV_TARGET, or say UNPACKENV_FORCE=yes",
        )


def how_mounted(directory: str) -> str:
    """Return the beginning of a sentence that says how the file system of a directory is mounted."""
    mount = mounts.holding(directory)
    return f"the {mount.kind} at {mount.point} is mounted" if mount else "is mounted"
