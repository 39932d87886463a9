"""The board: memory that all processes of one fill share, with what has been filled, and who is at which frame.

Claims are record locks (`F_SETLK`, fcntl(2)): they end with their process, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import struct

from unpackenv.start.fill import leases
from unpackenv.unpatched import os

BEGINNING, END = 1, 2
"""Pieces of spanning files that are written in a frame: of the one that begins there, and of the one that ends there
or reaches beyond."""
WRITTEN, FREE = 1, 2
"""States of a file: its content is whole; and its lease has been given up. 0: neither."""
LONGEST = 10
"""How many of the opens that waited longest are told."""
_TOO_LATE, _LET_IN = 0.6, 0.9
"""Which part of the kernel's time for a lease may pass before the applications are ended; and before somebody may have
been let in."""
_REASON = 2048
_STATISTICS = struct.Struct("<Qd")
_WAIT = struct.Struct("<Id")
_HEADER = 4096
_PER_SHARD = 256


class Board:
    """What the processes of one fill know together. Times are in seconds since boot (`leases.now`).

    `files` are the states of the files by row, and `wanted` whether somebody waits for one. `frames` is whether a frame
    is filled, `urgent` whether somebody waits for a file in it, `pieces` which pieces of spanning files are written
    there, and `expected` whether a filler is about to fill it: the number of its shard, from 1. `freed` is when a file
    was given free that somebody had waited for. By shard: `quiet` is until when it is known that nobody waited, but for
    those whose wait was known then; `alive` is when its holder last said that it is; `at_frame` is the frame of its
    filler.
    """

    def __init__(self, journal: int, files: int, frames: int, shards: int) -> None:
        """The states of the files are in the open file `journal`, which outlives the processes."""
        sizes = (_HEADER, *[8 * shards] * 3, 8 * files, _PER_SHARD * shards, files, *[frames] * 4)
        self._fd = os.memfd_create("unpackenv-fill")
        os.ftruncate(self._fd, sum(sizes))
        memory = memoryview(mmap.mmap(self._fd, sum(sizes)))
        parts, at = [], 0
        for size in sizes:
            parts.append(memory[at : at + size])
            at += size
        self._header, quiet, alive, at_frame, freed, self._statistics = parts[:6]
        self.wanted, self.frames, self.urgent, self.pieces, self.expected = parts[6:]
        self.files = memoryview(mmap.mmap(journal, files) if files else b"")
        self.quiet, self.alive, self.freed = quiet.cast("d"), alive.cast("d"), freed.cast("d")
        self.at_frame = at_frame.cast("q")

    # --- claims ---

    def claim(self, number: int) -> bool:
        """Claim a number, such as that of a frame, for this process; return whether no other one has it."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def release(self, number: int) -> None:
        """Give up a claim."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)

    @property
    def end(self) -> int:
        """The number that a process claims to end the fill."""
        return 2 * len(self.frames)

    def spanning(self, frame: int) -> int:
        """Return the number to claim for giving free a file that begins in `frame` and spans others."""
        return len(self.frames) + frame

    # --- how it begins and ends ---

    def expect_readers(self) -> None:
        """Begin to count for how long anybody may have waited."""
        for shard in range(len(self.quiet)):
            self.quiet[shard] = self.alive[shard] = leases.now()
        self.is_expecting = True

    @property
    def is_expecting(self) -> bool:
        """Whether somebody may wait."""
        return bool(self._header[-3])

    @is_expecting.setter
    def is_expecting(self, value: bool) -> None:
        self._header[-3] = value

    @property
    def is_running(self) -> bool:
        """Whether the application that made the tree uses it."""
        return bool(self._header[-1])

    @is_running.setter
    def is_running(self, value: bool) -> None:
        self._header[-1] = value

    @property
    def is_over(self) -> bool:
        """Whether nobody uses the tree any more, so that it is not filled."""
        return bool(self._header[-2])

    @is_over.setter
    def is_over(self, value: bool) -> None:
        self._header[-2] = value

    @property
    def is_full(self) -> bool:
        """Whether every file is free."""
        return bytes(self.files).count(FREE) == len(self.files)

    @property
    def failure(self) -> str:
        """Why files cannot be filled; "" if they can."""
        size = int.from_bytes(self._header[:4], "little")
        return bytes(self._header[4 : 4 + size]).decode("utf-8", "replace")

    def fail(self, reason: str) -> None:
        """Tell all processes that the fill has failed, the first reason only."""
        if not self.failure:
            text = reason.encode("utf-8", "backslashreplace")[:_REASON]
            self._header[4 : 4 + len(text)] = text
            self._header[:4] = len(text).to_bytes(4, "little")

    # --- those who waited ---

    def add_wait(self, shard: int, row: int, seconds: float) -> None:
        """Count an open of a file that waited; only the guardian of a shard does."""
        part = self._statistics[shard * _PER_SHARD : (shard + 1) * _PER_SHARD]
        count, total = _STATISTICS.unpack_from(part)
        _STATISTICS.pack_into(part, 0, count + 1, total + seconds)
        longest = sorted([*self._longest(part), (seconds, row)], reverse=True)[:LONGEST]
        for place, (each, which) in enumerate(longest):
            _WAIT.pack_into(part, _STATISTICS.size + place * _WAIT.size, which, each)

    def waits(self) -> tuple[int, float, list[tuple[float, int]]]:
        """Return how many opens waited, how many seconds together, and the longest: seconds and row of the file."""
        count, total, longest = 0, 0.0, []
        for shard in range(len(self.quiet)):
            part = self._statistics[shard * _PER_SHARD : (shard + 1) * _PER_SHARD]
            more, seconds = _STATISTICS.unpack_from(part)
            count, total = count + more, total + seconds
            longest += self._longest(part)
        return count, total, sorted(longest, reverse=True)[:LONGEST]

    def _longest(self, part: memoryview) -> list[tuple[float, int]]:
        found = [_WAIT.unpack_from(part, _STATISTICS.size + place * _WAIT.size) for place in range(LONGEST)]
        return [(seconds, row) for row, seconds in found if seconds > 0]

    # --- the clock ---

    def overdue(self, shard: int, archive: str) -> str:
        """Return why a shard cannot be waited for any longer: reads of the archive take too long; "" if it can.

        Soon, or by now, the kernel lets those in by force who wait.
        """
        waited = leases.now() - self.quiet[shard]
        if waited >= leases.break_time() * _LET_IN:
            return _let_in(waited)
        if waited >= leases.break_time() * _TOO_LATE:
            return f"somebody waits for a file, and {archive} could not be read for {waited:.0f} s"
        return ""

    def check_in_time(self) -> None:
        """Raise `TimeoutError` if somebody may have waited for so long that the kernel let them in by force."""
        waited = leases.now() - min(self.quiet)
        if waited >= leases.break_time() * _LET_IN:
            raise TimeoutError(_let_in(waited))


def _let_in(waited: float) -> str:
    return f"somebody may have waited for a file for {waited:.0f} s, and was let in by force"
