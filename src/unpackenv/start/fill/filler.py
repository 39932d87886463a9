"""The filler: writes frame after frame while nobody waits, at the lowest priority."""

from __future__ import annotations

from unpackenv.start.fill import leases
from unpackenv.start.fill.offspring import Offspring, reason
from unpackenv.start.machine import child
from unpackenv.start.tree.writer import member_error
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from unpackenv.start.fill.shard import Shard

PATIENCE = 0.01
"""Seconds in which a filler that somebody waits for must have used the CPU; else the holder takes its place."""


class Filler(Offspring):
    """Fills frames, at the lowest priority."""

    def __init__(self, holder: Shard, frame: int) -> None:
        self._first = frame
        self._parent = 0
        holder.board.at_frame[holder.shard] = frame
        self._used = self._looked = 0.0
        super().__init__(holder)

    def _body(self, holder: Shard) -> None:
        try:
            self._fill(holder)
        except BaseException as error:
            holder.board.fail(reason(error))

    def _fill(self, holder: Shard) -> None:
        child.set_name("unpackenv-fill")
        holder.family.observer.begin_worker(f"filler {holder.shard}")
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        holder.close_guardian()
        self._parent = os.getppid()
        # Somebody may execute a program of another frame meanwhile; then nobody may have it open.
        own = {*holder.plan.rows[self._first], *holder.plan.pieces(self._first)}
        for row in holder.plan.programs:
            if row not in own:
                holder.filling.close(row)
        try:
            for frame in self._frames(holder):
                if not holder.board.claim(frame):
                    continue
                if holder.board.frames[frame]:
                    holder.board.release(frame)
                elif not self._fill_frame(holder, frame):
                    return
                holder.family.wake(holder.shard)
        except OSError as error:
            raise member_error(error, holder.family.target) from error

    def _frames(self, holder: Shard) -> Iterator[int]:
        """Yield the frame of this filler, and then those without programs, one after the other."""
        yield self._first
        with_programs = {frame for row in holder.plan.programs for frame in holder.frames_of(row)}
        frames = [frame for frame in holder.frames_to_fill() if frame not in with_programs]
        archive = holder.filling.archive
        for number, frame in enumerate(frames):
            if archive.blob.ahead:
                archive.expect(
                    next_one for next_one in frames[number : number + 2] if not holder.board.frames[next_one]
                )
            holder.board.at_frame[holder.shard] = frame
            yield frame

    def _fill_frame(self, holder: Shard, frame: int) -> bool:
        """Fill a claimed frame; return whether to go on."""
        filling, board, rows = holder.filling, holder.board, holder.plan.rows[frame]
        filling.decode(frame)
        for row in rows:
            if os.getppid() != self._parent:  # the holder has ended: the next one has fillers of its own
                return False
            if board.urgent[frame]:
                board.urgent[frame] = 0
                for wanted in rows:
                    if board.wanted[wanted]:
                        self._write(holder, wanted)
            self._write(holder, row)
        filling.write_pieces()
        filling.end_frame(frame)
        return True

    def _write(self, holder: Shard, row: int) -> None:
        holder.filling.write(row)
        if holder.plan.is_program(row):
            holder.filling.close(row)  # the holder gives it free
            holder.family.wake(holder.shard)

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] == b"T"
        except (OSError, IndexError):
            return False

    def is_late(self) -> bool:
        """Whether this filler has hardly used the CPU since the last call: other processes have it."""
        now, used = leases.now(), _cpu_time(self.pid)
        elapsed = now - self._looked
        if elapsed < PATIENCE:
            return False
        is_first, progress = not self._looked, used - self._used
        self._looked, self._used = now, used
        return not is_first and progress < elapsed / 4


def _cpu_time(pid: int) -> float:
    """Return the seconds that a process has run; 0 if the kernel does not count them."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
