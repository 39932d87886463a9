"""A process that a holder starts, and how it tells why it failed."""

from __future__ import annotations

import _signal

from unpackenv.errors import UnpackenvError
from unpackenv.start.machine import child, workers
from unpackenv.start.tree.writer import member_error
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.fill.shard import Shard


class Offspring:
    """A child of the holder; `pidfd` is readable when it has ended."""

    def __init__(self, holder: Shard) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._body(holder)
            finally:
                os._exit(0)
        self.pidfd = os.pidfd_open(self.pid)

    def _body(self, holder: Shard) -> None:
        """Do the work of the child."""
        raise NotImplementedError

    def has_ended(self, within: float = 0.0) -> bool:
        """Whether it has ended, or does so within so many seconds."""
        return child.wait_for_end(self.pidfd, within)

    def kill(self) -> None:
        """Kill the child, and wait until it has ended."""
        os.kill(self.pid, _signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """Wait until the child has ended; return its wait status."""
        os.close(self.pidfd)
        return workers.wait(self.pid)


def reason(error: BaseException) -> str:
    """Return what to tell of an error that ended a fill."""
    if isinstance(error, (UnpackenvError, TimeoutError)):
        return str(error)
    if isinstance(error, OSError):
        return str(member_error(error, str(error.filename or "the tree")))
    import traceback

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
