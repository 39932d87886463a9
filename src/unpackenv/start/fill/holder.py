"""The processes of one shard: the holder of its leases, a guardian that stands in for it, and fillers.

The *holder* learns when somebody waits for a file, and sees to it that this file is filled next. While nobody waits it
has *fillers* do the work, one after the other, at the lowest priority. The *guardian* has the same descriptors, and so
keeps the leases if the holder is killed: then it becomes the holder. A filler that is killed is replaced. None of them
relies on another one to end in order.
"""

from __future__ import annotations

import select
from array import array

from unpackenv.errors import UnpackFailed
from unpackenv.start.fill import leases
from unpackenv.start.fill.board import FREE, WRITTEN
from unpackenv.start.fill.filler import PATIENCE, Filler
from unpackenv.start.fill.guardian import Guardian
from unpackenv.start.fill.names import NONE
from unpackenv.start.fill.offspring import reason
from unpackenv.start.fill.shard import Shard
from unpackenv.start.fill.watcher import SHARD_KILLED
from unpackenv.start.machine import child, workers
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.fill.family import Family

_ATTEMPTS = 3
_KEEP = 0.2
"""Seconds for which the holder keeps a decoded frame, of which more files may be wanted."""
_LOOK = 1.0
"""Seconds after which a holder looks whether anybody still uses the tree."""
_LAST_STEP = 300.0
"""Seconds that a filler gets to end by itself when all is filled: it adds to the trace then, if it gets a CPU."""
_SIGNS = 10
"""How often in the kernel's time for a lease the holder says that it is alive; its guardian waits for four signs."""


