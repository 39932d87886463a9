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


_AHEAD = 2
"""How many frames of a remote archive are fetched ahead."""


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
        frames = iter([frame for frame in holder.frames_to_fill() if frame not in with_programs])
        board, archive = holder.board, holder.filling.archive
        expected: list[int] = []
        while True:
            # While somebody waits, it may be killed, and what it has fetched is lost.
            ahead = 0 if 1 in bytes(board.urgent) else min(archive.blob.ahead, _AHEAD)
            while len(expected) <= ahead and (frame := next(frames, -1)) >= 0:
                # Of a remote archive, the holder has fetched what somebody waits for.
                is_served = board.urgent[frame] and not archive.blob.is_local
                if not (board.frames[frame] or board.expected[frame] or is_served):
                    board.expected[frame] = holder.shard + 1
                    expected.append(frame)
            if not expected:
                return
            if archive.blob.ahead:
                archive.expect(expected)
            frame = next((each for each in expected if board.urgent[each]), expected[0])
            board.at_frame[holder.shard] = frame
            yield frame
            expected.remove(frame)
            board.expected[frame] = 0

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
        """Whether this filler could run, and has hardly used the CPU since the last call: other processes have it."""
        now, used = leases.now(), _cpu_time(self.pid)
        elapsed = now - self._looked
        if elapsed < PATIENCE:
            return False
        is_first, progress = not self._looked, used - self._used
        self._looked, self._used = now, used
        return not is_first and progress < elapsed / 4 and self._can_run()

    def _can_run(self) -> bool:
        """Whether any of its threads waits for the CPU, and not for a server or a disk."""
        return any(stat.rpartition(b")")[2].split()[0] == b"R" for stat in _of_threads(self.pid, "stat"))


def _of_threads(pid: int, name: str) -> Iterator[bytes]:
    """Yield the content of a file of /proc for each thread of a process."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/{name}", "rb") as file:
                yield file.read()
    except OSError:  # it has ended
        return


def _cpu_time(pid: int) -> float:
    """Return the seconds that a process has run; 0 if the kernel does not count them."""
    try:
        return sum(int(counted.split()[0]) for counted in _of_threads(pid, "schedstat")) / 1e9
    except (ValueError, IndexError):
        return 0.0
