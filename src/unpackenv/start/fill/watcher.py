"""The watcher of one application: it ends the application if the tree that it uses cannot be filled.

An application must not read what was never written. The processes that fill the tree hold a FIFO in it open; a watcher
sees there when the last of them has ended, or calls. It works across containers that share a volume.
"""

from __future__ import annotations

import _signal
import marshal
import select

from unpackenv.errors import TreeUnfilled
from unpackenv.start import stamp
from unpackenv.start.machine import child, workers
from unpackenv.start.process import write_line
from unpackenv.start.report import counted_files, fetched_text
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from unpackenv.start.fill.board import Board
    from unpackenv.start.settings import Log

SHARD_KILLED = "the processes that held a part of its files were killed"
_LOOK = 10  # ms
_KILLED_AFTER = 0.2
"""Seconds in which a process that was killed ends, unless it is the first one of a PID namespace."""


class Watcher:
    """The watcher of the application that made the tree; it also writes the line that says that all is filled."""

    def __init__(self, application: int, tree: int, target: str, board: Board, log: Log, pulses: Sequence[int]) -> None:
        """Start to watch the process `application`, which uses the open directory `tree`; raises `OSError`.

        Each of `pulses` is readable when all processes of a shard have ended.
        """
        self._statistics, self._send = os.pipe()
        watched = os.pidfd_open(application)
        fifo = stamp.open_fifo(tree)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _prepare_process(watched, tree, fifo, self._statistics, *pulses)
                _Watch(application, watched, tree, fifo, target, log, board).run(self._statistics, pulses)
            finally:
                os._exit(0)
        for fd in (self._statistics, watched, fifo):
            os.close(fd)
        self.pidfd = os.pidfd_open(self._pid)
        """Readable when it has ended."""

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return child.wait_for_end(self.pidfd, 0)

    def send(self, statistics: dict[str, Any]) -> None:
        """Have the watcher write the line that says that all is filled, unless its application has ended."""
        try:
            os.write(self._send, marshal.dumps(statistics))
        except BrokenPipeError:
            pass

    def join(self) -> None:
        """Wait until the watcher has ended."""
        os.close(self._send)
        workers.wait(self._pid)


class _Watch:
    """What a watcher does."""

    def __init__(
        self,
        application: int,
        watched: int,
        tree: int,
        fifo: int,
        target: str,
        log: Log,
        board: Board | None = None,
    ) -> None:
        """`application` is a process and `watched` a pidfd of it; `board` that of the processes that fill, if known."""
        self._application = application
        self._watched = watched
        self._tree = tree
        self._fifo = fifo
        self._target = target
        self._log = log
        self._board = board

    def run(self, statistics: int = -1, pulses: Sequence[int] = ()) -> None:
        """Watch until the tree is whole, or the application has ended."""
        poll = select.poll()
        for fd in (self._watched, self._fifo, statistics, *pulses):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        board, is_lost = self._board, False  # a shard is lost, perhaps before the application runs
        while True:
            events = dict(poll.poll(_LOOK if is_lost else None))
            if self._watched in events:
                return
            if statistics in events:
                poll.unregister(statistics)
                data = os.read(statistics, 1 << 16)
                if data:
                    write_filled(self._log, self._application, self._target, marshal.loads(data))
            for pulse in events.keys() & set(pulses):
                poll.unregister(pulse)
                is_lost = bool(board and not (board.is_full or board.is_over or board.failure))
            if is_lost and board and board.is_running:
                self._kill(SHARD_KILLED)  # at once: its leases have ended
                return
            if self._fifo in events:
                if not self._is_whole():
                    self._kill()
                return

    def _is_whole(self) -> bool:
        try:
            fd = os.open(stamp.NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree)
        except OSError:
            return False
        return stamp.is_whole(fd)

    def _kill(self, why: str = "") -> None:
        if self._board and not self._board.is_running:
            return  # the start reports its own error
        _signal.pidfd_send_signal(self._watched, _signal.SIGKILL)
        has_ended = child.wait_for_end(self._watched, _KILLED_AFTER)
        self._tell(why)
        if not has_ended:
            self._interrupt()

    def _tell(self, why: str) -> None:
        why = why or (self._board and self._board.failure) or stamp.failure(self._tree) or "its fillers have ended"
        why = why[len(self._target) + 2 :] if why.startswith(f"{self._target}: ") else why
        error = TreeUnfilled(f"cannot be filled, so its application was killed: {why}", where=self._target)
        if self._log.form != "json":
            write_line(f"unpackenv: error: {error}")
        if self._log.is_json:
            from unpackenv.start.log import json_lines

            json_lines.write_killed(self._log, self._application, error)

    def _interrupt(self) -> None:
        """Tell an application to end that is the first process of a PID namespace: the kernel spares it.

        It gets the signals for which programs have handlers, and no more CPU time than a second in all: after that the
        kernel itself kills it. When it ends, so does this process.
        """
        import resource

        try:
            resource.prlimit(self._application, resource.RLIMIT_CPU, (0, 0))
            for signum in (_signal.SIGINT, _signal.SIGTERM):
                _signal.pidfd_send_signal(self._watched, signum)
        except OSError:  # it has ended by now
            pass


def _prepare_process(*descriptors: int) -> None:
    """Have nothing open that others wait for, but stderr."""
    child.set_name("unpackenv-watch")
    child.ignore_stop_signals()
    child.close_all(fd for fd in child.open_descriptors() if fd not in descriptors)
    child.silence(0, 1)


def write_filled(log: Log, application: int, target: str, statistics: dict[str, Any]) -> None:
    """Write the line that says that the tree of a process is filled."""
    if log.form == "text":
        write_line(filled_text(target, statistics))
    if log.is_json:
        from unpackenv.start.log import json_lines

        longest = [{"path": path, "ms": milliseconds} for path, milliseconds in statistics["longest"]]
        json_lines.write_filled(log, application, {"target": target, **statistics, "longest": longest})


def filled_text(target: str, statistics: dict[str, Any]) -> str:
    """Return the line for people that a tree is filled."""
    fetched = statistics["fetched"]
    return _filled_text(target, statistics) + (f"; fetched {fetched_text(fetched)}" if fetched else "")


def _filled_text(target: str, statistics: dict[str, Any]) -> str:
    what = f"{counted_files(statistics['files'])}, {statistics['size'] / 1e6:.1f} MB, at {target}"
    line = f"unpackenv: filled {what} in {statistics['milliseconds']:.1f} ms"
    waits, waited = statistics["waits"], statistics["waited_ms"]
    if not waits:
        return f"{line}; no open waited"
    path, longest = statistics["longest"][0]
    if waits == 1:
        return f"{line}; 1 open waited {waited:.0f} ms, for {path}"
    return f"{line}; {waits} opens waited {waited:.0f} ms together, longest {longest:.0f} ms for {path}"


def watch_this_process(tree: int, fifo: int, stamp_fd: int, target: str, log: Log) -> None:
    """Start a watcher for the calling process, which joins the tree in the open directory `tree`.

    It is no child of this process, which may wait for its own. It keeps the lock on the stamp, which shows that the
    tree is used, even if the application closes it.
    """
    application = os.getpid()
    watched = os.pidfd_open(application)
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                _prepare_process(watched, tree, fifo, stamp_fd)
                _Watch(application, watched, tree, fifo, target, log).run()
        finally:
            os._exit(0)
    os.close(watched)
    workers.wait(pid)