class Holder(Shard):
    """The holder of the leases of one shard; `run` returns when every file of the tree is filled, or none will be."""

    def __init__(self, family: Family, shard: int) -> None:
        super().__init__(family, shard)
        self._order = self.plan.frames_of(shard)
        self._row_of = array("i")  # by descriptor
        # Of each file that somebody waits for: until when it is known that nobody did, and when it was noticed.
        self._waiting: dict[int, tuple[float, float]] = {}
        self._drained = 0.0
        self._filler: Filler | None = None
        self._guardian: Guardian | None = None
        self._failures: dict[int, int] = {}
        self._swept = bytearray(len(self.board.frames))
        self._breaks: leases.Breaks | None = None
        self._interval = min(5.0, leases.break_time() / _SIGNS)

    def prepare(self) -> None:
        """Start the guardian: there has to be one when the tree is published. Raises `OSError`."""
        self._keep_guardian()

    def give_up(self) -> None:
        """End the guardian: the tree is not published."""
        if self._guardian:
            self._guardian.kill()
            self._guardian = None

    def run(self) -> None:
        """Fill, as described above; a failure is put on the board."""
        child.set_name("unpackenv-hold")
        self.family.observer.begin_worker(f"holder {self.shard}")
        try:
            self._run()
        except BaseException as error:
            self.board.fail(reason(error))
        is_full = self.board.is_full
        if self._filler and not is_full:
            self._filler.kill()
        if self.board.failure:
            self.family.fail()
        elif not self.board.is_over and self.board.claim(self.board.end):
            self.family.end()
        if self._filler and is_full:
            if not self._filler.is_stopped():
                self._filler.has_ended(_LAST_STEP)
            self._filler.kill()
        if self._guardian:
            self._guardian.kill()
        if self.shard == 0 and self.board.is_full:
            self.family.sync()

    def _run(self) -> None:
        board = self.board
        self._breaks = breaks = leases.Breaks()
        self.family.open_stamp()
        fds = self.filling.fds
        self._row_of = array("i", [NONE]) * (max(fds, default=0) + 1)
        for row, fd in enumerate(fds):
            if fd != NONE:
                self._row_of[fd] = row
        self._look_for_waiting()
        while not (self._is_full() or board.failure or self._is_over()):
            board.alive[self.shard] = leases.now()
            self._keep_guardian()
            frame = self._claim_urgent_frame()
            if frame >= 0:
                self._serve(frame, breaks)
            else:
                if not self._filler:
                    self._start_filler()
                self._wait(breaks)
                self._look_after_filler()
            self._sweep_filled()
            self._drain(breaks)

    def _is_over(self) -> bool:
        """Whether nobody uses a tree any more that is filled on demand."""
        if not self.family.is_all_wanted(self.shard) and self.shard == 0 and not self.board.is_over:
            self.board.is_over = self.family.is_unused()
            if self.board.is_over:
                self.family.wake_others(0)
        return self.board.is_over

    def _is_full(self) -> bool:
        for row in self.plan.spanning:  # the process with the last piece may have been killed before it could do this
            self.filling.finish_spanning(row)
            self._release(row)
        return self.board.is_full

    def close(self) -> None:
        """In the guardian: close what the holder had."""
        if self._breaks:
            self._breaks.close()
        if self._filler:
            os.close(self._filler.pidfd)

    # --- who waits ---

    def take_over(self) -> None:
        """Become the holder in place of one that has ended."""
        for row in self._leased():
            leases.take_over(self.filling.fds[row])

    def _leased(self) -> list[int]:
        """Return the rows of the files of whose leases this process gets the signals: spanning ones are the first's."""
        fds, files, spanning = self.filling.fds, self.board.files, self.plan.spanning
        return [
            row
            for row, fd in enumerate(fds)
            if fd != NONE and files[row] != FREE and (self.shard == 0 or row not in spanning)
        ]

    def _look_for_waiting(self) -> None:
        """Look at every file: for who waited before this process got the signals, or when there were too many."""
        now, known_until = leases.now(), self.board.quiet[self.shard]
        for row in self._leased():
            if leases.is_wanted(self.filling.fds[row]):
                self._note(row, known_until)
        self._update(now)

    def _drain(self, breaks: leases.Breaks) -> None:
        """Note who has begun to wait, and whose wait has ended."""
        now, known_until = leases.now(), self._drained
        wanted, overflow = breaks.read()
        for fd in wanted:
            row = self._row_of[fd]
            if row != NONE and self.board.files[row] != FREE:
                self._note(row, known_until)
        if overflow:
            self._look_for_waiting()
        self._update(now)

    def _note(self, row: int, known_until: float) -> None:
        self._waiting.setdefault(row, (known_until, leases.now()))
        if not self.board.wanted[row]:
            self.board.wanted[row] = 1
            self.family.record(row)
        for frame in self.frames_of(row):
            self.board.urgent[frame] = 1
        if row in self.plan.spanning:
            self.family.wake_others(self.shard)

    def _update(self, now: float) -> None:
        for row in [row for row in self._waiting if self.board.files[row] == FREE]:
            _, noticed = self._waiting.pop(row)
            self.family.end_wait(self.shard, row, max(0.0, self.board.freed[row] - noticed))
        self._drained = now
        self.board.quiet[self.shard] = min((known for known, _ in self._waiting.values()), default=now)

    # --- somebody waits ---

    def _claim_urgent_frame(self) -> int:
        """Return a frame that somebody waits for, claimed for this process; -1 if there is none to be had."""
        board = self.board
        if 1 not in bytes(board.urgent):
            return NONE
        for frame in self._order:
            if board.urgent[frame] and not (board.frames[frame] or board.expected[frame]) and board.claim(frame):
                if not board.frames[frame]:
                    return frame
                board.release(frame)
        return NONE

    def _serve(self, frame: int, breaks: leases.Breaks) -> None:
        """Fill those files of a claimed frame that somebody waits for, at once; a filler may do the rest."""
        filling, board = self.filling, self.board
        filling.decode(frame)
        board.urgent[frame] = 0
        while rows := [row for row in self._waiting if row in self._own(frame) and board.files[row] != FREE]:
            for row in rows:
                filling.write(row)
                self._release(row)
            self._drain(breaks)
        filling.write_pieces(only_wanted=True)
        filling.end_frame(frame)
        if board.frames[frame] or frame not in self.plan.unasked:
            filling.forget()  # else a filler goes on with it
        self._sweep(frame)
        self.family.wake_others(self.shard)

    def _own(self, frame: int) -> range:
        rows = self.plan.rows[frame]
        return range(rows[0], rows[-1] + 1) if rows else range(0)

    def _release(self, row: int) -> None:
        """Close a file that is free, or a written program, which is free when nobody has it open any more."""
        state = self.board.files[row]
        if self.filling.fds[row] == NONE or not (state == FREE or (state == WRITTEN and self.plan.is_program(row))):
            return
        if state == WRITTEN:
            self.filling.check_in_time(row)
        if self._guardian:
            self._guardian.close_files(self.plan.frame_of(row))
        self.filling.close(row)
        self.board.files[row] = FREE

    def _sweep(self, frame: int) -> None:
        """Close what is free in a frame."""
        rows = [*self.plan.rows[frame], *self.plan.pieces(frame)]
        for row in rows:
            if self.board.files[row] == FREE:
                self.filling.close(row)
        if self._guardian:
            self._guardian.close_files(frame)
        for row in rows:
            self._release(row)

    # --- fillers ---

    def frames_to_fill(self) -> list[int]:
        """Return the frames that are to be filled unasked and are not, in order; the decoded one first."""
        frames = [frame for frame in self._order if frame in self.plan.unasked and not self.board.frames[frame]]
        return sorted(frames, key=lambda frame: (frame != self.filling.decoded, not self.board.urgent[frame]))

    def _start_filler(self) -> None:
        """Start a filler, if anything is to be filled unasked that no other one is at."""
        for frame in self.frames_to_fill():
            if self.board.claim(frame):
                self.board.release(frame)
                self._filler = Filler(self, frame)
                self.filling.forget()
                return

    def close_guardian(self) -> None:
        """In a filler: close what would keep the guardian from seeing that the holder has ended."""
        if self._guardian:
            self._guardian.close()

    def _look_after_filler(self) -> None:
        filler = self._filler
        if filler is None:
            return
        frame = self.board.at_frame[self.shard]
        if filler.has_ended():
            self._end_filler(filler, frame)
        elif filler.is_stopped() or (self._is_filler_awaited() and filler.is_late()):
            filler.kill()
            self._filler = None
            self._forget_filler()
            self._sweep(frame)

    def _sweep_filled(self) -> None:
        """Close what is free in every frame that is filled by now, by whichever process."""
        for frame in self._order:
            if self.board.frames[frame] and not self._swept[frame]:
                self._swept[frame] = 1
                self._sweep(frame)
                self.family.wake_others(self.shard)

    def _end_filler(self, filler: Filler, frame: int) -> None:
        self._filler = None
        signal = filler.reap()
        self._forget_filler()
        self._sweep(frame)
        if signal and not self.board.frames[frame]:
            self._failures[frame] = self._failures.get(frame, 0) + 1
            if self._failures[frame] >= _ATTEMPTS:
                error = workers.error_of(b"", signal)
                self.board.fail(str(error) if error else "a filler ended")

    def _forget_filler(self) -> None:
        """Note that no filler of this shard fills anything, or is about to; what it was asked for is urgent again."""
        board = self.board
        for frame in self._order:
            if board.expected[frame] == self.shard + 1:
                board.expected[frame] = 0
            if not board.frames[frame] and self._is_awaited(frame):
                board.urgent[frame] = 1

    def _is_filler_awaited(self) -> bool:
        """Whether somebody waits for what the filler does, or is about to do."""
        own = self.shard + 1
        frames = [self.board.at_frame[self.shard], *(each for each in self._order if self.board.expected[each] == own)]
        return any(map(self._is_awaited, frames))

    def _is_awaited(self, frame: int) -> bool:
        """Whether somebody waits for a file in a frame. Only the first shard is told who waits for a spanning file."""
        board = self.board
        rows = {row for row in self._waiting if frame in self.frames_of(row)}
        rows.update(row for row in self.plan.pieces(frame) if board.wanted[row])
        return any(board.files[row] != FREE for row in rows)

    # --- the guardian ---

    def _keep_guardian(self) -> None:
        """See that there is a guardian."""
        if self._guardian and self._guardian.has_ended():
            self._guardian.reap()
            self._guardian = None
        if self._guardian is None:
            self._guardian = Guardian(self, self._interval)

    # --- what happens ---

    def _wait(self, breaks: leases.Breaks) -> None:
        """Wait until something happens, or it is time to say that this process is alive."""
        filler, timeout = self._filler, self._interval
        poll = select.poll()
        for fd in (breaks.fd, self.family.wakes[self.shard][0], *self.family.pulses_of_others(self.shard)):
            poll.register(fd, select.POLLIN)
        for each in (filler, self._guardian):
            if each:
                poll.register(each.pidfd, select.POLLIN)
        if filler and self._is_filler_awaited():
            timeout = PATIENCE
        elif self.filling.decoded >= 0:
            timeout = _KEEP
        elif self.family.is_on_demand:
            timeout = min(_LOOK, timeout)
            if self.shard == 0 and not self.family.watcher.has_ended():
                poll.register(self.family.watcher.pidfd, select.POLLIN)
        events = dict(poll.poll(timeout * 1e3))
        self.family.clear_wake(self.shard)
        if not (events or filler):
            self.filling.forget()
        is_done = self.board.is_full or self.board.is_over
        if not events.keys().isdisjoint(self.family.pulses_of_others(self.shard)) and not is_done:
            raise UnpackFailed(SHARD_KILLED, where=self.family.target)
