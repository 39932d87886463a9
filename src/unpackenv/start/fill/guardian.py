"""The guardian: has the descriptors of a holder, too, and becomes the holder if that one ends, or hangs."""

from __future__ import annotations

import _signal
import select

from unpackenv.start.fill import leases
from unpackenv.start.fill.board import FREE, WRITTEN
from unpackenv.start.fill.offspring import Offspring, reason
from unpackenv.start.machine import child
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.fill.shard import Shard

_ANSWER = 1.0
"""Seconds in which the guardian must answer."""
_NUMBER = 4


class Guardian(Offspring):
    """Holds the descriptors of a shard, too; becomes the holder if that one ends, or hangs."""

    def __init__(self, holder: Shard, interval: float) -> None:
        self._interval = interval
        self._calls, self._call = os.pipe()
        self._answer, self._answers = os.pipe()
        self._parent = os.pidfd_open(os.getpid())  # before the fork: it may be killed just after
        super().__init__(holder)
        for fd in (self._calls, self._answers, self._parent):
            os.close(fd)

    def close(self) -> None:
        """Close the holder's ends of the pipes."""
        os.close(self._call)
        os.close(self._answer)
        os.close(self.pidfd)

    def close_files(self, frame: int) -> None:
        """Have the guardian close the descriptors of what is written in a frame, and wait until it has."""
        try:
            os.write(self._call, frame.to_bytes(_NUMBER, "little"))
        except BrokenPipeError:  # it has ended: its descriptors are closed
            return
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        if poll.poll(_ANSWER * 1e3):
            os.read(self._answer, 1)
        else:  # it hangs; the holder starts another one
            os.kill(self.pid, _signal.SIGKILL)
            child.wait_for_end(self.pidfd)

    def reap(self) -> int:
        os.close(self._call)
        os.close(self._answer)
        return super().reap()

    def _body(self, holder: Shard) -> None:
        self._stand_by(holder)
        if not holder.family.is_published():
            return  # the start has failed
        try:
            successor = type(holder)(holder.family, holder.shard)
            successor.take_over()
        except BaseException as error:
            holder.board.fail(reason(error))
            holder.family.fail()
            return
        successor.run()

    def _stand_by(self, holder: Shard) -> None:
        """Do what the holder asks for; return when it has ended. One that hangs is killed."""
        child.set_name("unpackenv-guard")
        holder.family.leave_application()
        os.close(self._call)
        os.close(self._answer)
        poll = select.poll()
        poll.register(self._calls, select.POLLIN)
        board, silent = holder.board, 0
        while True:
            if poll.poll(self._interval * 1e3):
                number = os.read(self._calls, _NUMBER)
                if not number:
                    break
                self._close_files(holder, int.from_bytes(number, "little"))
                try:
                    os.write(self._answers, b"+")
                except BrokenPipeError:  # the holder was killed while it waited for the answer
                    break
            elif not board.is_expecting or leases.now() - board.alive[holder.shard] < 2 * self._interval:
                silent = 0
            elif (overdue := board.overdue(holder.shard, holder.filling.archive.path)) and not board.failure:
                board.fail(overdue)
                holder.family.fail()
            else:
                silent += 1
                if silent > 1:  # once is no proof: this process may have been frozen, too
                    _signal.pidfd_send_signal(self._parent, _signal.SIGKILL)
        for fd in (self._calls, self._answers, self._parent):
            os.close(fd)
        holder.close()

    def _close_files(self, holder: Shard, frame: int) -> None:
        for row in [*holder.plan.rows[frame], *holder.plan.pieces(frame)]:
            state = holder.board.files[row]
            if state == FREE or (state == WRITTEN and holder.plan.is_program(row)):
                holder.filling.close(row)
