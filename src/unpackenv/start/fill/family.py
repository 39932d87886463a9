"""What the processes that fill one tree share."""

from __future__ import annotations

import fcntl
import select

from unpackenv.errors import UnpackFailed
from unpackenv.start import stamp
from unpackenv.start.fill import leases, left, watcher
from unpackenv.start.fill.board import Board
from unpackenv.start.fill.filling import Filling
from unpackenv.start.fill.names import NONE, Names
from unpackenv.start.fill.plan import Plan
from unpackenv.start.machine import child
from unpackenv.start.settings import ON_DEMAND
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.reader import Archive
    from unpackenv.start.settings import Log
    from unpackenv.start.tree.writer import TreeWriter
    from unpackenv.start.unpack.source import Observer

_UNTIL_SYNC = 30.0
"""Seconds after which a whole tree is synced, if its application runs for so long: the start needs disk and CPU."""
_UNTIL_KILLED = 10.0
"""Seconds that the applications get to end, once they are killed, before the leases end."""


class Application:
    """The process that starts: its number, where its lines go, and the descriptors that its children inherit.

    `fill` says when it wants files to be filled; `record` is a file to which the path of each is appended when it is
    first opened, or "". `observer` observes what is done for it.
    """

    def __init__(self, pid: int, log: Log, descriptors: list[int], fill: str, record: str, observer: Observer) -> None:
        self.pid = pid
        self.log = log
        self.descriptors = descriptors
        self.fill = fill
        self.record = record
        self.observer = observer


