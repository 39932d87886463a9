"""Choose where to measure: a file system that makes files as fast as those of containers.

ext4 does not reuse inodes that were freed in the last minutes, and searches past them, one by one: where tens of
thousands of files have just been removed, as by an earlier measurement, making a file takes ten times as long as
usual. Then memory is a better place, if there is room.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass

import psutil

from unpackenv.errors import NoSpace
from unpackenv.pack.temporary import Directory
from unpackenv.start.machine import limits

_MEMORY = "/dev/shm"
_FILES = 1000
_SPARE = 1 << 30  # bytes of memory that stay free for other processes
SLOW = 100e-6
"""Seconds to make a small file; a file system that takes longer is slow. ext4 takes 25 µs, a tmpfs 10."""


@dataclass(frozen=True)
class ScratchDirectory:
    """A directory to measure in, and the seconds that making a small file takes there."""

    directory: str
    seconds_a_file: float

    @property
    def is_slow(self) -> bool:
        """Whether times measured there say little about containers."""
        return self.seconds_a_file > SLOW


def choose(size: int) -> ScratchDirectory:
    """Return where `size` bytes can be written: TMPDIR, else /tmp or the like, or memory if that is slow or full.

    Raises `NoSpace`.
    """
    directory = tempfile.gettempdir()
    has_choice = "TMPDIR" not in os.environ and _fits_memory(size)
    if has_choice and _free(directory) < size:
        return _tried(_MEMORY)
    check_room(directory, size)
    place = _tried(directory)
    return _tried(_MEMORY) if has_choice and place.is_slow else place


def check_room(directory: str, size: int) -> None:
    """Raise `NoSpace` unless `size` bytes fit below a directory."""
    free = _free(directory)
    if free < size:
        raise NoSpace(
            f"has {free / 1e6:.0f} MB free, but measuring takes {size / 1e6:.0f} MB",
            where=directory,
            hint="Name another directory with TMPDIR",
            need=size,
            have=free,
        )


def _tried(directory: str) -> ScratchDirectory:
    with Directory() as temporary:
        name = temporary.make(directory)
        began = time.perf_counter()
        for number in range(_FILES):
            with open(os.path.join(name, str(number)), "wb") as file:
                file.write(bytes(1024))
        return ScratchDirectory(directory, (time.perf_counter() - began) / _FILES)


def _fits_memory(size: int) -> bool:
    left = min(psutil.virtual_memory().available, limits.memory_left()) - _SPARE
    return os.access(_MEMORY, os.W_OK) and min(left, _free(_MEMORY)) >= size


def _free(directory: str) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