class Family:
    """What the processes that fill one tree share, and how they reach each other and the application.

    `tree` is the open directory that will be the tree, and `target` its path. The processes of a shard have its pulse
    open for writing: when all of them have ended, others see that.
    """

    def __init__(
        self,
        archive: Archive,
        plan: Plan,
        writer: TreeWriter,
        tree: int,
        target: str,
        application: Application,
        *,
        is_left: bool = False,
    ) -> None:
        """Make what the processes share; raises `OSError`. The tree may be one that was left (`is_left`)."""
        self.is_on_demand = application.fill == ON_DEMAND
        """Whether a file is filled only if somebody opens it."""
        self.target = target
        self.archive = archive
        self.plan = plan
        files = len(plan.toc.file_size)
        journal = left.open_journal(tree, files) if is_left else stamp.make_journal(tree, files)
        self.board = Board(journal, files, len(plan.starts) - 1, plan.shards)
        os.close(journal)
        self.names = (left.LeftNames if is_left else Names)(plan.toc, writer, self.board)
        self.observer = application.observer
        self.filling = Filling(archive, plan, self.board, self.names.fds, self.observer)
        self.began = time.perf_counter()
        self.inherited = application.descriptors
        """What a process of the family closes when it goes on without the application."""
        self._tree = tree
        self._fifo = stamp.make_fifo(tree)
        self.wakes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(plan.shards)]
        self.pulses = [os.pipe() for _ in range(plan.shards)]
        self.go = os.pipe()
        """Holds a byte for each other shard when the first process has published the tree."""
        readers = [reader for reader, _ in self.pulses]
        self.watcher = watcher.Watcher(application.pid, tree, target, self.board, application.log, readers)
        self._application = os.pidfd_open(application.pid)
        self._stamp = -1
        self._record = -1
        if application.record:
            self._record = os.open(application.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        leases.block_signals()

    def leave_application(self) -> None:
        """In a process of the family: have nothing open that the application has, or waits for."""
        child.close_all(self.inherited)
        self.inherited = []  # by now, the numbers may be those of other files
        child.silence(0, 1, 2)

    def is_published(self) -> bool:
        """Wait until the first process has published the tree, or has ended; return whether there is anything to fill.

        The process of a shard, or the guardian of one that was killed before, calls this once.
        """
        os.read(self.go[0], 1)
        return self.board.is_expecting

    def close(self) -> None:
        """Close what shows that the caller is alive, and wait for the watcher."""
        os.close(self._fifo)
        os.close(self.pulses[0][1])
        self.watcher.join()

    def give_up(self) -> None:
        """Close everything: the tree is not published."""
        child.close_all(fd for fd in self.names.fds if fd != NONE)
        child.close_all(fd for pair in (*self.wakes, *self.pulses, self.go) for fd in pair)
        os.close(self._fifo)
        self.watcher.join()
        os.close(self._application)
        os.close(self._tree)

    # --- messages ---

    def wake(self, shard: int) -> None:
        """Have the holder of a shard look at the board."""
        try:
            os.write(self.wakes[shard][1], b"+")
        except BlockingIOError:
            pass

    def wake_others(self, shard: int) -> None:
        """Have the holders of all other shards look at the board."""
        for other in range(self.plan.shards):
            if other != shard:
                self.wake(other)

    def clear_wake(self, shard: int) -> None:
        """Forget what woke the holder of a shard."""
        try:
            os.read(self.wakes[shard][0], 1 << 16)
        except BlockingIOError:
            pass

    def pulses_of_others(self, shard: int) -> list[int]:
        """Return descriptors of which each is readable when no process of one of the other shards is left."""
        return [reader for number, (reader, _) in enumerate(self.pulses) if number != shard]

    def record(self, row: int) -> None:
        """Record that somebody has opened a file for the first time."""
        if self._record >= 0:
            os.write(self._record, self._path(row) + b"\n")

    def end_wait(self, shard: int, row: int, seconds: float) -> None:
        """Note that an open of a file has waited for so long, until now; the caller is the holder of the shard."""
        self.board.add_wait(shard, row, seconds)
        self.observer.end_wait(os.fsdecode(self._path(row)), seconds)

    def _path(self, row: int) -> bytes:
        toc = self.plan.toc
        return self.names.paths[toc.file_dir[row]] + toc.file_names[row]

    # --- the end ---

    def open_stamp(self) -> None:
        """Open the stamp of the tree, which is published by now; another start may replace tree and stamp later."""
        try:
            self._stamp = os.open(stamp.NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tree)
        except FileNotFoundError:  # it is replaced already
            self._stamp = -1

    def _has_stamp(self) -> bool:
        """Whether the tree still has the stamp that this family fills it for."""
        try:
            there = os.stat(stamp.NAME, dir_fd=self._tree, follow_symlinks=False)
            return self._stamp >= 0 and os.path.samestat(there, os.fstat(self._stamp))
        except FileNotFoundError:
            return False

    def is_all_wanted(self, shard: int) -> bool:
        """Whether a tree that was filled on demand is to be filled as a whole by now; the caller is of a shard."""
        if self.is_on_demand and stamp.is_all_wanted(self._tree):
            self.is_on_demand = False
            self.plan.fill_all()
            self.wake_others(shard)
        return not self.is_on_demand

    def is_unused(self) -> bool:
        """Whether no application uses the tree any more; then no other one can begin to before this process ends.

        A later start goes on with the tree.
        """
        if not self.watcher.has_ended():
            return False
        try:
            if self._stamp >= 0:
                fcntl.flock(self._stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._has_stamp():
            stamp.remove_fifo(self._tree)
        return True

    def _unfinish(self) -> None:
        if self._has_stamp():
            stamp.unfinish(f"/proc/self/fd/{self._tree}", self.board.failure)

    def end(self) -> None:
        """Write into the stamp that the tree is whole."""
        if self._has_stamp():
            stamp.set_fill(self._stamp, stamp.WHOLE)
            stamp.remove_fill(self._tree)
            self.watcher.send(self._statistics())
            self.call_watchers()

    def sync(self) -> None:
        """Sync a whole tree when its start is over, and then write into the stamp that it survives a crash."""
        child.set_name("unpackenv-sync")
        child.ignore_stop_signals(False)  # nobody waits for it
        child.wait_for_end(self._application, _UNTIL_SYNC)
        if not self._has_stamp():
            return
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        from unpackenv.start.tree import reboot_check

        try:
            reboot_check.sync(self._tree)
        except UnpackFailed:  # then it is not trusted after a reboot
            return
        stamp.set_fill(self._stamp, stamp.SYNCED_WHOLE)

    def _statistics(self) -> dict[str, object]:
        count, seconds, longest = self.board.waits()
        toc, traffic = self.plan.toc, self.archive.blob.traffic
        return {
            "milliseconds": (time.perf_counter() - self.began) * 1e3,
            "waits": count,
            "waited_ms": seconds * 1e3,
            "longest": [(os.fsdecode(self._path(row)), each * 1e3) for each, row in longest],
            "files": len(toc.file_size),
            "size": toc.unpacked_size,
            "fetched": traffic.total() if traffic else None,  # by all processes of the start, from its beginning
        }

    def fail(self) -> None:
        """End the applications that use the tree, and then the leases: nobody may read what was not written."""
        try:
            self._unfinish()
        except OSError:
            pass
        self.call_watchers()
        deadline = time.monotonic() + _UNTIL_KILLED
        while self._stamp >= 0 and time.monotonic() < deadline:
            try:
                fcntl.flock(self._stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._stamp, fcntl.LOCK_UN)  # other processes of the family wait for it, too
                break
            except BlockingIOError:
                select.select([], [], [], 0.005)

    def call_watchers(self) -> None:
        """Have every watcher look at the stamp."""
        try:
            os.write(self._fifo, b"!")
        except BlockingIOError:
            pass
